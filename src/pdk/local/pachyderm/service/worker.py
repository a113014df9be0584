"""Runs jobs: lays out /pfs, starts the user's program, takes in what it wrote, closes the job.

Everything that must survive is in the database or in the launcher's run folders. After a restart, what an earlier server left
running is ended and the job is run again from its start: the programs of this project look up what they made before they make it
again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pdk.errors import UserError
from pdk.local.kit import containers, logs, process
from pdk.local.kit.db import Database
from pdk.local.pachyderm.service import commits, files, jobs, pipelines
from pdk.local.pachyderm.service.model import clean_path
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore, Incoming, find

log = logging.getLogger(__name__)
TAIL_LINES = 20  # lines of a failed program's output that become the job's reason
RETRY_S = 0.5  # pause before a failed datum is tried again


@dataclass(frozen=True)
class Surroundings:
    """What user code is told of the place it runs in.

    Args:
        env: variables that every job gets: addresses of the engines above all.
        binds: what every job sees beside its /pfs: a kubeconfig, git repositories.
        hide: the installation's state folder, which no job may see.
        secrets: reads the data of a secret: key → value.
        redact: masks the installation's own secret in text that users see.
    """

    env: Mapping[str, str]
    binds: tuple[process.Bind, ...]
    hide: Path
    secrets: Callable[[str], Mapping[str, str]]
    redact: logs.Redactor


class Failed(Exception):
    """User code failed; the text is the job's reason."""


