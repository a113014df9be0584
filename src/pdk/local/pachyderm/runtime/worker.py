"""Runs jobs: decides which, lets an `Executor` process their datums, closes them. Also what happens by the clock: cron inputs.

Everything that must survive is in the database or in the launcher's run folders. After a restart, what an earlier server left
running is ended and the job goes on with the datums that were not processed yet: the programs of this project look up what they made
before they make it again.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pdk.errors import PdkError, UserError
from pdk.kit import process
from pdk.kit.changes import Steps
from pdk.kit.db import Database
from pdk.kit.reach import NotAllowed
from pdk.local.pachyderm.rules import branches, datums, jobs, pipelines, specs
from pdk.local.pachyderm.rules.model import Refused
from pdk.local.pachyderm.runtime import egress
from pdk.local.pachyderm.runtime.executor import Done, Executor, Surroundings, s3_inputs
from pdk.local.pachyderm.runtime.layout import DatumFailed
from pdk.local.pachyderm.store.blobs import BlobStore

log = logging.getLogger(__name__)
CLOCK_AGAIN_S = 60.0  # after which a clock that met something wrong goes on
CLOCK_LIMIT_S = 3600.0  # the clock is looked at at least this often, whatever was computed


class Worker:
    """Runs the jobs of all pipelines, one at a time for each.

    Args:
        home: the folder that holds a run folder for every job.
    """

    def __init__(self, db: Database, blobs: BlobStore, home: Path, around: Surroundings) -> None:
        self.db, self.blobs, self.home, self.around = db, blobs, home, around
        self._running: dict[int, asyncio.Task[None]] = {}  # pipeline → its job
        self._executors: dict[int, Executor] = {}  # job → what runs its datums
        self._steps = Steps(db.changes, self.step)
        self._unreadable: list[str] = []

    def folder(self, job: jobs.Job) -> Path:
        """Return where a job's run folders and logs are."""
        return self.home / job.pipeline.project / job.pipeline.name / job.id

    def log_files(self, job: jobs.Job, datum: str = "") -> list[tuple[str, Path]]:
        """Return the logs of a job's datums (or of one), oldest first, as pairs of datum and file."""
        found = sorted(self.folder(job).glob("*/*/log"), key=lambda path: (path.stat().st_mtime, path))
        return [(path.parent.parent.name, path) for path in found if not datum or path.parent.parent.name == datum]

    async def run(self) -> None:
        """Until cancelled: start what can run whenever something changes."""
        for folder in self.home.glob("*/*/*"):  # a server that was killed may have left programs, of jobs that are closed too
            try:
                await self._end_leftovers(folder)
            except (OSError, PdkError):
                log.exception("%s", folder)
        clock = asyncio.create_task(self._clock(), name="clock")
        try:
            await self._steps.run()
        finally:
            for task in (clock, *self._running.values()):
                task.cancel()
            await asyncio.gather(clock, *self._running.values(), return_exceptions=True)

    def health(self) -> str:
        """Say what keeps jobs from running, for /healthz; empty where nothing does."""
        return "; ".join(filter(None, (*self._unreadable, self._steps.health())))

    async def _clock(self) -> None:
        """Until cancelled: cron inputs tick, branches move by their cron specs."""
        while True:
            try:
                await self._keep_time()
            except (ValueError, LookupError, TypeError, OSError, PdkError, sqlite3.Error):
                log.exception("the clock of cron inputs")
                await asyncio.sleep(CLOCK_AGAIN_S)

    async def _keep_time(self) -> None:
        while True:
            now = time.time()
            ticks = pipelines.next_ticks(self.db.reader)
            moves = branches.next_ticks(self.db.reader)
            due = [(pipeline, name, when) for when, pipeline, name in ticks if when <= now]
            for pipeline, name, when in due:
                await self._tick(partial(pipelines.tick, pipeline=pipeline, name=name, when=when), f"cron input {name} of {pipeline}")
            late = [pk for pk, when in moves.items() if when <= now]
            for pk in late:
                await self._tick(partial(branches.tick, pk=pk), f"branch {pk}")
            if due or late:
                continue
            wait_s = min([when - now for when, _, _ in ticks] + [when - now for when in moves.values()] + [CLOCK_LIMIT_S])
            event = self.db.changes.next()
            try:
                await asyncio.wait_for(event.wait(), max(wait_s, 0.0))
            except TimeoutError:
                continue

    async def _tick(self, work: partial[None], what: str) -> None:
        try:
            await self.db.write(work)
        except Refused as error:  # somebody holds the branch open: the tick is made up when they are done
            log.warning("%s: %s", what, error)
            await asyncio.sleep(1.0)

    async def step(self) -> None:
        """Close what can never run, start what can."""
        ready, hopeless, self._unreadable = jobs.next_step(self.db.reader, frozenset(self._running))
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
            self._executors.pop(job.pk, None)
            await asyncio.shield(self._end_leftovers(folder))
            for scratch in folder.glob("*/pfs"):
                shutil.rmtree(scratch, ignore_errors=True)

    async def _carry_out(self, job: jobs.Job, found: list[datums.Datum], folder: Path) -> None:
        """Process the datums and close the job, whatever comes of it."""
        spec = specs.parse(job.spec)
        executor = self._executors[job.pk] = Executor(self.db, self.blobs, self.around, job, spec, folder)
        left_s = None if spec.job_timeout_s is None else max(0.0, (job.started or time.time()) + spec.job_timeout_s - time.time())
        try:
            async with asyncio.timeout(left_s), s3_inputs(self.around, spec, job, self.db) as variables:
                await self._process(job, found, executor, variables)
                if spec.egress:
                    await self.db.write(partial(jobs.set_state, job=job, state="JOB_EGRESSING"))
                    await egress.send(self.db, self.blobs, self.around.reach, job.pk, spec.egress)
            await self.db.write(partial(jobs.set_state, job=job, state="JOB_FINISHING"))
            await self.db.write(partial(jobs.end, job=job, state="JOB_SUCCESS"))
            return
        except (UserError, NotAllowed) as error:
            state, reason = "JOB_FAILURE", str(error)
        except TimeoutError:
            state, reason = "JOB_KILLED", f"job timed out: it took longer than its job_timeout of {spec.job_timeout_s:g} s"
        except Exception as error:  # a job must end, whatever went wrong; the log has the rest
            log.exception("job %s", job)
            state, reason = "JOB_FAILURE", f"the job could not be run: {error}"
        await self.db.write(partial(jobs.end, job=job, state=state, reason=self.around.redact(reason)))

    async def _process(self, job: jobs.Job, found: list[datums.Datum], executor: Executor, variables: Mapping[str, str]) -> None:
        """All datums in their order, as many at a time as the spec says; a failed one fails the job when all are through."""
        queue, failures = iter(found), list[Done]()

        async def work() -> None:
            for datum in queue:
                done = await executor.run(datum, variables)
                if done.why:
                    failures.append(done)

                def write(db: sqlite3.Connection, done: Done = done) -> None:
                    if done.incoming is not None:
                        done.incoming.insert(db)
                    jobs.record_datum(db, job, done.datum, done.outputs)

                await self.db.write(write)
                if done.incoming is not None:
                    done.incoming.release()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(executor.spec.parallelism, len(found))):
                    group.create_task(work())
        except* Exception as errors:
            raise errors.exceptions[0] from errors
        if failures:
            raise DatumFailed(min(failures, key=lambda done: done.datum.position).why)

    async def _end_leftovers(self, folder: Path) -> None:
        """Stop what still runs in a job's folders, and remove what holds secrets."""
        for run in folder.glob("*/*/"):
            if handle := process.find(run):
                await process.stop(handle)
            for secret in ("spec.json", "env"):
                (run / secret).unlink(missing_ok=True)
            for secrets in run.glob("secret-*"):
                shutil.rmtree(secrets, ignore_errors=True)

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

    async def restart_datum(self, job: jobs.Job, datum: str) -> bool:
        """End a datum's program, so that its next try begins; False where it does not run."""
        executor = self._executors.get(job.pk)
        if executor is None or datum not in executor.running:
            return False
        await executor.restart(datum)
        return True
