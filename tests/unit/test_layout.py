"""The rules of CONTRIBUTING.md and docs/architecture.md that a program can check."""

import ast
import configparser
import re
import subprocess
from pathlib import Path

import pytest

from pdk.environment import VARIABLES

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src").rglob("*.py"))
TEXTS = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout.split()


def test_modules_and_functions_are_small():
    long = [f"{path.name}: {len(path.read_text().splitlines())} lines" for path in MODULES if len(path.read_text().splitlines()) > 400]
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > 60:
                long.append(f"{path.name}: {node.name} has {node.end_lineno - node.lineno + 1} lines")
    assert not long


def test_every_package_stands_in_a_contract():
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    named = {line.strip() for section in contracts.values() for key in ("source_modules", "modules", "containers")
             for line in section.get(key, "").splitlines()}  # fmt: skip
    package = ROOT / "src" / "pdk"
    tops = {path.stem for path in package.iterdir() if not path.name.startswith("_")}
    rooms = {f"local.{path.stem}" for path in (package / "local").iterdir() if not path.name.startswith("_")}
    assert {f"pdk.{name}" for name in (tops | rooms) - {"local.up", "demo"}} <= named  # those two put the parts together


def test_no_statement_of_sql_stands_in_a_wire_room():
    wires = [path for path in MODULES if path.parent.name == "wire"]
    assert len(wires) > 30
    sql = re.compile(r"\.execute|\bSELECT .* FROM\b|\bINSERT (OR \w+ )?INTO\b|\bDELETE FROM\b|\bUPDATE \w+ SET\b")
    assert not [path for path in wires if sql.search(path.read_text())]


def test_every_module_says_why_it_exists():
    assert not [path for path in MODULES if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))]


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        (
            r"os\.environ",
            {
                "environment.py",
                "flow/train/arguments.py",
                "flow/deploy/arguments.py",
                "demo.py",
                "local/determined/runtime/zygote.py",
                "local/determined/runtime/devices.py",
            },
        ),
        (r"[\"']pdk/(archive|model-version|previous|keep|request-log|stable|pods|weights|relied|wakes)", {"words.py"}),
        (r"shell=True|os\.system|weights_only=False|verify=False", set()),
        (r"pickle\.loads?\(", set()),
    ],
)
def test_what_is_written_in_one_place_only(pattern, allowed):
    assert {str(path.relative_to(ROOT / "src" / "pdk")) for path in MODULES if re.search(pattern, path.read_text())} <= allowed


def test_every_variable_that_is_read_stands_in_the_table():
    read = re.compile(r'(?:environ\)?(?:\.get\(|\[)|needed\(environ, |envvar=|, )"([A-Z][A-Z0-9]*_[A-Z0-9_]+|HOME|KUBECONFIG)"')
    found = set()
    for path in MODULES:
        for line in path.read_text().splitlines():
            if "environ" in line or "envvar" in line:
                found.update(read.findall(line))
    assert found == set(VARIABLES)


def test_every_limit_says_what_it_limits():
    """docs/settings.md lists them with their comments."""
    silent = re.compile(r"^([A-Z][A-Z0-9_]*(?:_S|_LIMIT|PART|LINES|TRIES|ATTEMPTS)) = \d[^#\n]*$", re.MULTILINE)
    assert not [(path.name, name) for path in MODULES for name in silent.findall(path.read_text())]


def test_every_error_stands_in_the_drawing_of_the_tree():
    """What begins with an underscore, and `Trial`, which is thrown to leave a process's whole past behind, are no errors."""
    parents = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for base in node.bases:
                    parents.setdefault(node.name, set()).add(base.id if isinstance(base, ast.Name) else "")
    known, found = {"Exception", "BaseException", "ValueError", "RuntimeError", "OSError"}, {}
    while more := {name: base for name, bases in parents.items() for base in bases & known if name not in found}:
        found.update(more)
        known |= set(more)
    found.pop("Trial")
    drawn, above = {}, {}
    for line in (ROOT / "src/pdk/errors.py").read_text().split("::", 1)[1].split("A message says")[0].splitlines():
        if match := re.match(r"    ([│├└─ ]*)(\w+)", line):
            depth = len(match[1]) // 4
            above[depth] = match[2]
            drawn[match[2]] = above.get(depth - 1, "Exception")
    assert found == drawn


def test_tests_use_the_real_thing():
    for path in (ROOT / "tests").rglob("*.py"):
        if path != Path(__file__):
            text = path.read_text().replace("time.sleep(PAUSE_S)", "") if path == ROOT / "tests" / "conftest.py" else path.read_text()
            assert not re.search(r"mock\.patch|mocker|MagicMock|time\.sleep\(", text), path


def test_the_repository_speaks_of_itself_alone():
    registries = re.compile(r"pypi\.org|files\.pythonhosted|registry\.npmjs|proxy\.golang|crates\.io|repo\.maven")
    for name in TEXTS:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".txt", ".toml", ".json", ".yaml", ".sh", "") and path.is_file() and path != Path(__file__):
            text = path.read_text(errors="replace")
            assert not registries.search(text), path
            assert not re.search(r"/work/|/root/", text), path


def test_importing_has_no_side_effects(tmp_path):
    words = ["import sys; sys.path.insert(0, 'src')"]
    words += [
        f"import {'.'.join(path.relative_to(ROOT / 'src').with_suffix('').parts)}"
        for path in MODULES
        if path.name not in ("__init__.py", "__main__.py") and path.parts[-3:-1] not in (("pdk", "engines"), ("pdk", "cli"))
    ]
    code = "\n".join([*words, "import threading; assert threading.active_count() == 1, threading.enumerate()"])
    done = subprocess.run([str(ROOT / ".venv/bin/python"), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
