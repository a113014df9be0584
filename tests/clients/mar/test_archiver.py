"""torch-model-archiver 0.12 itself: what it makes is read and served; what we write it could have made."""

import json
import subprocess
import zipfile

import pytest

from environments import environment_of
from pdk.mar import Archive, Manifest, write
from pdk.serving.check import check

HANDLER = """
from pathlib import Path

class Handler:
    def initialize(self, context):
        folder = Path(context.system_properties["model_dir"])
        self.labels = (folder / "names.txt").read_text().split()
        self.size = context.model_yaml_config.get("batchSize")

    def handle(self, data, context):
        return [[self.labels[row], self.size] for row in data]
"""


@pytest.fixture(scope="session")
def archiver():
    return environment_of("torch-model-archiver").with_name("torch-model-archiver")


@pytest.fixture
def make(archiver, tmp_path):
    """Have the archiver write an archive."""
    for name, content in (("handler.py", HANDLER), ("names.txt", "dog cat"), ("model.pt", "weights"), ("c.yaml", "batchSize: 3\n"),
                          ("r.txt", "numpy\n")):  # fmt: skip
        (tmp_path / name).write_text(content)
    (tmp_path / "example.json").write_text('{"instances": [1, 0]}')

    def make(*more):
        words = [archiver, "--model-name", "m", "--version", "1.0", "--handler", "handler.py", "--serialized-file", "model.pt",
                 "--extra-files", "names.txt", "--config-file", "c.yaml", "-r", "r.txt", "--force", *more]  # fmt: skip
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
        return next(path for name in ("m.mar", "m.tar.gz", "m") if (path := tmp_path / name).exists())

    return make


@pytest.mark.parametrize("form", [(), ("--archive-format", "zip-store"), ("--archive-format", "tgz"), ("--archive-format", "no-archive")])
def test_what_the_archiver_writes_is_read_and_served(make, tmp_path, form):
    path = make(*form)
    found = Archive.open(path).manifest
    assert (found.model_name, found.serialized_file, found.requirements_file, found.config_file) == ("m", "model.pt", "r.txt", "c.yaml")
    assert check(path, tmp_path / "example.json") == [["cat", 3], ["dog", 3]]


def test_our_manifest_has_the_archivers_keys(make, tmp_path):
    theirs = json.loads(zipfile.ZipFile(make()).read("MAR-INF/MANIFEST.json"))
    files = {name: (tmp_path / name) for name in ("handler.py", "names.txt", "model.pt", "c.yaml", "r.txt")}
    write(tmp_path / "ours.mar", Manifest("m", "1.0", "handler.py", "model.pt", None, "r.txt", "c.yaml"), files)
    with zipfile.ZipFile(tmp_path / "ours.mar") as archive:
        ours = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    assert ours["model"] == theirs["model"]
    assert ours.keys() == theirs.keys()
