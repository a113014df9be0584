"""A model store on disk, and the handler of one model in it.

A store has TorchServe's layout: ``model-store/*.mar`` and ``config/config.properties``. A handler has TorchServe's form: a class with
``initialize(context)`` and ``handle(data, context)``, or a function ``handle(data, context)``. It says that a request is at fault by
raising ValueError.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from pdk.errors import UserError
from pdk.mar import Archive, Manifest
from pdk.mar.format import PROVENANCE


@dataclass
class Context:
    """What a handler is given, as TorchServe gives it."""

    model_name: str
    model_dir: str
    manifest: dict[str, Any]
    gpu_id: int | None = None
    batch_size: int = 1
    metrics: Any = None
    request_ids: dict[int, str] = field(default_factory=dict)

    @property
    def system_properties(self) -> dict[str, Any]:
        """As TorchServe's."""
        return {
            "model_dir": self.model_dir,
            "gpu_id": self.gpu_id,
            "batch_size": self.batch_size,
            "server_name": "pdk",
            "server_version": "1",
        }

    def get_request_id(self, index: int = 0) -> str | None:
        """The ID of a request of the batch."""
        return self.request_ids.get(index)


def find_archive(store: Path) -> Path:
    """The one archive of a model store, of a folder, or the file itself.

    Raises:
        UserError: there is none, or more than one.
    """
    if store.is_file():
        return store
    folder = store / "model-store" if (store / "model-store").is_dir() else store
    found = sorted(folder.glob("*.mar"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"one .mar is expected in {folder}, found {names}; serve several models with several services")
    return found[0]


class Model:
    """A loaded model: `handle` answers a list of instances.

    Args:
        store: the model store (or the archive).
        scratch: an empty place to unpack into.
    """

    def __init__(self, store: Path, scratch: Path) -> None:
        archive = Archive.open(find_archive(store))
        self.manifest: Manifest = archive.manifest
        self.name = archive.manifest.model_name
        folder = scratch / "model"
        archive.extract(folder)
        self.provenance: Mapping[str, Any] = {}
        if PROVENANCE in archive.names:
            self.provenance = json.loads(archive.read(PROVENANCE))
        self.context = Context(self.name, str(folder), json.loads(archive.read("MAR-INF/MANIFEST.json")))
        self.handle = load_handler(folder, archive.manifest.handler, self.context)

    def headers(self) -> dict[str, str]:
        """Where an answer comes from, for the response's headers."""
        data, code = self.provenance.get("data") or {}, self.provenance.get("code") or {}
        named = {
            "pdk-model": self.name,
            "pdk-model-version": str(self.provenance.get("version") or self.manifest.model_version),
            "pdk-data-repo": data.get("repo"),
            "pdk-data-commit": data.get("commit"),
            "pdk-code-sha": code.get("sha"),
        }
        return {key: value for key, value in named.items() if value}


def load_module(folder: Path, file: str) -> ModuleType:
    """Import a handler's file; its folder comes first on the path, so that it finds its neighbours."""
    path = folder / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"the handler {file!r} is not a Python file")
    sys.path.insert(0, str(folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"the handler {file!r} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def load_handler(folder: Path, handler: str, context: Context) -> Callable[[list[Any], Context], Any]:
    """The callable that answers requests, initialized.

    Raises:
        UserError: the handler does not import, has no entry point, or cannot be initialized.
    """
    file, _, entry = handler.partition(":")
    module = load_module(folder, file if file.endswith(".py") else f"{file}.py")
    if entry or not _classes(module):
        function = getattr(module, entry or "handle", None)
        if not callable(function):
            raise UserError(f"the handler {handler!r} has neither a class with a method handle nor a function {entry or 'handle'!r}")
        return function  # type: ignore[no-any-return]
    found = _classes(module)
    if len(found) > 1:
        raise UserError(
            f"the handler {handler!r} has several classes with a method handle: {', '.join(c.__name__ for c in found)}; keep one"
        )
    made = found[0]()
    try:
        made.initialize(context)
    except Exception as error:
        raise UserError(f"the handler {found[0].__name__} cannot be initialized: {type(error).__name__}: {error}") from error
    return made.handle  # type: ignore[no-any-return]


def _classes(module: ModuleType) -> list[type]:
    own = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__]
    return [value for value in own if callable(getattr(value, "handle", None)) and callable(getattr(value, "initialize", None))]
