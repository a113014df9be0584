"""The default store: a Pachyderm repo of its own, read through Pachyderm's S3 gateway. Only finished commits are ever named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pdk.engines.pachyderm import Pachyderm

REPO, BRANCH = "model-store", "master"
DIGEST_FILE = "digest"


@dataclass(frozen=True)
class PachydermStore:
    """Models in the repo ``model-store`` of a project."""

    pachyderm: Pachyderm
    project: str

    def find(self, *, model: str, digest: str) -> str | None:
        """The newest commit, where it holds this very model."""
        commit = self.pachyderm.head(self.project, REPO, BRANCH)
        if commit is None or self.pachyderm.read(self.project, REPO, commit, f"/{model}/{DIGEST_FILE}") != digest.encode():
            return None
        return self._uri(commit, model)

    def put(self, *, model: str, files: Mapping[str, bytes], digest: str) -> str:
        """Commit a model's files."""
        self.pachyderm.ensure_repo(self.project, REPO, "Archives of models, as InferenceServices read them")
        return self._uri(self.pachyderm.write(self.project, REPO, BRANCH, model, {**files, DIGEST_FILE: digest.encode()}), model)

    def _uri(self, commit: str, model: str) -> str:
        return f"s3://{commit}.{REPO}.{self.project}/{model}"
