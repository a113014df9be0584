"""A worker process: loads one model, answers on a socket that it inherits. Started by the supervisor, with its plan in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvloop

from pdk.errors import PdkError
from pdk.serving import http
from pdk.serving.app import Protocol
from pdk.serving.model import Model
from pdk.serving.plan import Plan
from pdk.serving.requestlog import RequestLog
from pdk.settings import Serving

log = logging.getLogger(__name__)


async def serve(model: Model, plan: Plan, report: socket.socket) -> None:
    """Answer until SIGTERM, or until the supervisor has gone."""
    requests = RequestLog(Path(plan.request_log) if plan.request_log else None, plan.request_log_sample, plan.request_log_hours)
    protocol, stop, loop = Protocol(model, Serving(), requests), asyncio.Event(), asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(report)
        protocol.ready = False
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_reader(report, end)  # the supervisor says nothing on it: something to read means that it has gone

    def started() -> None:
        report.sendall(json.dumps({"model": model.name, "version": model.version}).encode() + b"\n")
        log.info("serving %s, version %s", model.name, model.version)

    async with contextlib.AsyncExitStack() as stack:
        if plan.grpc:
            from pdk.serving import grpc_app

            await stack.enter_async_context(grpc_app.running(protocol, plan.grpc))
        await http.serve(protocol.app(), socket.socket(fileno=plan.listen), stop, started)
    requests.close()


def main() -> None:
    """Load the model, warm it up, then answer."""
    plan = Plan.from_json(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # broken forms are answered, and would fill the log
    report = socket.socket(fileno=plan.report)
    try:
        import torch

        torch.set_num_threads(plan.threads)
        model = Model(Path(plan.store), Path(plan.archive), Path(plan.scratch))
        model.warm_up()
    except PdkError as error:
        report.sendall(json.dumps({"error": str(error)}).encode() + b"\n")
        sys.exit(3)
    gc.collect()
    gc.freeze()  # what was loaded stays: the garbage collector need not look at it again and again
    uvloop.run(serve(model, plan, report))
    sys.stderr.flush()
    os._exit(0)  # a handler that is still at work in its thread, or threads of its own, must not keep the process


if __name__ == "__main__":
    main()
