"""A TorchScript model in a faster form, where that answers alike: frozen with fused batch-norm, channels last, optimized for inference.

A handler keeps its model as its attribute ``model``, as TorchServe's own do. Whether the faster form answers alike is seen on the
model's example request: what the model gives for it (not only what the handler makes of that) may differ by 1e-4 at most.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)
TOLERANCE = 1e-4  # absolute and relative
Ask = Callable[[], object]


class Recorder:
    """Stands for a model and keeps what it gives."""

    def __init__(self, model: Any) -> None:
        self._model, self.seen = model, list[Any]()

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        """What the model gives."""
        made = self._model(*arguments, **more)
        self.seen.append(made)
        return made

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
        torch.testing.assert_close(after, before, rtol=TOLERANCE, atol=TOLERANCE)
    except Exception as error:  # noqa: BLE001 - whatever it is, the model as given works
        handler.model = given
        log.info("the model is served as it is: in its faster form it does not answer alike (%s)", str(error).splitlines()[0])
        return
    handler.model = faster
    ask()  # the compiler looks at the first calls


def _outputs(handler: Any, model: Any, ask: Ask) -> list[Any]:
    handler.model = recorder = Recorder(model)
    try:
        ask()
    finally:
        handler.model = model
    return recorder.seen


def _faster(model: Any) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; its successor has no such form yet
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        return torch.jit.optimize_for_inference(torch.jit.freeze(last))
