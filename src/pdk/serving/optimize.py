"""A TorchScript model in a faster form, where that answers alike: frozen with fused batch-norm, channels last, optimized for inference.

A handler keeps its model as its attribute ``model``, as TorchServe's own do. Whether the faster form answers alike is seen on the
model's example request: what the model gives for it (not only what the handler makes of that) may differ by 1e-4 at most.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

log = logging.getLogger(__name__)
TOLERANCE = 1e-4  # absolute and relative
Ask = Callable[[], object]


class Recorder:
    """Stands for a model and keeps what it gives."""

    def __init__(self, model: Any) -> None:
        self._model, self.seen = model, list[Any]()

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        """Return what the model gives."""
        made = self._model(*arguments, **more)
        self.seen.append(made)
        return made

    forward = __call__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def optimize(handler: Any, ask: Ask) -> None:
    """Answer the example, and put the faster form of the handler's model in place if it answers alike.

    Raises:
        whatever `ask` raises with the model as it is.
    """
    import torch

    given = getattr(handler, "model", None)
    if not isinstance(given, torch.jit.ScriptModule) or given.training:
        ask()
        return
    before = _outputs(handler, given, ask)
    try:
        faster = _faster(given)
        after = _outputs(handler, faster, ask)
        why = "" if alike(after, before) else f"its outputs differ by more than {TOLERANCE:g}"
        why = why if before else "the handler does not call it for the example"
    except Exception as error:  # noqa: BLE001 - whatever it is, the model as given works
        why = str(error).splitlines()[0]
    if why:
        log.info("the model is served as it is, not in its faster form: %s", why)
        return
    handler.model = faster
    ask()  # the compiler looks at the first calls


def alike(one: Any, other: Any) -> bool:
    """Return whether two outputs of a model are the same within the tolerance: tensors, and lists and mappings of them."""
    import torch

    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.shape == other.shape and one.dtype == other.dtype
        return same and torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


@contextlib.contextmanager
def with_model(handler: Any, model: Any) -> Iterator[None]:
    """For a while another model in the handler's place for it."""
    given, handler.model = handler.model, model
    try:
        yield
    finally:
        handler.model = given


def _outputs(handler: Any, model: Any, ask: Ask) -> list[Any]:
    recorder = Recorder(model)
    with with_model(handler, recorder):
        ask()
    return recorder.seen


def _faster(model: Any) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; its successor has no such form yet
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        return torch.jit.optimize_for_inference(torch.jit.freeze(last))
