"""Runs trials as processes: started, found again after a restart, resumed, paused, ended.

What is running is known from the launcher's run folders alone, so adopting a trial that outlived the server is the normal path: its
harness waits while connections are refused and goes on when they are not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pdk.errors import PdkError
from pdk.kit import logs, process, web
from pdk.kit.changes import Steps
from pdk.kit.db import Database
from pdk.kit.spec import Bind, Spec
from pdk.local.determined.rules import checkpoints, config, experiments, scheduler, searchers, storage
from pdk.local.determined.rules.config import LEGACY_ENTRYPOINT, secrets_of
from pdk.local.determined.runtime import devices, environment, warm
from pdk.local.determined.runtime.sweeper import Sweeper
from pdk.local.determined.runtime.warm import Zygote

log = logging.getLogger(__name__)
TAIL_LINES = 30  # of its log that a failed trial's reason shows
LET_GO = "let-go"  # in the run folder of a trial that the server ends with itself
# everything that a trial's processes do among themselves stays on this machine
INTERFACES = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"), "lo")
# the ports that they use for it, which would be the same for every trial
PORTS = ("C10D_PORT", "INTER_TRAIN_PROCESS_COMM_PORT_1", "INTER_TRAIN_PROCESS_COMM_PORT_2", "DTRAIN_SSH_PORT")
# a trial outlives its server: while it is away, connections are refused or a proxy answers 502-504
RETRY = {"total": 100000, "backoff_factor": 0.5, "backoff_max": 2, "allowed_methods": False, "status_forcelist": [502, 503, 504]}


@dataclass(frozen=True)
class Surroundings:
    """What trials are told of the place they run in.

    Args:
        master: the server's own address.
        cluster: its ID.
        token: makes a trial's session token.
        env: variables for every trial (package index and proxy settings of the user).
        state: the installation's state folder, which no trial may see.
    """

    master: str
    cluster: str
    token: Callable[[experiments.Trial], str]
    env: Mapping[str, str]
    state: Path


class Driver:
    """All trials of one server, as many at a time as it has slots."""

    def __init__(self, db: Database, home: Path, around: Surroundings, secret: str, slots: Sequence[devices.Device]) -> None:
        self.db, self.home, self.around, self.secret, self.slots = db, home, around, secret, slots
        self.checkpoints = home / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._slots: dict[int, tuple[int, ...]] = {}  # that each of them holds
        self.steps = Steps(db.changes, self._step)
        self.zygote = Zygote({**process.base_environment(), **around.env})
        self.sweeper = Sweeper(db, home / "trials", around.cluster, around.env)

    @property
    def used(self) -> int:
        """Return how many slots are held."""
        return sum(map(len, self._slots.values()))

    @property
    def running(self) -> Collection[int]:
        """Return the trials that are being driven."""
        return self._tasks.keys()

    def folder(self, trial: experiments.Trial) -> Path:
        """Return where a trial's run folders are."""
        return self.home / "trials" / str(trial.id)

    def log_files(self, trial: experiments.Trial) -> list[Path]:
        """Return the logs of a trial's runs, oldest first."""
        return sorted(self.folder(trial).glob("run-*/log"), key=lambda path: int(path.parent.name.removeprefix("run-")))

    def redactor(self, trial: experiments.Trial) -> logs.Redactor:
        """Masks the secrets that a trial's log may show."""
        config = experiments.get(self.db.reader, trial.experiment).config
        return logs.Redactor(self.secret, self.around.token(trial), *secrets_of(config.content))

    async def run(self) -> None:
        """Until cancelled: drive every trial that should run."""
        sweeping = asyncio.create_task(self.sweeper.run(), name="sweeper")
        try:
            await self.steps.run()
        finally:
            tasks = [sweeping, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.zygote.stop()

    async def _step(self) -> None:
        """Start what can run: at once what was running when the server went away or is to be ended, the rest as slots are free."""
        candidates, running, held = list[scheduler.Waiting](), list[scheduler.Waiting](), Counter[int]()
        leaving = 0  # slots of those that make room already
        for trial in experiments.open_trials(self.db.reader):
            experiment = experiments.get(self.db.reader, trial.experiment)
            asked = experiment.config.resources
            one = scheduler.Waiting(trial.id, experiment.id, asked.slots_per_trial, asked.priority, asked.weight, asked.max_slots)
            if trial.id not in self._tasks:
                lives, ending = self._handle(trial) is not None, experiments.ending(self.db.reader, trial.id)
                if not lives and not ending and not trial.stopped:
                    if one.slots > len(self.slots):  # this machine had more when the experiment was created
                        why = f"a trial needs {one.slots} slots, this machine has {len(self.slots)}"
                        await self.db.write(partial(experiments.give_up, id_=trial.id, reason=why))
                    elif experiment.state == "ACTIVE":
                        candidates.append(one)
                    continue
                self._begin(trial.id, trial.slots if lives else ())
            held[experiment.id] += len(self._slots[trial.id])
            if trial.preempted:
                leaving += len(self._slots[trial.id])
            else:
                running.append(one)
        free = sorted(set(range(len(self.slots))).difference(*self._slots.values()))
        places = len(os.sched_getaffinity(0)) - sum(not slots for slots in self._slots.values())
        choice = scheduler.choose(candidates, held, len(free), places)
        for chosen in choice.starting:
            self._begin(chosen.trial, free[: chosen.slots])
            del free[: chosen.slots]
        if choice.blocked and (late := scheduler.to_preempt(choice.blocked, running, len(free) + leaving)):
            await self.db.write(partial(experiments.preempt, trials_=[one.trial for one in late]))

    def _begin(self, trial: int, slots: Sequence[int]) -> None:
        self._slots[trial] = tuple(slots)
        task = asyncio.create_task(self._drive(trial), name=f"trial {trial}")
        self._tasks[trial] = task
        task.add_done_callback(partial(self._done, trial))

    def _done(self, trial: int, task: asyncio.Task[None]) -> None:
        del self._tasks[trial], self._slots[trial]
        if not task.cancelled() and (error := task.exception()):
            log.error("trial %s", trial, exc_info=error)
            # not driven again: the same error would come again, for ever
            self.db.submit(partial(experiments.give_up, id_=trial, reason=f"the trial could not be driven: {error!r}"))
        self.db.changes.notify()

    def _handle(self, trial: experiments.Trial) -> process.Handle | None:
        return process.find(self.folder(trial) / f"run-{trial.run}") if trial.run > trial.ended_run else None

    async def _drive(self, id_: int) -> None:
        """One run of a trial, from its start (or from being found) to its end."""
        trial = experiments.trial(self.db.reader, id_)
        handle = self._handle(trial)
        if handle is None:
            if trial.stopped or experiments.ending(self.db.reader, id_):
                await self._end(id_, 0, "")
                return
            trial = await self.db.write(partial(experiments.begin_run, id_=id_, slots=self._slots[id_]))
            try:
                handle = await self._start(trial)
            except (PdkError, OSError) as error:
                await self._end(id_, 126, f"the trial could not be started: {error}")
                return
        killer = asyncio.create_task(self._kill_when_asked(id_, handle))
        try:
            ended = await process.wait(handle)
        except asyncio.CancelledError:  # the server stops cleanly: nothing stays behind, the next start resumes
            (handle.run_dir / LET_GO).touch()  # also if this server is killed before it is done
            await asyncio.shield(process.stop(handle, grace_s=2.0))
            (handle.run_dir / "started.json").unlink(missing_ok=True)
            raise
        finally:
            killer.cancel()
            (handle.run_dir / "spec.json").unlink(missing_ok=True)
        if ended.code and not experiments.ending(self.db.reader, id_):
            with handle.log.open("a") as file:
                file.write(f"[pdk] run {trial.run} of trial {id_}: {ended.reason()}\n")
        tail = "\n".join(logs.tail(handle.log, TAIL_LINES))
        reason = self.redactor(trial)(f"{ended.reason()}; the last lines of the trial's log:\n{tail}")
        blameless = process.from_another_boot(handle) or (handle.run_dir / LET_GO).exists()
        await self._end(id_, ended.code, reason, blameless=blameless)
        (handle.run_dir / "started.json").unlink(missing_ok=True)

    async def _end(self, id_: int, code: int, reason: str, *, blameless: bool = False) -> None:
        await self.db.write(partial(experiments.end_run, id_=id_, code=code, reason=reason, blameless=blameless))

    async def _kill_when_asked(self, id_: int, handle: process.Handle) -> None:
        async for _ in self.db.changes.watch():
            if experiments.ending(self.db.reader, id_) in experiments.KILLING:
                await process.stop(handle, grace_s=0.5)
                return

    async def _start(self, trial: experiments.Trial) -> process.Handle:
        experiment = experiments.get(self.db.reader, trial.experiment)
        archive = experiments.context(self.db.reader, experiment.id)
        made = await asyncio.to_thread(environment.prepare, self.home / "environments", archive)
        run = self.folder(trial) / f"run-{trial.run}"
        inside = run / "determined"
        for place in (inside / "info", inside / "workdir", inside / "train" / "model", inside / "cache", self.home / "cache"):
            place.mkdir(parents=True, exist_ok=True)
        with (run / "log").open("a") as file:
            file.writelines(f"[pdk] {remark}\n" for remark in experiment.remarks if trial.run == 1)
            if trial.run > 1:
                file.write(f"[pdk] run {trial.run} of trial {trial.id}, restarts so far: {trial.restarts}\n")
        entry = experiment.config.entrypoint
        given = config.environment_variables(experiment.config.content, self.slots[0].kind)
        last, launch = ["determined.exec.launch"], process.launch
        own_process = True  # the code's: what is forked from the warm process only prepares for it
        if len(trial.slots) < 2 and isinstance(entry, str) and LEGACY_ENTRYPOINT.fullmatch(entry):
            last, own_process = ["determined.exec.harness", entry], False  # one slot needs no torch.distributed around it
        if made.shared and (own_process or warm.suits(given)):
            launch = self.zygote.launch
        script = Path(__file__).with_name("entry.sh")
        spec = Spec(
            argv=[shutil.which("bash") or "sh", "/run/determined/entry.sh", *last],  # startup hooks are written for bash
            env={
                **process.base_environment(made.python),
                **self.around.env,
                **INTERFACES,
                "XDG_CACHE_HOME": "/run/determined/cache",
                **self._threads(trial, experiment),
                **given,
                **devices.pinned(self.slots, trial.slots),
                **self._variables(trial, experiment),
            },
            cwd="/run/determined/workdir",
            binds=[
                *made.binds,
                Bind(inside, "/run/determined"),
                Bind(self.home / "cache", "/run/determined/cache"),  # what trials download, for the next ones
                Bind(script, "/run/determined/entry.sh", read_only=True),
                *storage.binds(experiment.config),
            ],
            hide=(self.around.state,),
            loopback=True,
        )
        return await process.start(run, spec, launch)

    def _threads(self, trial: experiments.Trial, experiment: experiments.Experiment) -> dict[str, str]:
        """One thread for each trial of a search, as it holds one core: with more they keep each other off (2.6 times slower on two cores).

        It depends on the config alone: another number of threads may add up floats in another order.
        """
        alone = searchers.kind_of(experiment.config.searcher.name).one_trial
        return {} if alone or len(trial.slots) > 1 or self.slots[0].kind != "cpu" else {"OMP_NUM_THREADS": "1"}

    def _variables(self, trial: experiments.Trial, experiment: experiments.Experiment) -> dict[str, str]:
        last = checkpoints.latest(self.db.reader, trial.id)
        resume = last.uuid if last else trial.warm_start
        return {
            "DET_MASTER": self.around.master,
            "DET_CLUSTER_ID": self.around.cluster,
            "DET_AGENT_ID": "local",
            "DET_SLOT_IDS": json.dumps(trial.slots or [0]),
            **dict(zip(PORTS, map(str, web.free_ports("127.0.0.1", len(PORTS))), strict=True)),
            "DET_TASK_ID": trial.task,
            "DET_TASK_TYPE": "TRIAL",
            "DET_ALLOCATION_ID": trial.allocation,
            "DET_SESSION_TOKEN": self.around.token(trial),
            "DET_USER": "determined",
            "DET_TRIAL_ID": str(trial.id),
            "DET_EXPERIMENT_ID": str(experiment.id),
            "DET_TRIAL_SEED": str(trial.seed),
            "DET_TRIAL_RUN_ID": str(trial.run),
            "DET_STEPS_COMPLETED": str(last.steps if last else 0),
            "DET_EXPERIMENT_CONFIG": json.dumps(experiment.config.content),
            "DET_HPARAMS": json.dumps(trial.hparams),
            "DET_RESOURCES_ID": f"r{trial.id}",
            "DET_RESOURCES_TYPE": "docker-container",
            "DET_CONTAINER_ID": f"trial-{trial.id}-{trial.run}",
            "DET_RETRY_CONFIG": json.dumps(RETRY),
            "DET_SEGMENT_ENABLED": "false",
            **({"DET_LATEST_CHECKPOINT": resume} if resume else {}),
        }
