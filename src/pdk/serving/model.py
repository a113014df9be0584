"""One loaded model: its handler, its settings, and where it comes from."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdk.errors import UserError
from pdk.mar import Archive, Manifest, requirements
from pdk.mar.format import PROVENANCE, REQUIREMENTS
from pdk.provenance import Provenance
from pdk.serving import explain, handlers, optimize
from pdk.serving.store import example_of, settings_of

log = logging.getLogger(__name__)
Instances = list[Any]


class NoMetrics:
    """Takes the metrics that TorchServe's handlers report, whatever they are called; the runtime has its own."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_more: None


@dataclass
class Context:
    """What a handler is given, as TorchServe gives it."""

    model_name: str
    model_dir: str
    manifest: dict[str, Any]
    gpu_id: int | None = None
    batch_size: int = 1
    metrics: Any = field(default_factory=NoMetrics)
    request_ids: dict[int, str] = field(default_factory=dict)
    model_yaml_config: dict[str, Any] = field(default_factory=dict)

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
        """Return the ID of a request of the batch."""
        return self.request_ids.get(index)


class Model:
    """A loaded model: `handle` answers a list of instances.

    Args:
        store: the model store (or the archive alone).
        path: the archive.
        scratch: an empty place to unpack into.
    """

    def __init__(self, store: Path, path: Path, scratch: Path) -> None:
        archive = Archive.open(path)
        self.manifest: Manifest = archive.manifest
        self.name = archive.manifest.model_name
        folder = scratch / "model"
        archive.extract(folder)
        self.provenance, self._version = Provenance(), ""
        if PROVENANCE in archive.names:
            content = json.loads(archive.read(PROVENANCE))
            self.provenance = Provenance.from_json(content)
            self._version = str(content.get("version") or "") if isinstance(content, Mapping) else ""
        if REQUIREMENTS in archive.names:
            for different in requirements.check(archive.read(REQUIREMENTS).decode()):
                log.warning("model %s: %s", self.name, different)
        self.settings = settings_of(store, folder, archive.manifest)
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        self.context = Context(self.name, str(folder), manifest, model_yaml_config=self.settings.content)
        self.handler = handlers.load(folder, archive.manifest.handler, self.context)
        self.loaded = getattr(self.handler.made, "model", None)  # before it is made faster
        self.example = example_of(store, folder)

    @property
    def version(self) -> str:
        """Return the model's version, as its provenance names it."""
        return self._version or str(self.manifest.model_version)

    def handle(self, instances: Instances, context: Context) -> Any:
        """Return what the handler answers."""
        return self.handler.answer(instances, context)

    def explain(self, instances: Instances, context: Context) -> Any:
        """Return what the handler, or Captum, says to explain its answers."""
        made = self.handler.made
        with optimize.with_model(made, self.loaded) if self.loaded is not None else contextlib.nullcontext():
            return explain.explain(made, self.loaded, instances, context)

    @staticmethod
    def checked(answer: Any, count: int) -> list[Any]:
        """Return the handler's answer to `count` instances.

        Raises:
            TypeError: it is no list of that length.
        """
        if not isinstance(answer, list) or len(answer) != count:
            raise TypeError(f"the handler answered {count} instances with {type(answer).__name__} instead of a list of that length")
        return answer

    def ask(self, example: Path) -> list[Any]:
        """Return the predictions for an example request, ``{"instances": […]}``.

        Raises:
            UserError: the example is no such request, or the handler does not answer it.
        """
        try:
            instances = json.loads(example.read_bytes())["instances"]
            count = len(instances)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f'{example.name} is no request of the form {{"instances": […]}}: {error!r}') from error
        try:
            predictions = self.checked(self.handle(instances, self.context), count)
            json.dumps(predictions)
        except Exception as error:
            raise UserError(f"it does not answer {example.name}: {type(error).__name__}: {error}") from error
        return predictions

    def warm_up(self) -> None:
        """Answer the example before anybody asks, with the model in its fastest form that answers alike.

        Raises:
            UserError: it does not answer its own example, so it would answer nobody.
        """
        example = self.example
        if example is None:
            return
        if self.settings.optimize:
            optimize.optimize(self.handler.made, lambda: self.ask(example))
        else:
            self.ask(example)

    def headers(self) -> dict[str, str]:
        """Return where an answer comes from, for the response's headers."""
        own = {"pdk-model": self.name, "pdk-model-version": self.version}
        return {key: value for key, value in own.items() if value} | self.provenance.headers()
