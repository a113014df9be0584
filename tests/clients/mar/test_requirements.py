"""Requirements of handlers: locked at packaging, compared at serving."""

from importlib import metadata

import pytest

from pdk.errors import UserError
from pdk.mar import Archive
from pdk.mar.create import Parts, create
from pdk.mar.requirements import check, is_locked, lock


def test_what_an_archive_needs_is_locked_with_hashes(tmp_path):
    (tmp_path / "handler.py").write_text("def predict(instances):\n    return instances\n")
    (tmp_path / "r.txt").write_text("# dates\npython-dateutil\n")
    made = create(tmp_path / "m.mar", "m", "1", Parts(str(tmp_path / "handler.py"), requirements=tmp_path / "r.txt"))
    text = made.read("requirements.txt").decode()
    assert is_locked(text)
    names = {line.partition("==")[0] for line in text.splitlines() if "==" in line}
    assert "python-dateutil" in names
    assert len(names) > 1  # what it needs itself
    (tmp_path / "locked.txt").write_text(text)
    again = create(tmp_path / "again.mar", "m", "1", Parts(str(tmp_path / "handler.py"), requirements=tmp_path / "locked.txt"))
    assert Archive.open(again.path).digest() == made.digest()


def test_what_cannot_be_resolved_says_so(tmp_path):
    (tmp_path / "r.txt").write_text("no-package-of-that-name-at-all\n")
    with pytest.raises(UserError, match="no-package-of-that-name-at-all"):
        lock(tmp_path / "r.txt")


def test_what_is_installed_is_compared():
    assert check(f"numpy=={metadata.version('numpy')} --hash=sha256:0\n") == []
    assert check("numpy==1.0.0 \\\n    --hash=sha256:0\n") == [f"numpy==1.0.0 was asked for, and {metadata.version('numpy')} is installed"]
    with pytest.raises(UserError, match=r"needs nothing-like-it==2\.0, which is not installed"):
        check("nothing-like-it==2.0\n")
    assert check('nothing-like-it==2.0 ; sys_platform == "win32" --hash=sha256:0\n') == []
