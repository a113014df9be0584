"""A model out of its archive, for handlers: TorchScript, torch.export, or a state dict with the model's class."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdk.errors import UserError

if TYPE_CHECKING:
    from pdk.serving.model import Context


def load_model(context: Context, device: str = "cpu") -> Any:
    """Return the model that an archive's ``serializedFile`` holds, ready for inference.

    ``.pt2`` is what `torch.export.save` wrote; beside a ``modelFile`` (a Python file with one `torch.nn.Module`) the file is a state
    dict, which is loaded without unpickling anything else; any other is TorchScript. Needs torch.

    Raises:
        UserError: the archive names no such file, or it is not what it seems to be.
    """
    import torch

    described = context.manifest["model"]
    folder, name = Path(context.model_dir), described.get("serializedFile")
    if not name or not (folder / name).is_file():
        raise UserError(f"the archive of model {context.model_name!r} holds no serialized file {name or ''}".rstrip())
    try:
        if name.endswith(".pt2"):
            return torch.export.load(folder / name).module().to(device)
        if described.get("modelFile"):
            model = _class(folder / described["modelFile"])()
            model.load_state_dict(torch.load(folder / name, map_location=device, weights_only=True))
            return model.to(device).eval()
        return torch.jit.load(str(folder / name), map_location=device).eval()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} of model {context.model_name!r} cannot be loaded: {type(error).__name__}: {error}") from error


def _class(path: Path) -> Any:
    """Return the one model class of a file."""
    import torch

    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"the archive's model file {path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [
        value for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, torch.nn.Module) and value.__module__ == module.__name__
    ]  # fmt: skip
    if len(found) != 1:
        names = ", ".join(value.__name__ for value in found) or "none"
        raise UserError(f"{path.name} must hold one torch.nn.Module, and holds {names}; name the others in a file of their own")
    return found[0]
