"""The handler of a model, in one of the forms that users write it in.

- TorchServe's: a class with ``initialize(context)`` and ``handle(data, context)``, or without ``handle`` and with ``preprocess``,
  ``inference`` and ``postprocess``; one of torchserve's own by its name, where that package is installed.
- A plain class with ``predict(instances)``, which is made with the model's folder if it takes one argument.
- A function ``handle(data, context)`` or ``predict(instances)``.

It says that a request is at fault by raising ValueError.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from pdk.errors import UserError

if TYPE_CHECKING:
    from pdk.serving.model import Context

STAGES = ("preprocess", "inference", "postprocess")
BUILT_IN = "ts.torch_handler."  # torchserve's own handlers


class Observer(Protocol):
    """Takes durations in seconds."""

    def observe(self, amount: float) -> None:
        """One of them."""


class Handler:
    """What answers requests.

    Args:
        answer: called with instances and context.
        made: the handler's object, if it has one.
    """

    def __init__(self, answer: Callable[[list[Any], Context], Any], made: object | None = None) -> None:
        self.answer, self.made = answer, made

    def watch(self, stages: Mapping[str, Observer]) -> None:
        """From now on observe how long the handler's stages take, where it has them."""
        for name in STAGES:
            if self.made is not None and callable(stage := getattr(self.made, name, None)):
                setattr(self.made, name, _timed(stage, stages[name]))


def _timed(stage: Callable[..., Any], observer: Observer) -> Callable[..., Any]:
    def call(*arguments: Any, **more: Any) -> Any:
        began = time.perf_counter()
        try:
            return stage(*arguments, **more)
        finally:
            observer.observe(time.perf_counter() - began)

    return call


def load(folder: Path, name: str, context: Context) -> Handler:
    """Return the handler that an archive names, initialized.

    Args:
        name: FILE.py, FILE.py:FUNCTION, or the name of one of torchserve's own.

    Raises:
        UserError: it does not import, has no entry point, or cannot be initialized.
    """
    file, _, entry = name.partition(":")
    module = _module(folder, file)
    found = [] if entry else _classes(module)
    if len(found) > 1:
        raise UserError(f"the handler {name!r} has several classes that could answer: {', '.join(c.__name__ for c in found)}; keep one")
    if found:
        return _made(found[0], folder, context)
    if callable(function := getattr(module, entry or "handle", None)):
        return Handler(function)
    if not entry and callable(predict := getattr(module, "predict", None)):
        return Handler(lambda instances, _context: predict(instances))
    raise UserError(
        f"the handler {name!r} has no class with handle, with {', '.join(STAGES)} or with predict, and no function "
        f"{entry or 'handle or predict'}; add one"
    )


def _module(folder: Path, file: str) -> ModuleType:
    """Import a handler's file; its folder comes first on the path, so that it finds its neighbours."""
    path = folder / (file if file.endswith(".py") else f"{file}.py")
    if not path.exists() and "/" not in file and importlib.util.find_spec("ts") is not None:
        try:
            return importlib.import_module(BUILT_IN + file.removesuffix(".py"))
        except ImportError as error:
            raise UserError(f"the handler {file!r} is neither in the archive nor one of torchserve's own: {error}") from error
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise UserError(f"the handler {file!r} is no Python file of the archive (torchserve's own need that package)")
    sys.path.insert(0, str(folder))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"the handler {file!r} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _classes(module: ModuleType) -> list[type]:
    own = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__]
    staged = [value for value in own if _has(value, "initialize") and (_has(value, "handle") or _has(value, *STAGES))]
    return staged or [value for value in own if _has(value, "predict")]


def _has(kind: type, *names: str) -> bool:
    return all(callable(getattr(kind, name, None)) for name in names)


def _made(kind: type, folder: Path, context: Context) -> Handler:
    try:
        if not _has(kind, "initialize"):
            wants = [one for one in inspect.signature(kind).parameters.values() if one.default is one.empty]
            plain: Any = kind(folder) if wants else kind()
            return Handler(lambda instances, _context: plain.predict(instances), plain)
        made: Any = kind()
        made.initialize(context)
    except Exception as error:
        raise UserError(f"the handler {kind.__name__} cannot be initialized: {type(error).__name__}: {error}") from error
    if _has(kind, "handle"):
        return Handler(made.handle, made)
    return Handler(lambda instances, _context: made.postprocess(made.inference(made.preprocess(instances))), made)
