"""Start the Determined server alone: ``python -m pdk.local.determined STATE``."""

from __future__ import annotations

import asyncio
import hmac
from functools import partial
from pathlib import Path

from starlette.applications import Starlette

from pdk.environment import inherited
from pdk.installation import Installation, is_loopback
from pdk.kit import main, web
from pdk.kit.db import Database
from pdk.local.determined.rules import experiments, sessions
from pdk.local.determined.runtime import devices
from pdk.local.determined.runtime.driver import Driver, Surroundings
from pdk.local.determined.store.schema import MIGRATIONS
from pdk.local.determined.wire.checkpoints import Checkpoints
from pdk.local.determined.wire.cluster import Cluster
from pdk.local.determined.wire.experiments import Experiments
from pdk.local.determined.wire.http import Frame, Tokens, error_body
from pdk.local.determined.wire.metrics import Metrics
from pdk.local.determined.wire.models import Registry
from pdk.local.determined.wire.tasks import Tasks
from pdk.local.determined.wire.templates import Templates
from pdk.local.determined.wire.trials import Trials
from pdk.local.determined.wire.workspaces import Workspaces


async def serve(installation: Installation) -> None:
    """Run until SIGTERM."""
    home, secret = installation.folder("determined"), installation.secret()
    tokens, cluster = Tokens(secret), main.identity(home)
    with Database(home / "determined.sqlite", MIGRATIONS) as db:

        def trial_of(token: str) -> str | None:
            for trial in experiments.open_trials(db.reader):
                if hmac.compare_digest(token.encode(), tokens.trial(trial).encode()):
                    return trial.task
            return None

        def ended(token: str) -> bool:
            return sessions.is_ended(db.reader, token)

        around = Surroundings(
            f"http://{installation.host}:{installation.ports.determined}", cluster, tokens.trial, inherited(), installation.state
        )
        driver = Driver(db, home, around, secret, devices.detect())
        frame = Frame(tokens, trial_of, ended)
        local = is_loopback(installation.bind)
        groups = (
            Cluster(db, frame, driver, cluster, blank_login=local), Metrics(db, frame), Tasks(db, frame), Experiments(db, frame, driver),
            Trials(db, frame, driver), Checkpoints(db, frame, driver), Registry(db, frame), Workspaces(db, frame), Templates(db, frame),
        )  # fmt: skip
        checks: web.Checks = {
            "database": db.health,
            "checkpoints": partial(main.writable, driver.checkpoints),
            "trials": driver.steps.health,
        }
        routes = [
            web.healthz(checks),
            *(route for group in groups for route in group.routes()),
            frame.rest(),
        ]
        app: Starlette | web.Guard = Starlette(routes=routes)
        if local:  # elsewhere every call needs a token anyway
            app = web.Guard(app, web.Door(installation.bind, secret, strangers=True), error_body)
        async with main.running(db.examine(), driver.run(), web.serve(app, installation.bind, installation.ports.determined)):
            await web.until_signal()


def start(state: Path) -> None:
    """The process's main function."""
    asyncio.run(serve(Installation.load(state)))


if __name__ == "__main__":
    main.run("determined", start)