class Worker:
    """Runs the jobs of all pipelines, one at a time for each.

    Args:
        home: the folder that holds a run folder for every job.
    """

    def __init__(self, db: Database, blobs: BlobStore, home: Path, around: Surroundings) -> None:
        self.db, self.blobs, self.home, self.around = db, blobs, home, around
        self._running: dict[int, asyncio.Task[None]] = {}

    def folder(self, job: jobs.Job) -> Path:
        """Where a job's run folders and logs are."""
        return self.home / job.pipeline.project / job.pipeline.name / job.id

    def log_files(self, job: jobs.Job, datum: str = "") -> list[tuple[str, Path]]:
        """The logs of a job's datums (or of one), oldest first, as pairs of datum and file."""
        found = sorted(self.folder(job).glob("*/*/log"), key=lambda path: (path.stat().st_mtime, path))
        return [(path.parent.parent.name, path) for path in found if not datum or path.parent.parent.name == datum]

    async def run(self) -> None:
        """Until cancelled: start what can run whenever something changes."""
        for folder in self.home.glob("*/*/*"):  # a server that was killed may have left programs, of jobs that are closed too
            await self._end_leftovers(folder)
        try:
            async for _ in self.db.changes.watch():
                await self.step()
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def step(self) -> None:
        """Close what can never run, start what can."""
        ready, hopeless = jobs.next_step(self.db.reader)
        for job, reason in hopeless:
            await self.db.write(partial(jobs.end, job=job, state="JOB_UNRUNNABLE", reason=reason))
        for job in ready:
            if job.pipeline.pk not in self._running:
                task = asyncio.create_task(self._run(job), name=f"job {job}")
                self._running[job.pipeline.pk] = task
                task.add_done_callback(partial(self._done, job.pipeline.pk))

    def _done(self, pipeline: int, _task: asyncio.Task[None]) -> None:
        del self._running[pipeline]
        self.db.changes.notify()

    async def _run(self, job: jobs.Job) -> None:
        folder = self.folder(job)
        try:
            await self._end_leftovers(folder)
            found = await self.db.write(partial(jobs.begin, job=job))
            if found is not None:
                await self._carry_out(job, found, folder)
        finally:
            await asyncio.shield(self._end_leftovers(folder))
            for scratch in folder.glob("*/pfs"):
                shutil.rmtree(scratch, ignore_errors=True)

    async def _carry_out(self, job: jobs.Job, found: list[jobs.Datum], folder: Path) -> None:
        """Process the datums and close the job, whatever comes of it."""
        try:
            with Incoming(self.blobs, self.db.reader) as incoming:
                async with asyncio.timeout(pipelines.parse(job.spec).job_timeout_s):
                    outputs = await self._process(job, found, folder, incoming)
                await self.db.write(partial(jobs.set_state, job=job, state="JOB_FINISHING"))
                await asyncio.to_thread(incoming.sync)

                def succeed(db: sqlite3.Connection) -> None:
                    incoming.insert(db)
                    jobs.end(db, job, "JOB_SUCCESS", outputs=outputs)

                await self.db.write(succeed)
            return
        except Failed as error:
            state, reason = "JOB_FAILURE", str(error)
        except TimeoutError:
            state, reason = "JOB_KILLED", f"job timed out after {job.spec.get('job_timeout')}"
        except Exception as error:  # a job must end, whatever went wrong; the log has the rest
            log.exception("job %s", job)
            state, reason = "JOB_FAILURE", f"the job could not be run: {error}"
        await self.db.write(partial(jobs.end, job=job, state=state, reason=self.around.redact(reason)))

    async def _end_leftovers(self, folder: Path) -> None:
        """Stop what still runs in a job's folders, and remove what holds secrets."""
        for run in folder.glob("*/*/"):
            if handle := process.find(run):
                await process.stop(handle)
            for secret in ("spec.json", "env"):
                (run / secret).unlink(missing_ok=True)
            for secrets in run.glob("secret-*"):
                shutil.rmtree(secrets, ignore_errors=True)

    async def _process(self, job: jobs.Job, found: list[jobs.Datum], folder: Path, incoming: Incoming) -> dict[str, tuple[bytes, int]]:
        """All datums in their order; what they wrote, by path."""
        outputs: dict[str, tuple[bytes, int]] = {}
        writer: dict[str, str] = {}
        for datum in found:
            try:
                written = await self._datum(job, datum, folder / datum.id, incoming)
            except Failed:
                await self.db.write(partial(jobs.record_datum, job=job, datum=replace(datum, state="FAILED")))
                raise
            for path, content in written.items():
                if path in outputs:
                    raise Failed(f"duplicate path output by different datums ({path} from {writer[path]} and {path} from {datum.id})")
                outputs[path], writer[path] = content, datum.id
        return outputs

    async def _datum(self, job: jobs.Job, datum: jobs.Datum, folder: Path, incoming: Incoming) -> dict[str, tuple[bytes, int]]:
        spec, began = pipelines.parse(job.spec), time.monotonic()
        pfs = folder / "pfs"
        shutil.rmtree(pfs, ignore_errors=True)
        for part in datum.inputs:
            await asyncio.to_thread(self._lay_out, part, pfs / part.name)
        download = time.monotonic() - began
        for attempt in range(1, spec.datum_tries + 1):
            shutil.rmtree(pfs / "out", ignore_errors=True)
            (pfs / "out").mkdir(parents=True)
            began = time.monotonic()
            ended, handle = await self._attempt(job, spec, datum, folder / f"try-{job.restart}-{attempt}", pfs)
            if ended.code in spec.accept:
                break
            if attempt < spec.datum_tries:
                await asyncio.sleep(RETRY_S)
        else:
            lines = "\n".join(logs.tail(handle.log, TAIL_LINES)) if handle else ""
            raise Failed(f"datum {datum.id} failed: {ended.reason()}; the last lines of its output:\n{lines}")
        process_s, began = time.monotonic() - began, time.monotonic()
        written = await asyncio.to_thread(self._take_in, pfs, incoming)
        done = replace(
            datum, state="SUCCESS", download_s=download, process_s=process_s, upload_s=time.monotonic() - began,
            download_bytes=sum(part.size for part in datum.inputs), upload_bytes=sum(size for _, size in written.values()),
        )  # fmt: skip
        await self.db.write(partial(jobs.record_datum, job=job, datum=done))
        return written

    async def _attempt(
        self, job: jobs.Job, spec: pipelines.Spec, datum: jobs.Datum, run: Path, pfs: Path
    ) -> tuple[process.Exit, process.Handle]:
        run.mkdir(parents=True, exist_ok=True)
        stdin = None
        if spec.stdin:
            stdin = run / "stdin"
            stdin.write_text("\n".join(spec.stdin) + "\n")
        binds = [
            *self.around.binds,
            process.Bind(pfs, "/pfs"),
            *(process.Bind(pfs / part.name, f"/pfs/{part.name}", True) for part in datum.inputs),
        ]
        env = self._environment(job, spec, datum)
        for secret in spec.secrets:
            env.update(self._secret_variables(secret))
            if secret.mount_path:
                binds.append(process.Bind(self._secret_files(secret.name, run), secret.mount_path, True))
        program = containers.program(spec.image, spec.cmd, env, binds=binds, stdin=stdin, cwd=spec.working_dir, scratch=run)
        handle = await process.start(run, replace(program, hide=(self.around.hide,)))
        try:
            async with asyncio.timeout(spec.datum_timeout_s):
                return await process.wait(handle), handle
        except TimeoutError:
            await process.stop(handle)
            raise Failed(f"datum {datum.id} failed: it took longer than its datum_timeout of {spec.datum_timeout_s:g} s") from None
        except asyncio.CancelledError:
            await asyncio.shield(process.stop(handle))
            raise

    def _secret_variables(self, use: pipelines.SecretUse) -> dict[str, str]:
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

    def _environment(self, job: jobs.Job, spec: pipelines.Spec, datum: jobs.Datum) -> dict[str, str]:
        env = {
            **self.around.env,
            "PACH_IN_WORKER": "true",
            "PPS_PROJECT_NAME": spec.project,
            "PPS_PIPELINE_NAME": spec.name,
            "PPS_SPEC_COMMIT": job.pipeline.spec_commit,
            "PACH_JOB_ID": job.id,
            "PACH_OUTPUT_COMMIT_ID": job.commit.id,
            "PACH_DATUM_ID": datum.id,
        }
        for part in datum.inputs:
            env[part.name] = f"/pfs/{part.name}{part.path}".rstrip("/")
            env[f"{part.name}_COMMIT"] = commits.by_pk(self.db.reader, part.commit).id
        return {**env, **spec.env}

    def _lay_out(self, part: jobs.DatumInput, target: Path) -> None:
        """Write a datum's input files below `target` (the path inside the repo is kept)."""
        target.mkdir(parents=True)
        with self.db.own_reader() as db:
            sight = commits.view(db, commits.by_pk(db, part.commit))
            for entry in tree.files_below(files.entries_at(db, sight, clean_path(part.path))):
                path = target / entry.path.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                blob = None if part.empty_files else find(db, entry.hash)
                with path.open("wb") as file:
                    if blob is not None:
                        for piece in self.blobs.read(blob):
                            file.write(piece)

    def _take_in(self, pfs: Path, incoming: Incoming) -> dict[str, tuple[bytes, int]]:
        """Store every file below /pfs/out: path → (hash, size). Links may lead into /pfs only."""
        out, written = pfs / "out", {}
        with self.db.own_reader() as db:
            incoming.reader = db
            for folder, _folders, names in os.walk(out, followlinks=False):
                for name in sorted([*names, *(d for d in _folders if (Path(folder) / d).is_symlink())]):
                    path = Path(folder) / name
                    spelled = "/" + str(path.relative_to(out))
                    source = self._real_file(path, pfs, spelled)
                    if source is None:
                        continue
                    try:
                        cleaned = clean_path(spelled)
                    except UserError as error:
                        raise Failed(f"cannot upload what the code wrote: {error}") from error
                    with source.open("rb") as file:
                        while piece := file.read(1 << 20):
                            incoming.feed(piece)
                    written[cleaned] = incoming.end()
        return written

    def _real_file(self, path: Path, pfs: Path, spelled: str) -> Path | None:
        """The regular file behind an output path; None for what is no file (a pipe, a socket)."""
        if path.is_symlink():
            target = str(path.readlink())
            # inside, /pfs is the folder `pfs`; a link anywhere else would read the host's files, not the job's
            resolved = (pfs / target.removeprefix("/pfs/")) if target.startswith("/pfs/") else path.parent / target
            resolved = resolved.resolve()
            if not resolved.is_relative_to(pfs.resolve()) or not resolved.is_file():
                raise Failed(f"the output {spelled} is a symbolic link to {target}, which is no file below /pfs; write the file itself")
            return resolved
        return path if path.is_file() else None

    async def end(self, ended: list[jobs.Job]) -> None:
        """End the programs of jobs that are closed on record."""
        for job in ended:
            task = self._running.get(job.pipeline.pk)
            if task is not None and task.get_name() == f"job {job}":
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await self._end_leftovers(self.folder(job))

    async def stop_job(self, job: jobs.Job, reason: str) -> None:
        """Kill a job: its programs are ended, its output commit is closed with `reason` as its error."""
        await self.db.write(partial(jobs.end, job=job, state="JOB_KILLED", reason=reason))
        await self.end([job])
