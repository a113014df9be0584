"""From a checkpoint to a tested archive and the files of a model store."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from pdk.errors import UserError
from pdk.mar import Manifest, write
from pdk.mar.format import DIGESTS, PROVENANCE
from pdk.provenance import Provenance
from pdk.serving.check import answer
from pdk.stores import archive_of
from pdk.timing import IMPORTS, clock

HANDLER, EXAMPLE, REQUIREMENTS = "handler.py", "example.json", "requirements.txt"
SCRIPTED = "model.pt"


def digest_of(model: str, checkpoint: Path, provenance: Provenance) -> str:
    """Names an archive by what it is made from (SHA-256): TorchScript does not write the same bytes twice.

    The version's name does not count: where a data branch goes back to an earlier commit, that commit's archive is found again.
    """
    digest = hashlib.sha256(json.dumps([model, provenance.origin()], sort_keys=True).encode())
    for path in sorted(entry for entry in checkpoint.rglob("*") if entry.is_file() and "__pycache__" not in entry.parts):
        digest.update(path.relative_to(checkpoint).as_posix().encode() + b"\0" + bytes.fromhex(_sha256(path)))
    return digest.hexdigest()


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Optimizers can be made without torch's compiler, whose import takes a second: nothing is trained here, let alone compiled."""
    from torch.optim import Optimizer

    wrapped = Optimizer.add_param_group  # torch wraps it to keep the compiler off it, and imports the compiler for that
    plain = getattr(wrapped, "__wrapped__", wrapped)
    Optimizer.add_param_group = plain
    try:
        yield
    finally:
        Optimizer.add_param_group = wrapped


def script(checkpoint: Path, target: Path) -> None:
    """Load the trial of a PyTorchTrial checkpoint and save its model as TorchScript.

    The experiment's own code is imported for that, in this job's process and nowhere else.

    Raises:
        UserError: the checkpoint cannot be loaded, or its model cannot be scripted.
    """
    with clock.during(IMPORTS):
        import torch
        from determined.pytorch import load_trial_from_checkpoint_path

    try:
        with _without_compiler():
            trial = load_trial_from_checkpoint_path(str(checkpoint), torch_load_kwargs={"map_location": "cpu", "weights_only": True})
    except Exception as error:
        raise UserError(f"the checkpoint cannot be loaded: {type(error).__name__}: {error}") from error
    model = getattr(trial, "model", None)
    if not isinstance(model, torch.nn.Module):
        raise UserError("the trial has no attribute `model` that is a torch module; PDK archives that one")
    try:
        scripted = torch.jit.script(model.eval())
    except Exception as error:
        raise UserError(f"the model cannot be turned into TorchScript: {error}") from error
    torch.jit.save(scripted, str(target))


def properties(model: str) -> str:
    """Return a ``config.properties`` as TorchServe reads it (token checks on, no code installed at start)."""
    snapshot = {
        "name": "startup.cfg",
        "modelCount": 1,
        "models": {
            model: {
                "1.0": {
                    "defaultVersion": True,
                    "marName": f"{model}.mar",
                    "minWorkers": 1,
                    "maxWorkers": 1,
                    "batchSize": 1,
                    "responseTimeout": 120,
                }
            }
        },
    }
    lines = {
        "inference_address": "http://0.0.0.0:8085",
        "management_address": "http://127.0.0.1:8081",
        "metrics_address": "http://127.0.0.1:8082",
        "enable_envvars_config": "false",
        "install_py_dep_per_model": "false",
        "model_api_enabled": "false",
        "model_store": "/mnt/models/model-store",
        "model_snapshot": json.dumps(snapshot, separators=(",", ":")),
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def pack(model: str, version: str, checkpoint: Path, provenance: Provenance, scratch: Path) -> dict[str, Path]:
    """Script, archive, and try the archive out; returns the model's files for a store: path below its folder → file.

    Raises:
        UserError: the experiment has no handler, or the archive does not work.
    """
    code = checkpoint / "code"
    if not (code / HANDLER).is_file():
        raise UserError(f"the experiment has no {HANDLER} beside its model definition, so nothing could answer requests; add one")
    script(checkpoint, scratch / SCRIPTED)
    origin = json.dumps({**provenance.to_json(), "model": model, "version": version}, indent=1, sort_keys=True).encode()
    files: dict[str, Path | bytes] = {SCRIPTED: scratch / SCRIPTED, HANDLER: code / HANDLER, PROVENANCE: origin}
    extra = [path for path in sorted(code.glob("*.py")) if path.name not in (HANDLER, "model_def.py", "data.py")]
    files.update({path.name: path for path in extra})
    archive = scratch / f"{model}.mar"
    write(archive, Manifest(model, "1.0", HANDLER, serialized_file=SCRIPTED), files)
    example = code / EXAMPLE if (code / EXAMPLE).is_file() else None
    (scratch / "trial-run").mkdir()
    answer(archive, example, scratch / "trial-run")  # here: this process is the job's own, and has imported torch
    written = {"config/config.properties": properties(model).encode(), PROVENANCE: origin}
    store = {archive_of(model): archive, **{path: _write(scratch / "store" / path, content) for path, content in written.items()}}
    if example is not None:
        store[f"config/{EXAMPLE}"] = example
    digests = {path: _sha256(source) for path, source in store.items()}
    return {**store, DIGESTS: _write(scratch / "store" / DIGESTS, json.dumps(digests, indent=1, sort_keys=True).encode())}


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
