"""A serving runtime of its own for a test."""

import functools
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from conftest import wait_until
from pdk.mar import Manifest, write

ORIGIN = {"version": "v7", "data": {"repo": "pets", "commit": "abc"}, "code": {"sha": "def"}}


@dataclass
class Runtime:
    """A running `python -m pdk.serving`."""

    process: subprocess.Popen
    said: Path
    ready: Path

    @functools.cached_property
    def base(self):
        """Its address; it stays while the ready file comes and goes."""
        return f"http://127.0.0.1:{json.loads(self.ready.read_text())['port']}"

    def __call__(self, path, body=None, **more):
        return requests.request("GET" if body is None and "data" not in more and "files" not in more else "POST", self.base + path,
                                json=body, timeout=30, **more)  # fmt: skip

    def workers(self):
        return [child for child in psutil.Process(self.process.pid).children() if child.status() != psutil.STATUS_ZOMBIE]

    def log(self):
        return self.said.read_text()

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(40)


def store_of(folder, models, properties=""):
    """A model store: model name → handler, or a mapping of its archive's files with ``handler.py``."""
    for name, given in models.items():
        files = {"handler.py": given} if isinstance(given, str) else dict(given)
        config = "model-config.yaml" if "model-config.yaml" in files else None
        weights = next((path for path in files if path.endswith((".pt", ".pt2"))), None)
        content = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        content["provenance.json"] = json.dumps(ORIGIN).encode()
        model_file = "net.py" if "net.py" in files else None
        manifest = Manifest(name, "1.0", "handler.py", config_file=config, serialized_file=weights, model_file=model_file)
        write(folder / "model-store" / f"{name}.mar", manifest, content)
    if properties:
        (folder / "config").mkdir()
        (folder / "config" / "config.properties").write_text(properties)
    return folder


def starter(folder):
    """A function that starts runtimes, and in the end stops them."""
    running = []

    def start(models, *words, properties="", fails=False):
        number = len(running)
        store = models if isinstance(models, Path) else store_of(folder / f"store{number}", models, properties)
        ready, said = folder / f"ready{number}", folder / f"log{number}"
        command = [sys.executable, "-m", "pdk.serving", "--model-dir", str(store), "--port", "0", "--ready-file", str(ready), *words]
        with said.open("w") as file:
            process = subprocess.Popen(command, stderr=file)
        running.append(made := Runtime(process, said, ready))
        wait_until(lambda: ready.exists() or process.poll() is not None, 60, "the runtime")
        assert fails or process.poll() is None, made.log()
        return made if fails or made.base else None

    yield start
    for runtime in running:
        runtime.end()


@pytest.fixture
def start(tmp_path):
    yield from starter(tmp_path)
