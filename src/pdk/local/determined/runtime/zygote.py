"""A process that has imported what every trial imports, and becomes trials by forking: ``python -m pdk.local.determined.runtime.zygote``.

Reads run folders, one a line, from standard input; for each it forks, does what the launcher does (`pdk.kit.launcher`), and in the
innermost process goes on as the trial. Says ``ready`` once, then ``started`` after each. Ends with its input.

A trial so starts in a fraction of the time that it takes to import torch, with the same code in the same order as `entry.sh` runs it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import random
import runpy
import sys
from pathlib import Path
from typing import NoReturn

from pdk.kit import launcher
from pdk.timing import leave

WARM = (
    "determined", "determined.core", "determined.exec", "determined.load", "determined.pytorch", "determined.common.api.analytics",
    "torch.utils.tensorboard",
    "pdk.kit.loopback",
    "torch._dynamo",  # 1.3 s that the first optimizer of every program waits for
)  # fmt: skip
LAUNCH = "determined.exec.launch"  # starts an experiment's own command
PREPARE = (("--download_context_directory", "--resources", "--proxy"), ("--rendezvous",))


class Trial(BaseException):
    """Thrown in the process that is to be the trial: everything that led to it is left behind."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        super().__init__(argv)
        self.argv, self.environment = argv, environment


def become_trial(argv: list[str], environment: dict[str, str]) -> NoReturn:
    """What the launcher calls where it would otherwise execute a program."""
    raise Trial(argv, environment)


def warm_up() -> None:
    """Import what trials import."""
    for name in WARM:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is there by now is shared with the trials: a collection would copy it, page by page


def serve() -> Trial | None:
    """Fork for each run folder; returns in the trials, and at the end of the input."""
    print("ready", flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            try:
                launcher.launch(Path(line.rstrip("\n")), become_trial)
            except Trial as trial:
                return trial
            os._exit(0)
        os.waitpid(child, 0)
        print("started", flush=True)
    return None


def run_module(name: str, arguments: list[str]) -> None:
    """``python -m name arguments``."""
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_apart(name: str, arguments: list[str]) -> None:
    """The same in a process of its own, which leaves nothing behind in this one."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(os.waitstatus_to_exitcode(status))
        return
    end_with(name, arguments)


def end_with(name: str, arguments: list[str]) -> NoReturn:
    """Be the module, then end as the interpreter does, without its finalization."""
    code = 1
    try:
        run_module(name, arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does it at its end
        sys.excepthook(*sys.exc_info())
    leave(code)


def fall_silent() -> None:
    """At the very end: some extensions report what `gc.freeze` kept as leaked, and that must not be a trial's last words."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def be(trial: Trial) -> None:
    """Go on as a trial."""
    atexit.register(fall_silent)
    os.environ.clear()
    os.environ.update(trial.environment)
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # a fresh process would not share its state with its siblings
    if threads := os.environ.get("OMP_NUM_THREADS"):  # has been read by the time that torch is imported
        sys.modules["torch"].set_num_threads(int(threads))
    sys.path.insert(0, str(Path.cwd()))  # as -m does it
    for options in PREPARE:
        run_apart("determined.exec.prep_container", list(options))
    name, *arguments = trial.argv[2:]  # after the shell and entry.sh
    if name == LAUNCH:  # the code has a process of its own: nothing of it is in this one, which need not be taken down with care
        end_with(name, arguments)
    run_module(name, arguments)


def main() -> None:
    """Serve."""
    warm_up()
    if trial := serve():
        be(trial)


if __name__ == "__main__":
    main()
