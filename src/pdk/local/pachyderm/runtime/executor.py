"""Runs one datum: lays out /pfs, starts the user's program as often as the spec allows, takes in what it wrote."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pdk.errors import UserError
from pdk.kit import containers, logs, process
from pdk.kit.db import Database
from pdk.kit.reach import Reach
from pdk.kit.spec import Bind
from pdk.local.pachyderm.rules import commits, inputs
from pdk.local.pachyderm.rules.datums import Datum, Outputs
from pdk.local.pachyderm.rules.jobs import Job
from pdk.local.pachyderm.rules.model import CommitRef
from pdk.local.pachyderm.rules.specs import SecretUse, Spec
from pdk.local.pachyderm.runtime.layout import Layout
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.store.incoming import Incoming

TAIL_LINES = 20  # lines of a failed program's output that become the job's reason
RETRY_S = 0.5  # pause before a failed datum is tried again
Buckets = Callable[[Mapping[str, CommitRef]], AbstractAsyncContextManager[Mapping[str, str]]]


@dataclass(frozen=True)
class Surroundings:
    """What user code is told of the place it runs in.

    Args:
        env: variables that every job gets: addresses of the engines above all.
        binds: what every job sees beside its /pfs: a kubeconfig, git repositories.
        hide: folders of the installation, which no job may see.
        memory: a folder in memory for small inputs, where there is one.
        secrets: reads the data of a secret: key → value.
        redact: masks the installation's own secret in text that users see.
        buckets: serves commits as S3 buckets of the given names, for as long as it is entered; gives the variables that say where.
        reach: where output may be copied to.
    """

    env: Mapping[str, str]
    binds: tuple[Bind, ...]
    hide: tuple[Path, ...]
    memory: Path | None
    secrets: Callable[[str], Mapping[str, str]]
    redact: logs.Redactor
    buckets: Buckets
    reach: Reach


@dataclass(frozen=True)
class Done:
    """What became of a datum; `outputs` is None where it wrote nothing that counts, `why` says so for one that failed."""

    datum: Datum
    outputs: Outputs | None
    incoming: Incoming | None = None
    why: str = ""


class Executor:
    """Runs the datums of one job."""

    def __init__(self, db: Database, blobs: BlobStore, around: Surroundings, job: Job, spec: Spec, folder: Path) -> None:
        self.db, self.blobs, self.around, self.job, self.spec, self.folder = db, blobs, around, job, spec, folder
        self.running: dict[str, process.Handle] = {}  # datum → its program

    async def restart(self, datum: str) -> None:
        """End a datum's program: what is left of its tries follows."""
        if handle := self.running.get(datum):
            await process.stop(handle)

    async def run(self, datum: Datum, extra: Mapping[str, str]) -> Done:
        """Process a datum.

        Args:
            extra: variables beside those of every job.

        Raises:
            DatumFailed: what it wrote cannot be taken in.
        """
        home, began = self.folder / datum.id, time.monotonic()
        memory = self.around.memory and self.around.memory / f"{self.job.pipeline.pk}-{self.job.id}-{datum.id}"
        layout = Layout(self.db, self.blobs, datum, home, memory)
        try:
            await asyncio.to_thread(layout.lay_out)
            return await self._carry_out(datum, home, layout, began, extra)
        finally:
            await asyncio.to_thread(layout.remove)

    async def _carry_out(self, datum: Datum, home: Path, layout: Layout, began: float, extra: Mapping[str, str]) -> Done:
        download_s, began = time.monotonic() - began, time.monotonic()
        env = {**self._environment(datum), **extra, **self.spec.env}
        ended, recovered = await self._tries(datum, home, layout, env)
        await asyncio.to_thread(layout.check_inputs)
        timed = replace(
            datum, download_s=download_s, process_s=time.monotonic() - began, download_bytes=sum(part.size for part in datum.inputs)
        )
        if ended is not None and recovered:
            return Done(replace(timed, state="RECOVERED"), None)
        if ended is not None:
            return Done(replace(timed, state="FAILED"), None, why=ended)
        began = time.monotonic()
        incoming = Incoming(self.blobs, self.db.reader)
        try:
            written = await asyncio.to_thread(layout.take_in, incoming)
            await incoming.save()
        except BaseException:
            incoming.release()
            raise
        size = sum(size for _, size in written.values())
        return Done(replace(timed, state="SUCCESS", upload_s=time.monotonic() - began, upload_bytes=size), written, incoming)

    async def _tries(self, datum: Datum, home: Path, layout: Layout, env: Mapping[str, str]) -> tuple[str | None, bool]:
        """Run the program until it succeeds or the tries are used up: why it failed (None: it did not), and whether that was handled."""
        why = ""
        for attempt in range(1, self.spec.datum_tries + 1):
            layout.clear_out()
            run = home / f"try-{self.job.restart}-{attempt}"
            try:
                ended, handle = await self._program(datum, self.spec.cmd, self.spec.stdin, run, layout, env)
            except TimeoutError:
                why = f"datum {datum.id} failed: it took longer than its datum_timeout of {self.spec.datum_timeout_s:g} s"
            else:
                if ended.code in self.spec.accept:
                    return None, False
                lines = "\n".join(logs.tail(handle.log, TAIL_LINES))
                why = f"datum {datum.id} failed: {ended.reason()}; the last lines of its output:\n{lines}"
            if attempt < self.spec.datum_tries:
                await asyncio.sleep(RETRY_S)
        if not self.spec.err_cmd:
            return why, False
        run = home / f"try-{self.job.restart}-err_cmd"
        try:
            ended, _ = await self._program(datum, self.spec.err_cmd, self.spec.err_stdin, run, layout, env)
        except TimeoutError:
            return why, False
        return why, ended.code in self.spec.accept

    async def _program(
        self, datum: Datum, argv: tuple[str, ...], lines: tuple[str, ...], run: Path, layout: Layout, env: Mapping[str, str]
    ) -> tuple[process.Exit, process.Handle]:
        """Run one program to its end.

        Raises:
            TimeoutError: it took longer than the spec allows.
        """
        run.mkdir(parents=True, exist_ok=True)
        stdin = None
        if lines:
            stdin = run / "stdin"
            stdin.write_text("\n".join(lines) + "\n")
        binds = [*self.around.binds, *layout.binds()]
        variables = dict(env)
        for secret in self.spec.secrets:
            variables.update(self._secret_variables(secret))
            if secret.mount_path:
                binds.append(Bind(self._secret_files(secret.name, run), secret.mount_path, True))
        program = containers.program(self.spec.image, argv, variables, binds=binds, stdin=stdin, cwd=self.spec.working_dir, scratch=run)
        handle = await process.start(run, replace(program, hide=self.around.hide, user=self.spec.user))
        self.running[datum.id] = handle
        try:
            async with asyncio.timeout(self.spec.datum_timeout_s):
                return await process.wait(handle), handle
        except (TimeoutError, asyncio.CancelledError):
            await asyncio.shield(process.stop(handle))
            raise
        finally:
            self.running.pop(datum.id, None)

    def _secret_variables(self, use: SecretUse) -> dict[str, str]:
        if not use.env_var:
            return {}
        data = self.around.secrets(use.name)
        if use.key not in data:
            raise UserError(f"the secret {use.name!r} has no key {use.key!r} (it has {', '.join(sorted(data)) or 'none'})")
        return {use.env_var: data[use.key]}

    def _secret_files(self, name: str, run: Path) -> Path:
        folder = run / f"secret-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for key, value in self.around.secrets(name).items():
            (folder / key).write_text(value)
        return folder

    def _environment(self, datum: Datum) -> dict[str, str]:
        env = {
            **self.around.env,
            "PACH_IN_WORKER": "true",
            "PPS_PROJECT_NAME": self.spec.project,
            "PPS_PIPELINE_NAME": self.spec.name,
            "PPS_SPEC_COMMIT": self.job.pipeline.spec_commit,
            "PACH_JOB_ID": self.job.id,
            "PACH_OUTPUT_COMMIT_ID": self.job.commit.id,
            "PACH_DATUM_ID": datum.id,
        }
        for part in datum.inputs:
            env[part.name] = f"/pfs/{part.name}{part.path}".rstrip("/")
            env[f"{part.name}_COMMIT"] = commits.by_pk(self.db.reader, part.commit).id
            for key, value in (("JOIN_ON", part.join_on), ("GROUP_BY", part.group_by)):
                if value:
                    env[f"PACH_DATUM_{part.name}_{key}"] = value
        return env


@asynccontextmanager
async def s3_inputs(around: Surroundings, spec: Spec, job: Job, db: Database) -> AsyncIterator[Mapping[str, str]]:
    """Serve a job's ``s3`` inputs as buckets named like the inputs; gives the variables that tell user code where."""
    wanted: dict[str, CommitRef] = {}
    sources = {commit.repo: commit for commit in commits.provenance(db.reader, job.commit.pk)}
    for leaf in inputs.leaves(spec.input):
        if leaf.s3:
            wanted[leaf.name] = CommitRef(leaf.repo, sources[leaf.repo].id)
    if not wanted:
        yield {}
        return
    async with around.buckets(wanted) as variables:
        yield variables
