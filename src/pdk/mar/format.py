"""What a .mar is: a zip whose ``MAR-INF/MANIFEST.json`` names the model, its handler and its files.

Source of the layout: torch-model-archiver 0.12 (``model_packaging_utils``), as its archives show it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pdk.errors import UserError

MANIFEST = "MAR-INF/MANIFEST.json"
PROVENANCE = "provenance.json"  # an extra file of ours: where the model comes from
REQUIREMENTS = "requirements.txt"
DIGESTS = "config/digests.json"  # beside the archives of a model store: path below the store → SHA-256 in hex
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Manifest:
    """The manifest of an archive."""

    model_name: str
    model_version: str
    handler: str
    serialized_file: str | None = None
    model_file: str | None = None
    requirements_file: str | None = None
    config_file: str | None = None

    def check(self) -> None:
        """Raise UserError for a name that no archive may have."""
        if not MODEL_NAME.fullmatch(self.model_name):
            raise UserError(
                f"model name {self.model_name!r}: letters, digits, '.', '_' and '-' are allowed, beginning with a letter or digit"
            )
        if not self.handler:
            raise UserError(f"the archive of model {self.model_name!r} names no handler, so nothing could answer requests")

    def to_json(self) -> bytes:
        """As it stands in the archive; the date is fixed so that the same inputs give the same bytes."""
        model = {
            "modelName": self.model_name,
            "modelVersion": self.model_version,
            "handler": self.handler,
            "serializedFile": self.serialized_file,
            "modelFile": self.model_file,
            "requirementsFile": self.requirements_file,
            "configFile": self.config_file,
        }
        content = {
            "createdOn": "01/01/1980 00:00:00",
            "runtime": "python",
            "model": {key: value for key, value in model.items() if value is not None},
            "archiverVersion": "0.12.0",
        }
        return (json.dumps(content, indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            UserError: it is not one.
        """
        try:
            content: Any = json.loads(raw)
            model = content["model"]
            made = cls(
                model_name=str(model["modelName"]),
                model_version=str(model.get("modelVersion") or "1.0"),
                handler=str(model.get("handler") or ""),
                serialized_file=model.get("serializedFile"),
                model_file=model.get("modelFile"),
                requirements_file=model.get("requirementsFile"),
                config_file=model.get("configFile"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{MANIFEST} is not the manifest of a model archive: {error!r}") from error
        made.check()
        return made
