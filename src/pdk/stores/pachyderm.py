"""The default store: a Pachyderm repo of its own, read through Pachyderm's S3 gateway. Only finished commits are ever named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pdk.engines.pachyderm import Pachyderm
from pdk.stores import Files, folder_of

REPO, BRANCH = "model-store", "master"
DIGEST_FILE = "digest"


@dataclass(frozen=True)
class PachydermStore:
    """Models in the repo ``model-store`` of a project: ``MODEL/DIGEST`` for every archive."""

    pachyderm: Pachyderm
    project: str

    def check(self) -> None:
        """Look whether Pachyderm answers; the repo is made when the first archive comes."""
        self.pachyderm.version()

    def find(self, *, model: str, digest: str) -> str | None:
        """Return the folder, as the commit that brought it has it: whoever asks again is given the same URI."""
        head, path = self.pachyderm.head(self.project, REPO, BRANCH), f"/{folder_of(model, digest)}/{DIGEST_FILE}"
        if head is None or self.pachyderm.read(self.project, REPO, head, path) != digest.encode():
            return None
        found = head
        for commit in self.pachyderm.ancestors(self.pachyderm.data_commit(self.project, REPO, head)):
            if self.pachyderm.read(self.project, REPO, commit, path) is None:
                break
            found = commit
        return self._uri(found, model, digest)

    def put(self, *, model: str, files: Files, digest: str) -> str:
        """Commit a model's files, beside those of earlier versions."""
        self.pachyderm.ensure_repo(self.project, REPO, "Archives of models, as InferenceServices read them")
        content: dict[str, bytes | Path] = {**files, DIGEST_FILE: digest.encode()}
        return self._uri(self.pachyderm.write(self.project, REPO, BRANCH, folder_of(model, digest), content), model, digest)

    def _uri(self, commit: str, model: str, digest: str) -> str:
        return f"s3://{commit}.{BRANCH}.{REPO}.{self.project}/{folder_of(model, digest)}"
