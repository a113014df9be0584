"""Removes the files of checkpoints that are deleted on record, and of experiments that are."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pdk.errors import PdkError
from pdk.kit import process
from pdk.kit.db import Database
from pdk.local.determined.rules import checkpoints, experiments, retention, storage
from pdk.local.determined.rules.config import environment_variables
from pdk.local.determined.rules.sections import Config
from pdk.local.determined.runtime import checkpoint_files

log = logging.getLogger(__name__)
# what a storage's client may be told by an experiment; anything else could change what the server runs
CREDENTIALS = ("AWS_", "GOOGLE_", "GCLOUD_", "STORAGE_EMULATOR_HOST", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
RETRY_S = 60.0  # a storage that refused is asked again after that long


class Sweeper:
    """One for a server.

    Args:
        trials: where trials have their run folders.
        env: variables for processes that reach a storage.
    """

    def __init__(self, db: Database, trials: Path, cluster: str, env: Mapping[str, str]) -> None:
        self.db, self.trials, self.cluster, self.env = db, trials, cluster, dict(env)
        self._lock = asyncio.Lock()
        self._not_before: dict[int, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async for _ in self.db.changes.watch(poll_s=RETRY_S):
            await self.sweep()

    async def sweep(self) -> None:
        """Remove the files of what is marked; what a storage refuses is tried again later."""
        async with self._lock:
            for experiment, uuids in retention.unswept(self.db.reader).items():
                if self._not_before.get(experiment, 0.0) <= time.monotonic():
                    try:
                        await self._remove(experiment, uuids, [storage.ALL])
                    except (PdkError, OSError) as error:
                        log.warning("checkpoints of experiment %s could not be removed: %s", experiment, error)
                        self._not_before[experiment] = time.monotonic() + RETRY_S

    async def remove(self, uuids: Sequence[str], globs: Sequence[str]) -> None:
        """Remove the files that match of each checkpoint.

        Raises:
            EngineError: a storage refused.
        """
        by_experiment: dict[int, list[str]] = {}
        for uuid in uuids:
            by_experiment.setdefault(self._experiment_of(uuid), []).append(uuid)
        async with self._lock:
            for experiment, wanted in by_experiment.items():
                await self._remove(experiment, wanted, globs)

    async def forget(self, experiment: int) -> None:
        """Remove all files of an experiment that ended.

        Raises:
            EngineError: a storage refused.
        """
        uuids = [found.uuid for found in checkpoints.listing(self.db.reader, experiment=experiment)]
        config = experiments.get(self.db.reader, experiment).config
        async with self._lock:
            if uuids:
                await self._remove(experiment, uuids, [storage.ALL])
            await checkpoint_files.remove_events(config, self.cluster, experiment, self.environment(config))
        for trial in experiments.trials(self.db.reader, experiment):
            await asyncio.to_thread(shutil.rmtree, self.trials / str(trial.id), ignore_errors=True)

    async def fetch(self, uuid: str, scratch: Path) -> Path:
        """Return a checkpoint's folder, if need be copied to `scratch`.

        Raises:
            EngineError: a storage refused.
        """
        config = experiments.get(self.db.reader, self._experiment_of(uuid)).config
        return await checkpoint_files.fetch(config, uuid, scratch, self.environment(config))

    def _experiment_of(self, uuid: str) -> int:
        return experiments.trial(self.db.reader, checkpoints.get(self.db.reader, uuid).trial).experiment

    def environment(self, config: Config) -> dict[str, str]:
        """Return the variables of a process that reaches an experiment's storage: of the trials' own only credentials and addresses."""
        given = {key: value for key, value in environment_variables(config.content).items() if key.startswith(CREDENTIALS)}
        return {**process.base_environment(), **self.env, **given}

    async def _remove(self, experiment: int, uuids: Sequence[str], globs: Sequence[str]) -> None:
        config = experiments.get(self.db.reader, experiment).config
        left = await checkpoint_files.remove(config, uuids, globs, self.environment(config))
        await self.db.write(partial(retention.reduce, left=left))
