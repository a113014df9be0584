"""Lets torch ≥ 2.6 load what Determined's harness saves, without switching its safe loading off.

A PyTorchTrial checkpoint holds numpy's random state. torch refuses numpy's reconstructors unless they are listed as safe; they only
build arrays of numbers. torch calls the entry points of group ``torch.backends`` at the end of its import, so this holds for every
process of an environment where this distribution is installed.
"""

from __future__ import annotations


def register() -> None:
    """Add what the random state of numpy needs to torch's safe globals."""
    import numpy as np
    import torch
    from numpy._core.multiarray import _reconstruct

    kinds = [np.ndarray, np.dtype, type(np.dtype("uint32"))]
    torch.serialization.add_safe_globals([_reconstruct, *kinds])
