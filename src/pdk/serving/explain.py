"""Why a model answered as it did: by the handler's own ``explain``, or by Captum's integrated gradients where that is installed."""

from __future__ import annotations

from typing import Any

from pdk.errors import NotSupported


def explain(handler: Any, model: Any, instances: list[Any], context: Any) -> list[Any]:
    """Return an explanation for each instance.

    Args:
        model: the handler's model as it was loaded: a form made for inference has no gradients.

    Without a method ``explain(data, context)`` a handler needs ``preprocess`` (its answer: the model's input, one row an instance) and
    ``model`` (scores, one row an instance): the answer then says for every number of the input how much it spoke for the highest score,
    in the input's shape.

    Raises:
        NotSupported: neither way is open.
    """
    if callable(own := getattr(handler, "explain", None)):
        return list(own(instances, context))
    preprocess = getattr(handler, "preprocess", None)
    if not callable(preprocess) or not callable(model):
        raise NotSupported("this model has no explanations: its handler has neither explain, nor preprocess and model")
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise NotSupported("explanations need Captum, which is not installed here: pip install 'pdk[explain]'") from None
    inputs = preprocess(instances)
    targets = model(inputs).argmax(dim=1)
    return list(IntegratedGradients(model).attribute(inputs, target=targets).tolist())
