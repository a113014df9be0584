"""Reads the pictures of a Pachyderm commit, all of them or those that changed since another commit.

They come in one tar stream (file by file where few are missing) and stay in a local cache under the hash of their content, so the
next run reads only what is new.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from handler import pixels
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

CAT, DOG = 1, 0
WORD = re.compile(r"(?:^|[^a-z])(cat|dog)s?(?=[^a-z]|$)")
FEW = 64  # up to so many missing files are fetched one by one, several at a time
HELD_OUT = 7  # every so-manieth picture validates
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def label_of(path):
    """1 for a cat, 0 for a dog, from the file's own name or else the folder it lies in; None where neither tells."""
    for name in path.strip("/").split("/")[::-1][:2]:
        found = set(WORD.findall(name.lower()))
        if len(found) == 1:
            return CAT if found == {"cat"} else DOG
    return None


def connect(config):
    """A client for the address in the experiment's config."""
    return Client(host=config["host"], port=int(config["port"]), auth_token=config.get("token") or None)


def commit_of(config, key="branch"):
    """The commit that a key of the config names."""
    return pfs.Commit(repo=pfs.Repo(name=config["repo"], type="user", project=pfs.Project(name=config["project"])), id=config[key])


def listing(client, config):
    """Path and content hash of the files to train on."""
    root = pfs.File(commit=commit_of(config), path="/")
    if config.get("previous_commit"):
        before = pfs.File(commit=commit_of(config, "previous_commit"), path="/")
        changes = client.pfs.diff_file(new_file=root, old_file=before)
        found = [change.new_file for change in changes if change.new_file and change.new_file.file.path]
        return {info.file.path: info.hash.hex() for info in found if info.file_type == pfs.FileType.FILE}
    return dict(walk(client, root))


def walk(client, root):
    """Path and content hash of every file below `root`.

    What `client.pfs.walk_file` does, which takes 0.2 ms a file to make objects of which only two fields are wanted here.
    """
    call = client._channel.unary_stream("/pfs_v2.API/WalkFile", request_serializer=bytes, response_deserializer=bytes)
    for answer in call(pfs.WalkFileRequest(file=root)):
        info = message(answer)
        if info.get(2) == pfs.FileType.FILE:
            yield message(info[1])[2].decode(), info.get(5, b"").hex()


def message(raw):
    """The last value of each field of a protobuf message, by number: a whole number, or bytes."""
    fields, at = {}, 0
    while at < len(raw):
        key, at = varint(raw, at)
        if key & 7 == 0:
            fields[key >> 3], at = varint(raw, at)
            continue
        size, at = varint(raw, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
        fields[key >> 3], at = raw[at : at + size], at + size
    return fields


def varint(raw, at):
    """A whole number in protobuf's form, and the position after it."""
    value, shift = 0, 0
    while raw[at] & 128:
        value, shift, at = value | (raw[at] & 127) << shift, shift + 7, at + 1
    return value | raw[at] << shift, at + 1


def cache_folder():
    """Where contents are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "pdk-pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(folder, key, content):
    """Put a content into the cache, whole or not at all."""
    temporary = folder / f".{key}.{os.getpid()}"
    temporary.write_bytes(content)
    temporary.rename(folder / key)


def fetch(client, config, files):
    """Bring the contents of `files` (path → hash) into the cache; returns the cache's folder."""
    folder = cache_folder()
    missing = {path: key for path, key in files.items() if not (folder / key).exists()}
    if len(missing) > FEW:
        with client.pfs.pfs_tar_file(file=pfs.File(commit=commit_of(config), path="/")) as archive:
            for member in archive:
                key = missing.get("/" + member.name.lstrip("/"))
                if key and member.isfile():
                    keep(folder, key, archive.extractfile(member).read())
    else:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda pair: fetch_one(client, config, folder, *pair), missing.items()))
    return folder


def fetch_one(client, config, folder, path, key):
    """Bring one content into the cache."""
    with client.pfs.pfs_file(file=pfs.File(commit=commit_of(config), path=path)) as file:
        keep(folder, key, file.read())


class Pictures:
    """The labelled pictures of a run, in memory: `x` uint8 of shape (N, 3, SIDE, SIDE), `y` of shape (N,)."""

    def __init__(self, x, y):
        self.x, self.y = torch.from_numpy(x), torch.tensor(y)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def load(config):
    """Training and validation pictures.

    Raises:
        ValueError: the commit holds no picture of a cat or dog.
    """
    client = connect(config)
    files = listing(client, config)
    wanted = {path: key for path, key in files.items() if path.lower().endswith(PICTURES) and not Path(path).name.startswith(".")}
    labels = {path: label_of(path) for path in wanted}
    unlabelled = [path for path in wanted if labels[path] is None]
    folder = fetch(client, config, {path: key for path, key in wanted.items() if labels[path] is not None})
    rows, broken = [], []
    for path in sorted(wanted, key=lambda path: (wanted[path], path)):
        if labels[path] is not None:
            try:
                rows.append((pixels((folder / wanted[path]).read_bytes()), labels[path]))
            except ValueError as error:
                broken.append(f"{path}: {error}")
    print(
        f"pictures: {len(rows)} used, {len(files) - len(wanted)} files are no pictures, {len(unlabelled)} say neither cat nor dog, "
        f"{len(broken)} cannot be read" + "".join(f"\n  {line}" for line in broken[:10]),
        flush=True,
    )
    if not rows:
        what = f"changed since {config['previous_commit']}" if config.get("previous_commit") else "in it"
        raise ValueError(
            f"commit {config['branch']} of {config['project']}/{config['repo']} has no readable picture of a cat or dog {what}; "
            "name files (or the folder they are in) cat… or dog…"
        )
    held = [row for index, row in enumerate(rows) if index % HELD_OUT == 0]
    rest = [row for index, row in enumerate(rows) if index % HELD_OUT]
    return [Pictures(np.stack([x for x, _ in part]), [y for _, y in part]) for part in (rest or held, held)]
