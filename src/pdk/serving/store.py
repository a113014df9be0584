"""A model store on disk, in TorchServe's layout: ``model-store/*.mar`` and ``config/config.properties``; or one archive alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdk.documents import read_yaml
from pdk.errors import UserError
from pdk.mar import Manifest
from pdk.mar.format import DIGESTS
from pdk.mar.read import check_name

EXAMPLE = "example.json"  # a request that the model must answer: beside config.properties, or in the archive


@dataclass(frozen=True)
class Settings:
    """How a model wants to be served.

    Args:
        batch_size: instances that are answered together.
        batch_delay_s: how long the first of them waits for the others.
        timeout_s: how long an answer may take.
        optimize: whether the model's faster form is taken where that answers alike.
        content: all of model-config.yaml.
    """

    batch_size: int = 1
    batch_delay_s: float = 0.1
    timeout_s: float = 120.0
    optimize: bool = True
    content: dict[str, Any] = field(default_factory=dict)


def settings_of(store: Path, folder: Path, manifest: Manifest) -> Settings:
    """Return those of the archive's ``model-config.yaml``, and over them those of the store's ``config.properties``.

    Raises:
        UserError: one of them cannot be read, or holds what is no number.
    """
    found: dict[str, Any] = {}
    for name in filter(None, (manifest.config_file, "model-config.yaml")):
        if (folder / name).is_file():
            try:
                found = dict(read_yaml((folder / name).read_bytes()) or {})
            except (UserError, ValueError, TypeError) as error:
                raise UserError(f"{name} of model {manifest.model_name!r} is not YAML with settings: {error}") from error
            break
    given = {**found, **_snapshot(store / "config" / "config.properties", manifest.model_name)}
    try:
        made = Settings(
            int(given.get("batchSize", 1)), float(given.get("maxBatchDelay", 100)) / 1000, float(given.get("responseTimeout", 120)),
            given.get("optimize") is not False, found,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise UserError(f"the settings of model {manifest.model_name!r} hold what is no number: {error}") from error
    if made.batch_size < 1 or made.batch_delay_s < 0 or made.timeout_s <= 0:
        raise UserError(f"the settings of model {manifest.model_name!r} are out of range: {made}")
    return made


def _snapshot(path: Path, model: str) -> dict[str, Any]:
    """Return what a ``config.properties`` says of a model, in TorchServe's form."""
    if not path.is_file():
        return {}
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    try:
        versions = (json.loads(lines.get("model_snapshot", "{}")).get("models") or {}).get(model) or {}
        return dict(next(iter(versions.values()), {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"model_snapshot of {path.name} is not what TorchServe writes: {error}") from error


def find_archives(store: Path) -> list[Path]:
    """Return the archives of a model store or of a folder, or the file itself.

    Raises:
        UserError: there is none.
    """
    if store.is_file() or (store / "MAR-INF").is_dir():
        return [store]
    folder = store / "model-store" if (store / "model-store").is_dir() else store
    listed = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in listed if path.name.endswith((".mar", ".tar.gz", ".tgz")) or (path / "MAR-INF").is_dir()]
    if not found:
        names = ", ".join(path.name for path in listed) or "nothing"
        raise UserError(f"an archive (.mar, .tar.gz, or a folder with MAR-INF) is expected in {folder}, found {names}")
    return found


def verify(store: Path) -> None:
    """Compare a model store with the digests that were recorded when it was put; one without them is taken as it is.

    Raises:
        UserError: a file is missing, or holds something else.
    """
    try:
        recorded = json.loads((store / DIGESTS).read_bytes())
        listed = {str(path): str(digest) for path, digest in recorded.items()}
    except (FileNotFoundError, NotADirectoryError):
        return
    except (ValueError, AttributeError) as error:
        raise UserError(f"{DIGESTS} of the model store is no list of digests: {error}") from error
    for path, digest in listed.items():
        check_name(path)
        try:
            with (store / path).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"the model store lacks {path}, which {DIGESTS} lists: {error.strerror}") from error
        if found != digest:
            raise UserError(
                f"{path} of the model store has the digest {found[:16]}…, and {digest[:16]}… was recorded: it was changed, or cut off"
            )


def example_of(store: Path, folder: Path) -> Path | None:
    """Return the example request of a model: the store's, or the one in the archive (unpacked in `folder`)."""
    return next((path for path in (store / "config" / EXAMPLE, folder / EXAMPLE) if path.is_file()), None)
