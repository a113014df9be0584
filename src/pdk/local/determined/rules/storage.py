"""Where the checkpoints of an experiment are: this server's own folder, a folder of the user's, or a bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pdk.errors import UserError
from pdk.kit.spec import Bind
from pdk.local.determined.rules import retention, sections
from pdk.local.determined.rules.fields import FLAG, TEXT, Field, check, refusal
from pdk.local.determined.rules.fields import complete as fill
from pdk.local.determined.rules.sections import Config

SHARED = "/determined_shared_fs"  # where trials see the folder of a shared_fs, as on a cluster
WORKDIR = "/run/determined/workdir"
ALL = "**/*"
FIELDS: dict[str, tuple[str, ...]] = {  # of each type; the first one is required
    "directory": ("container_path",),
    "shared_fs": ("host_path", "storage_path", "propagation", "container_path", "checkpoint_path", "tensorboard_path"),
    "s3": ("bucket", "access_key", "secret_key", "endpoint_url", "prefix"),
    "gcs": ("bucket", "prefix"),
}
MOUNT = {
    "host_path": Field(TEXT),
    "container_path": Field(TEXT),
    "read_only": Field(FLAG, False),
    "propagation": Field(TEXT, "rprivate"),
}


def _refuse(field: str, why: str) -> UserError:
    return refusal(f"checkpoint_storage.{field}", why)


def complete(given: Mapping[str, Any], own: Path, binds: Sequence[Bind]) -> dict[str, Any]:
    """Return a ``checkpoint_storage`` section with all that it needs.

    Args:
        own: the server's folder, for experiments that name no storage.
        binds: folders that trials see elsewhere.

    Raises:
        UserError: naming the field and the reason.
    """
    kept = retention.policy(given)
    found = {key: value for key, value in given.items() if value is not None and key not in kept}
    kind = found.pop("type", None)
    if kind is None:
        if found:
            raise _refuse("type", f"is required with {min(found)!r}: one of {', '.join(FIELDS)}")
        return {"type": "directory", "container_path": str(own), **kept}
    if kind == "azure":
        raise _refuse("type", "azure is not offered by the local server; use s3, gcs, shared_fs, directory, or leave the section out")
    if kind not in FIELDS:
        raise _refuse("type", f"{kind!r} is none of {', '.join(FIELDS)}")
    check("checkpoint_storage", found, dict.fromkeys(FIELDS[kind], Field(TEXT)), required=FIELDS[kind][:1])
    content = {"type": kind, **found, **kept}
    if (found_at := _folder(sections.storage(content), binds)) is not None:
        _check_folder(FIELDS[kind][0], found_at)
    return content


def _check_folder(field: str, place: Path) -> None:
    if not place.is_absolute():
        raise _refuse(field, f"an absolute path is expected, not {str(place)!r}")
    if ".." in place.parts:
        raise _refuse(field, f"{str(place)!r} holds '..'")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refuse(field, f"{place} cannot be made: {error.strerror}; name a folder of this machine that you may write") from error
    if not os.access(place, os.W_OK):
        raise _refuse(field, f"{place} cannot be written by this user")


def place(config: Config) -> Path | None:
    """Return the folder of this machine that a config's checkpoints are in; None for a bucket."""
    return _folder(config.checkpoint_storage, bind_mounts(config))


def _folder(section: sections.Storage, binds: Sequence[Bind]) -> Path | None:
    if section.type == "shared_fs":
        return Path(section.host_path, section.inner)
    if section.type == "directory":
        path = PurePosixPath(section.container_path)
        around = [bind for bind in binds if path.is_relative_to(bind.target)]
        if around:
            nearest = max(around, key=lambda bind: len(bind.target))
            return nearest.source / path.relative_to(nearest.target)
        return Path(path)
    return None


def complete_mounts(given: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the entries of a config's ``bind_mounts`` with all their fields.

    Raises:
        UserError: naming the field and the reason.
    """
    for entry in given:
        if not isinstance(entry, Mapping):
            raise refusal("bind_mounts", f"mappings are expected, not {entry!r}")
        check("bind_mounts", entry, MOUNT, required=("host_path", "container_path"))
        if not Path(entry["host_path"]).is_absolute():
            raise refusal("bind_mounts.host_path", f"an absolute path is expected, not {entry['host_path']!r}")
        target = PurePosixPath(WORKDIR, entry["container_path"])
        if ".." in target.parts or str(target) in ("/", WORKDIR):
            raise refusal("bind_mounts.container_path", f"{entry['container_path']!r} is no place for a mount")
    return [fill(entry, MOUNT) for entry in given]


def bind_mounts(config: Config) -> list[Bind]:
    """Return the ``bind_mounts`` of a config."""
    return [mount(entry.host_path, entry.container_path, read_only=entry.read_only) for entry in config.bind_mounts]


def mount(host_path: str, container_path: str, *, read_only: bool = False) -> Bind:
    """Return a folder of the machine as trials see it; paths within that are relative are in their working folder."""
    return Bind(Path(host_path), str(PurePosixPath(WORKDIR, container_path)), read_only=read_only)


def check_sources(config: Config, own: Path) -> None:
    """Refuse folders that are not there, and those of the installation itself, which no trial may see.

    Args:
        own: the server's folder for checkpoints, in the installation's state folder.

    Raises:
        UserError: naming the field and the reason.
    """
    state, section = own.parents[1].resolve(), config.checkpoint_storage
    for bind in bind_mounts(config):
        if not bind.source.exists():
            raise refusal("bind_mounts.host_path", f"{bind.source} does not exist on this machine")
        if bind.source.resolve().is_relative_to(state):
            raise refusal("bind_mounts.host_path", f"{bind.source} is a folder of the installation itself")
    found = Path(section.host_path) if section.type == "shared_fs" else place(config)
    if found is not None and found.resolve().is_relative_to(state) and not found.resolve().is_relative_to(own.resolve()):
        raise _refuse(FIELDS[section.type][0], f"{found} is a folder of the installation itself")


def binds(config: Config) -> list[Bind]:
    """Return what trials of a config must see: its mounts, and the folder of its checkpoints."""
    made, section = bind_mounts(config), config.checkpoint_storage
    if section.type == "shared_fs":
        made.append(Bind(Path(section.host_path), SHARED))
    elif (found := place(config)) is not None and not any(bind.source in (found, *found.parents) for bind in made):
        made.append(Bind(found, section.container_path))
    return made


def events(config: Config, cluster: str, experiment: int) -> str:
    """Return where the TensorBoard files of an experiment are, as ``tensorboard --logdir`` takes it."""
    section, inner = config.checkpoint_storage, f"{cluster}/tensorboard/experiment/{experiment}"
    found = place(config)
    if found is not None:
        return str(found / inner)
    scheme = {"s3": "s3", "gcs": "gs"}[section.type]
    return "/".join(part.strip("/") for part in (f"{scheme}://{section.bucket}", section.prefix, inner) if part)
