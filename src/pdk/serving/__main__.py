"""Serve a model store: ``python -m pdk.serving --model-dir /mnt/models``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pdk.errors import PdkError, UserError
from pdk.serving import http
from pdk.serving.plan import Plan
from pdk.serving.store import find_archives, verify
from pdk.serving.supervisor import Group, Supervisor
from pdk.settings import Serving, share


def arguments() -> argparse.Namespace:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="python -m pdk.serving", description="Serve model archives by the inference protocols V1 and V2.")
    made.add_argument("--model-dir", type=Path, default=Path("/mnt/models"), help="model store in TorchServe's layout, or one .mar")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    made.add_argument("--port", type=int, default=8080, help="port; 0 takes a free one (default %(default)s)")
    made.add_argument("--grpc-port", type=int, default=0, help="port of V2 over gRPC; without it there is none")
    made.add_argument("--workers", type=int, default=1, help="worker processes of each model (default %(default)s)")
    made.add_argument("--threads", type=int, default=Serving.threads, help="torch threads of a worker (default %(default)s)")
    made.add_argument("--ready-file", type=Path, help="file that gets host and port once requests are answered")
    made.add_argument("--request-log", type=Path, help="folder for the request log, a line for every request; - prints it")
    made.add_argument("--request-log-sample", type=share, default=0.0, help="share of requests whose bodies are kept, 0 to 1 (default 0)")
    made.add_argument("--request-log-hours", type=float, default=168.0, help="hours that they are kept (default %(default)g)")
    return made.parse_args()


def plans(options: argparse.Namespace) -> list[Plan]:
    """Return one for each archive of the store.

    Raises:
        UserError: there is none, or what is asked for needs a single one.
    """
    verify(options.model_dir)
    archives = find_archives(options.model_dir)
    if options.workers < 1 or options.threads < 1:
        raise UserError("--workers and --threads must be at least 1")
    if options.grpc_port and len(archives) > 1:
        raise UserError(f"--grpc-port needs a store with one model; {options.model_dir} holds {len(archives)}")
    shared = {
        "grpc": f"{options.host}:{options.grpc_port}" if options.grpc_port else "",
        "threads": options.threads,
        "request_log": str(options.request_log or ""),
        "request_log_sample": options.request_log_sample,
        "request_log_hours": options.request_log_hours,
    }
    return [Plan(str(options.model_dir), str(path), -1, -1, **shared) for path in archives]


@contextlib.contextmanager
def counted_together(needed: bool) -> Iterator[Path | None]:  # noqa: FBT001 - a context with or without
    """Give a folder in which several workers keep their counts."""
    if not needed:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="pdk-metrics-") as folder:
        yield Path(folder)


class Ready:
    """The ready file: it says where requests are answered, and is there as long as they are."""

    def __init__(self, path: Path | None, sock: socket.socket) -> None:
        self.path, (self.host, self.port) = path, sock.getsockname()[:2]
        self.models: list[str] = []

    def begin(self, models: list[str]) -> None:
        """From now on requests are answered."""
        self.models = models
        logging.getLogger(__name__).info("answering for %s on %s port %d", ", ".join(models), self.host, self.port)
        self.changed(answering=True)

    def changed(self, answering: bool) -> None:  # noqa: FBT001 - it is called back with what is
        """Every model answers, or one does not."""
        if self.path is None or not self.models:
            return
        if not answering:
            self.path.unlink(missing_ok=True)
            return
        temporary = self.path.with_name(f".{self.path.name}")
        temporary.write_text(json.dumps({"host": self.host, "port": self.port, "model": self.models[0], "models": self.models}))
        temporary.rename(self.path)


async def run(options: argparse.Namespace, sock: socket.socket) -> None:
    """Until SIGTERM.

    Raises:
        UserError: what is in the store cannot be served.
    """
    listed, stop, loop = plans(options), asyncio.Event(), asyncio.get_running_loop()
    several = len(listed) > 1
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    groups = [Group(plan, http.listener("127.0.0.1", 0) if several else sock, options.workers) for plan in listed]

    ready = Ready(options.ready_file, sock)
    with counted_together(several or options.workers > 1) as metrics:

        async def front() -> None:
            models = [group.model for group in groups]
            if len(set(models)) < len(models):
                raise UserError(f"two archives of {options.model_dir} hold a model of the same name: {', '.join(sorted(models))}")
            if several:
                from pdk.serving.router import route

                ports = {group.model: group.sock.getsockname()[1] for group in groups}
                await route(ports, metrics or Path(), sock, stop, lambda: ready.begin(models))
            else:
                ready.begin(models)
                await stop.wait()

        await Supervisor(groups, metrics, ready.changed).run(front, stop)


def main() -> None:
    """Start the workers; a port that is open is answered."""
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        asyncio.run(run(options, http.listener(options.host, options.port)))
    except PdkError as error:
        sys.exit(f"the model cannot be served: {error}")
    except OSError as error:
        sys.exit(f"{options.host} port {options.port} cannot be listened on: {error}")


if __name__ == "__main__":
    main()
