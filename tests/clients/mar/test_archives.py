"""`pdk archive`, as users run it."""

import json
import subprocess
import sys
import zipfile

import pytest

HANDLER = """
import json
from pathlib import Path

class Handler:
    def initialize(self, context):
        self.labels = json.loads((Path(context.system_properties["model_dir"]) / "labels" / "names.json").read_text())

    def handle(self, data, context):
        return [self.labels[row] for row in data]
"""


@pytest.fixture
def run(tmp_path):
    """Run `pdk archive` in a folder with a handler and its files; exit code and output."""
    (tmp_path / "handler.py").write_text(HANDLER)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "names.json").write_text('["dog", "cat"]')
    (tmp_path / "example.json").write_text('{"instances": [1, 0]}')

    def run(*words):
        command = [sys.executable, "-m", "pdk.cli.main", "archive", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_an_archive_from_create_to_check(run, tmp_path):
    words = ("--handler", "handler.py", "--extra-file", "labels", "--version", "2.0")
    code, said = run("create", "pets.mar", *words)
    assert code == 0, said
    run("create", "again.mar", "--name", "pets", *words)
    assert (tmp_path / "pets.mar").read_bytes() == (tmp_path / "again.mar").read_bytes()
    found = json.loads(run("inspect", "pets.mar", "--output", "json")[1])
    assert (found["model"], found["version"], found["handler"]) == ("pets", "2.0", "handler.py")
    assert set(found["files"]) == {"handler.py", "labels/names.json", "MAR-INF/MANIFEST.json"}
    assert found["digest"] in said
    assert "labels/names.json" in run("inspect", "pets.mar")[1]
    code, said = run("check", "pets.mar", "--example", "example.json")
    assert code == 0, said
    assert '["cat", "dog"]' in said


@pytest.mark.parametrize(
    ("handler", "example", "means"),
    [
        ("import absent_package\n", None, "No module named 'absent_package'"),
        (HANDLER, '{"instances": [7]}', "does not answer example.json: IndexError"),
        (HANDLER, '{"rows": []}', "is no request of the form"),
        ("import os\nos._exit(3)\n", None, "brought its process down"),
        ("def handle(data, context):\n    return 'x'\n", '{"instances": [1]}', "instead of a list"),
    ],
)
def test_what_would_not_serve_is_found(run, tmp_path, handler, example, means):
    (tmp_path / "handler.py").write_text(handler)
    (tmp_path / "example.json").write_text(example or "{}")
    run("create", "a.mar", "--handler", "handler.py", "--extra-file", "labels")
    code, said = run("check", "a.mar", *(("--example", "example.json") if example else ()))
    assert code == 2
    assert means in said


def test_mistakes_are_told(run, tmp_path):
    assert "is no file" in run("create", "a.mar", "--handler", "absent.py")[1]
    assert "rename one of them" in run("create", "a.mar", "--handler", "handler.py", "--extra-file", "handler.py")[1]
    with zipfile.ZipFile(tmp_path / "evil.mar", "w") as archive:
        archive.writestr("../evil", "x")
    for verb in ("inspect", "check"):
        code, said = run(verb, "evil.mar")
        assert code == 2
        assert "not a plain relative path" in said
    assert not list(tmp_path.glob("a.mar"))
