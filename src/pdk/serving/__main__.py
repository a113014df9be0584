"""Serve one model: ``python -m pdk.serving --model-dir /mnt/models``."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import socket
import sys
import tempfile
from pathlib import Path

import uvicorn

from pdk.errors import PdkError
from pdk.serving.app import Protocol
from pdk.serving.model import Model
from pdk.settings import Serving


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pdk.serving", description="Serve a model archive by the V1 inference protocol.")
    parser.add_argument("--model-dir", type=Path, default=Path("/mnt/models"), help="model store in TorchServe's layout, or one .mar")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port; 0 takes a free one (default %(default)s)")
    parser.add_argument("--ready-file", type=Path, help="file that gets host and port once requests are answered")
    return parser.parse_args()


async def serve(protocol: Protocol, sock: socket.socket, ready_file: Path | None) -> None:
    """Answer until SIGTERM, then let open requests end."""
    config = uvicorn.Config(
        protocol.app(),
        access_log=False,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=Serving.drain_s,
        server_header=False,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve(sockets=[sock]))  # noqa: SLF001 - the public one installs its own signal handlers
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    if ready_file is not None:
        host, port = sock.getsockname()[:2]
        temporary = ready_file.with_name(f".{ready_file.name}")
        temporary.write_text(json.dumps({"host": host, "port": port, "model": protocol.model.name}))
        temporary.rename(ready_file)
    await task


def main() -> None:
    """Load the model, then listen: a port that is open answers."""
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="pdk-serving-") as scratch:
        try:
            import torch

            torch.set_num_threads(Serving.threads)
            model = Model(options.model_dir, Path(scratch))
        except PdkError as error:
            sys.exit(f"the model cannot be served: {error}")
        sock = socket.create_server((options.host, options.port), backlog=1024)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it: no answer waits for an ACK
        sock.setblocking(False)
        logging.getLogger(__name__).info("serving %s on %s port %d", model.name, *sock.getsockname()[:2])
        asyncio.run(serve(Protocol(model, Serving()), sock, options.ready_file))


if __name__ == "__main__":
    main()
