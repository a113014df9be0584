"""The archive: reproducible, and read with distrust."""

import io
import json
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdk.errors import UserError
from pdk.mar import Archive, Manifest, write
from pdk.mar.format import MANIFEST

FILES = {"handler.py": b"x = 1\n", "model.pt": b"\0" * 1000, "extra/deep/file.txt": b"text"}
GOOD = Manifest("a-model", "1.0", "handler.py", "model.pt")


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    write(tmp_path / "a.mar", GOOD, FILES)
    for name, content in FILES.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    write(tmp_path / "b.mar", GOOD, {name: tmp_path / "in" / name for name in reversed(FILES)})
    assert (tmp_path / "a.mar").read_bytes() == (tmp_path / "b.mar").read_bytes()


def test_what_is_written_is_read_with_its_folders(tmp_path):
    write(tmp_path / "a.mar", GOOD, FILES)
    archive = Archive.open(tmp_path / "a.mar")
    assert archive.manifest == GOOD
    archive.extract(tmp_path / "out")
    for name, content in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == content


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest("../x", "1", "handler.py"),
        Manifest("a", "1", ""),
        Manifest("a", "1", "missing.py"),
        Manifest("a", "1", "handler.py", "no.pt"),
    ],
)
def test_manifests_that_cannot_be_written(tmp_path, manifest):
    with pytest.raises(UserError):
        write(tmp_path / "a.mar", manifest, FILES)
    assert list(tmp_path.iterdir()) == []


def hostile(path, members):
    manifest = GOOD.to_json()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in ((MANIFEST, manifest), ("handler.py", b""), ("model.pt", b""), *members):
            archive.writestr(name, content)


def link(name, kind=stat.S_IFLNK):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", b"")], [("/evil", b"")], [("a/../../evil", b"")], [("a\\..\\evil", b"")], [("C:/evil", b"")], [("a//b", b"")],
        [(link("a"), b"/etc/passwd")], [(link("a", stat.S_IFCHR), b"")], [("a", b""), ("A", b"")], [("a", b""), ("a/b", b"")],
        [("HANDLER.py", b"")], [("./a", b"")],
    ],
)  # fmt: skip
def test_hostile_members_are_refused(tmp_path, members):
    hostile(tmp_path / "a.mar", members)
    with pytest.raises(UserError):
        Archive.open(tmp_path / "a.mar")


def test_a_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.mar", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, GOOD.to_json())
        archive.writestr("bomb", b"\0" * (300 << 20))
    with pytest.raises(UserError, match="unpacks to"):
        Archive.open(tmp_path / "a.mar")


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive", json.dumps({}).encode()])
def test_what_is_no_archive_says_so(tmp_path, content):
    (tmp_path / "a.mar").write_bytes(content)
    with pytest.raises(UserError, match="archive"):
        Archive.open(tmp_path / "a.mar")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_archives_are_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mutated")
    write(folder / "a.mar", GOOD, FILES)
    raw = bytearray((folder / "a.mar").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.mar").write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    try:
        Archive.open(folder / "a.mar").extract(folder / "out")
    except UserError:
        return
    assert all(path.resolve().is_relative_to(folder) for path in (folder / "out").rglob("*"))


def test_archives_of_torch_model_archiver_are_read(tmp_path):
    """As its version 0.12 writes them: deflated, with extra keys in the manifest."""
    buffer = io.BytesIO()
    manifest = {
        "createdOn": "21/11/2026 08:00:00", "runtime": "python", "archiverVersion": "0.12.0",
        "model": {"modelName": "m", "serializedFile": "model.pt", "handler": "handler.py", "modelVersion": "1.0", "configFile": "c.yaml"},
    }  # fmt: skip
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("handler.py", "model.pt", "c.yaml"):
            archive.writestr(name, b"x")
        archive.writestr(MANIFEST, json.dumps(manifest))
    (tmp_path / "m.mar").write_bytes(buffer.getvalue())
    assert Archive.open(tmp_path / "m.mar").manifest == Manifest("m", "1.0", "handler.py", "model.pt", config_file="c.yaml")


def tarred(path, members):
    """A .tar.gz with the files of a good archive below m/, and more members."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("m/" + MANIFEST, GOOD.to_json()), ("m/handler.py", b""), ("m/model.pt", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in members:
            archive.addfile(info)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_tar_is_read_with_the_same_distrust(tmp_path):
    tarred(tmp_path / "good.tar.gz", [])
    archive = Archive.open(tmp_path / "good.tar.gz")
    archive.extract(tmp_path / "out")
    assert (tmp_path / "out" / "handler.py").exists()
    hostile = [
        special("m/link", tarfile.SYMTYPE, "/etc/passwd"), special("m/hard", tarfile.LNKTYPE, "m/handler.py"),
        special("m/device", tarfile.CHRTYPE), special("../evil", tarfile.REGTYPE), special("/evil", tarfile.REGTYPE),
        special("m/HANDLER.py", tarfile.REGTYPE), special("m/handler.py", tarfile.REGTYPE), special("handler.py", tarfile.REGTYPE),
        special("m/handler.py/below", tarfile.REGTYPE), special("m/pipe", tarfile.FIFOTYPE),
    ]  # fmt: skip
    for number, member in enumerate(hostile):
        tarred(tmp_path / f"{number}.tar.gz", [member])
        with pytest.raises(UserError):
            Archive.open(tmp_path / f"{number}.tar.gz")


def test_a_folder_is_read_with_the_same_distrust(tmp_path):
    folder = tmp_path / "m"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / MANIFEST).write_bytes(GOOD.to_json())
    for name in ("handler.py", "model.pt"):
        (folder / name).write_bytes(b"x")
    before = Archive.open(folder).digest()
    Archive.open(folder).extract(tmp_path / "out")
    assert (tmp_path / "out" / "model.pt").read_bytes() == b"x"
    (folder / "model.pt").write_bytes(b"y")
    assert Archive.open(folder).digest() != before
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="link or device"):
        Archive.open(folder)
