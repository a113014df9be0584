"""A complete experiment config as values of their types: what this server goes by, beside all that trials and clients read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pdk.local.determined.rules import scheduler


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A section of a config; other keys that it has are in the whole config's `content`."""


class Searcher(Section, frozen=True):
    """What a search goes by; `content` has also the fields that only its kind of searcher knows."""

    name: str
    metric: str
    content: dict[str, Any]
    smaller_is_better: bool = True
    source_checkpoint_uuid: str | None = None
    source_trial_id: int | None = None


class Resources(Section, frozen=True):
    """How trials are scheduled: slots of each trial, how many of the experiment at once (None: any number), 1 is most urgent, share."""

    slots_per_trial: int = 1
    max_slots: int | None = None
    priority: int = scheduler.PRIORITY
    weight: float = 1.0


class Storage(Section, frozen=True):
    """Where checkpoints are: a folder (``directory``, ``shared_fs``) or a bucket (``s3``, ``gcs``), and how many are kept."""

    type: str
    container_path: str = ""
    host_path: str = ""
    storage_path: str = ""
    tensorboard_path: str = ""
    checkpoint_path: str = ""
    bucket: str = ""
    prefix: str = ""
    save_experiment_best: int = 0
    save_trial_best: int = 1
    save_trial_latest: int = 1
    content: dict[str, Any] = {}

    @property
    def inner(self) -> str:
        """Return the folder below `host_path` that checkpoints are in; empty where it is that itself."""
        return self.storage_path or self.tensorboard_path or self.checkpoint_path


class Mount(Section, frozen=True):
    """A folder of the machine as trials see it."""

    host_path: str
    container_path: str
    read_only: bool = False


class Reproducibility(Section, frozen=True):
    """What a search draws from."""

    experiment_seed: int = 0


class Config(Section, frozen=True):
    """A complete config: `content` as the API shows it and trials read it, and `notes` for the user on what was changed."""

    name: str
    entrypoint: str | list[str]
    hyperparameters: dict[str, Any]
    max_restarts: int
    searcher: Searcher
    resources: Resources
    checkpoint_storage: Storage
    reproducibility: Reproducibility
    content: dict[str, Any]
    description: str | None = None
    labels: Sequence[str] = ()
    bind_mounts: Sequence[Mount] = ()
    workspace: str = ""
    project: str = ""
    notes: Sequence[str] = ()


def storage(section: Mapping[str, Any]) -> Storage:
    """Return a complete ``checkpoint_storage`` section as a value."""
    return msgspec.convert({**section, "content": section}, Storage)


def config(content: Mapping[str, Any], notes: Sequence[str] = ()) -> Config:
    """Return a complete config as a value."""
    parts = {key: {**content[key], "content": content[key]} for key in ("searcher", "checkpoint_storage")}
    return msgspec.convert({**content, **parts, "content": content, "notes": notes}, Config)
