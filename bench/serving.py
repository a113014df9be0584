"""The serving runtime beside TorchServe 0.12 and KServe's ModelServer: ``python bench/serving.py`` writes bench/results/serving.json.

Needs Java and wrk; the peers live in environments of their own (requirements/torchserve.txt, kserve.txt). One archive, one worker
each, five rounds in which the servers take turns; medians are kept. "alike" servers have one torch thread and the same allocator
settings; "as it deploys" is each with its own defaults. ``--rounds`` and ``--seconds`` make it shorter.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parent
sys.path[0] = str(CHECKOUT / "tests")  # not this folder, in which a file has the name of an SDK

import aiohttp  # noqa: E402
import psutil  # noqa: E402
import requests  # noqa: E402
import torch  # noqa: E402

from environments import environment_of  # noqa: E402
from pdk.mar import Manifest, write  # noqa: E402
from pdk.serving.supervisor import ALLOCATOR  # noqa: E402

EXPERIMENT = CHECKOUT / "experiments" / "dogs-and-cats"
REQUEST = (EXPERIMENT / "example.json").read_bytes()
ALIKE = {**ALLOCATOR, "OMP_NUM_THREADS": "1"}
LUA = """
wrk.method, wrk.body, wrk.headers["Content-Type"] = "POST", io.open("{body}", "rb"):read("*a"), "application/json"
done = function(s, l, r)
  local e = s.errors
  io.write(string.format("RESULT %d %d %d\\n", s.requests, s.duration, e.status + e.connect + e.read + e.timeout))
end
"""
NULL = b"def handle(data, context):\n    return [0] * len(data)\n"
BARE = """
import json, sys, time, tempfile
from pathlib import Path
import torch
torch.set_num_threads(1)
from pdk.serving.model import Model
path, body, seconds = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), float(sys.argv[3])
with tempfile.TemporaryDirectory() as folder:
    model = Model(path, path, Path(folder))
    model.warm_up()
    for _ in range(100):
        model.handle(json.loads(body)["instances"], model.context)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        json.dumps({"predictions": model.handle(json.loads(body)["instances"], model.context)})
        count += 1
    print(count / (time.perf_counter() - began))
"""


class Bench:
    """Servers on a folder, and what is measured of them."""

    def __init__(self, folder, rounds, seconds):
        self.folder, self.rounds, self.seconds = folder, rounds, seconds
        self.rows, self.ports = [], iter(range(28100, 28999, 10))
        self.lua = self._script("request", REQUEST)
        self.one = self._script("one", b'{"instances": [1]}')
        self._archives()

    def _script(self, name, body):
        (self.folder / f"{name}.json").write_bytes(body)
        path = self.folder / f"{name}.lua"
        path.write_text(LUA.replace("{body}", str(self.folder / f"{name}.json")))
        return path

    def _archives(self):
        sys.path.insert(0, str(EXPERIMENT))
        from model_def import Net

        sys.path.remove(str(EXPERIMENT))
        torch.manual_seed(0)
        content = io.BytesIO()
        torch.jit.save(torch.jit.script(Net(0.1).eval()), content)
        files = {"model.pt": content.getvalue(), "handler.py": EXPERIMENT / "handler.py", "example.json": REQUEST}
        manifest = {"serialized_file": "model.pt"}
        write(self.folder / "fast" / "m.mar", Manifest("m", "1.0", "handler.py", **manifest), files)
        plain = {**files, "model-config.yaml": b"optimize: false\n"}
        write(self.folder / "plain" / "m.mar", Manifest("m", "1.0", "handler.py", config_file="model-config.yaml", **manifest), plain)
        write(self.folder / "null" / "m.mar", Manifest("m", "1.0", "handler.py"), {"handler.py": NULL})
        loose = self.folder / "loose"
        loose.mkdir()
        (loose / "model.pt").write_bytes(content.getvalue())
        shutil.copy(EXPERIMENT / "handler.py", loose)

    def row(self, case, unit, ours, peer, ratio, goal):
        """Keep a number."""
        self.rows.append({"case": case, "unit": unit, "ours": round(ours, 3), "peer": None if peer is None else round(peer, 3),
                          "ratio": round(ratio, 2), "goal": goal})  # fmt: skip
        print(json.dumps(self.rows[-1]), flush=True)

    @contextlib.contextmanager
    def running(self, words, env, port, *, warm=True):
        """A server that answers."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "OMP_"))}
        with (self.folder / f"log{port}").open("w") as log:
            process = subprocess.Popen(words, cwd=self.folder, env={**clean, **env}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                       start_new_session=True)  # fmt: skip
        try:
            began = time.monotonic()
            while self.asked(port) != 200:
                assert process.poll() is None, (self.folder / f"log{port}").read_text()[-2000:]
                assert time.monotonic() - began < 120, (self.folder / f"log{port}").read_text()[-2000:]
                time.sleep(0.01)
            if warm:
                self.load(port, 4)  # the first requests are nobody's measure
            yield process
        finally:
            every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            os.killpg(process.pid, 15)
            psutil.wait_procs(every, 40)

    def asked(self, port):
        """The status of one prediction; None where nobody answers."""
        body = b'{"instances": [1]}' if port in self.nulls else REQUEST
        try:
            url, headers = f"http://127.0.0.1:{port}/v1/models/m:predict", {"content-type": "application/json"}
            return requests.post(url, body, headers=headers, timeout=30).status_code
        except requests.ConnectionError:
            return None

    nulls = frozenset()

    def ours(self, store, env=ALIKE, *, warm=True):
        """Our runtime on one of the archives."""
        port = next(self.ports)
        if store == "null":
            self.nulls = self.nulls | {port}
        words = [sys.executable, "-m", "pdk.serving", "--model-dir", str(self.folder / store), "--port", str(port)]
        return port, self.running(words, env, port, warm=warm)

    def torchserve(self, env=ALIKE):
        """TorchServe on the same archive."""
        port, python = next(self.ports), environment_of("torchserve", ours=True)
        config = self.folder / f"config{port}"
        config.write_text(
            f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{port + 1}\n"
            f"metrics_address=http://127.0.0.1:{port + 2}\ngrpc_inference_port={port + 3}\ngrpc_management_port={port + 4}\n"
            "service_envelope=json\ndefault_workers_per_model=1\ninstall_py_dep_per_model=false\n"
        )
        words = [str(python.parent / "torchserve"), "--start", "--foreground", "--ncs", "--disable-token-auth", "--model-store",
                 str(self.folder / "plain"), "--models", "m=m.mar", "--ts-config", str(config)]  # fmt: skip
        return port, self.running(words, {**env, "PATH": f"{python.parent}:{os.environ['PATH']}"}, port)

    def kserve(self):
        """KServe's ModelServer with the same handler."""
        port, python = next(self.ports), environment_of("kserve", ours=True)
        words = [str(python), str(HERE / "peers" / "kserve_server.py"), str(self.folder / "loose"), str(port)]
        return port, self.running(words, ALIKE, port)

    def load(self, port, connections):
        """Requests per second that a server answers to so many connections at once."""
        script = self.one if port in self.nulls else self.lua
        words = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{self.seconds:g}s",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}/v1/models/m:predict",
        ]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        count, micros, errors = map(int, re.search(r"RESULT (\d+) (\d+) (\d+)", said).groups())
        assert errors == 0, f"{errors} requests failed on port {port}"
        return count / micros * 1e6

    def turns(self, ports, connections):
        """The medians over rounds in which the servers take turns."""
        found = {port: [] for port in ports}
        for _ in range(self.rounds):
            for port in ports:
                found[port].append(self.load(port, connections))
        return [statistics.median(found[port]) for port in ports]


def workers(process):
    """The process that holds the model, below a server's."""
    every = [process, *process.children(recursive=True)]
    return max(every, key=lambda one: (any("torch" in entry.path for entry in one.memory_maps()), one.memory_info().rss))


def alike(bench):
    """Throughput with the same settings, and latency at a rate."""
    fast, first = bench.ours("fast")
    plain, second = bench.ours("plain")
    peer, third = bench.torchserve()
    with first as us, second, third as them:
        best = 0.0
        for connections, goal in ((1, 1.5), (8, 1.4), (32, 1.3)):
            ours, framework, theirs = bench.turns((fast, plain, peer), connections)
            best = max(best, theirs)
            bench.row(f"same .pt, TorchServe, concurrency {connections}", "requests/s", ours, theirs, ours / theirs, goal)
            bench.row(f"same .pt run as it is (optimize: false), TorchServe, concurrency {connections}", "requests/s", framework, theirs,
                      framework / theirs, None)  # fmt: skip
        rate = 0.7 * best
        runs = [[asyncio.run(open_loop(port, rate, 2 * bench.seconds)) for port in (fast, peer)] for _ in range(bench.rounds)]
        ours, theirs = (statistics.median(run[side] for run in runs) for side in (0, 1))
        bench.row(
            f"p99 at {rate:.0f} requests/s (70 % of TorchServe's best), open loop; goal 1/0.7", "ms", ours, theirs, theirs / ours, 1.43
        )
        rss = [workers(psutil.Process(one.pid)).memory_info().rss / 1e6 for one in (us, them)]
        bench.row("memory of the worker (RSS, same torch with its CUDA libraries)", "MB", *rss, rss[1] / rss[0], 1)
        whole = [sum(one.memory_full_info().pss for one in (root, *root.children(recursive=True))) / 1e6
                 for root in (psutil.Process(us.pid), psutil.Process(them.pid))]  # fmt: skip
        bench.row("memory of the service with one worker (PSS of all its processes)", "MB", *whole, whole[1] / whole[0], None)


async def open_loop(port, rate, seconds):
    """The 99th percentile in ms of requests sent at a steady rate, whether earlier ones were answered or not."""
    times, url = [], f"http://127.0.0.1:{port}/v1/models/m:predict"

    async def one(session, due):
        async with session.post(url, data=REQUEST, headers={"content-type": "application/json"}) as answer:
            await answer.read()
            assert answer.status == 200
        times.append((asyncio.get_running_loop().time() - due) * 1000)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as tasks:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            tasks.create_task(one(session, due))
    return statistics.quantiles(times, n=100)[98]


def defaults(bench):
    """Each as it deploys."""
    (ours_port, first), (peer_port, second) = bench.ours("fast", {}), bench.torchserve({})
    with first, second:
        ours, theirs = bench.turns((ours_port, peer_port), 8)
    bench.row("each as it deploys by default, TorchServe, concurrency 8", "requests/s", ours, theirs, ours / theirs, 2.2)


def modelserver(bench):
    """KServe's own server, the model in the same form."""
    (ours_port, first), (peer_port, second) = bench.ours("fast"), bench.kserve()
    with first, second:
        for connections in (1, 8, 32):
            ours, theirs = bench.turns((ours_port, peer_port), connections)
            bench.row(f"KServe's ModelServer, same model in the same form, concurrency {connections}", "requests/s", ours, theirs,
                      ours / theirs, 1.05)  # fmt: skip


def bare_loop(bench):
    """The share of a bare loop's throughput that arrives at clients."""
    port, context = bench.ours("fast")
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        BARE,
        str(bench.folder / "fast" / "m.mar"),
        str(bench.folder / "request.json"),
        str(bench.seconds),
    ]
    with context:
        pairs = []
        for _ in range(bench.rounds):
            bare = float(subprocess.run(words, env={**os.environ, **ALIKE}, capture_output=True, text=True, check=True).stdout)
            pairs.append((bench.load(port, 8), bare))
    ours, theirs = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    bench.row("share of a bare loop's throughput, concurrency 8; goal 0.85", "requests/s", ours, theirs, ours / theirs, 0.85)


def cost(bench):
    """CPU time of the server for a request that asks nothing of the model."""
    port, context = bench.ours("null")
    with context as process:
        every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        found = []
        for _ in range(bench.rounds):
            before = sum(sum(one.cpu_times()[:2]) for one in every)
            rate = bench.load(port, 8)
            found.append((sum(sum(one.cpu_times()[:2]) for one in every) - before) / (rate * bench.seconds) * 1000)
    bench.row("CPU of a request with a null model", "ms", ours := statistics.median(found), None, 0.3 / ours, 1)


def start(bench):
    """From the start of the process to the first answer."""
    ours, torches = [], []
    for _ in range(bench.rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        torches.append(time.perf_counter() - began)
        began = time.perf_counter()
        with bench.ours("fast", warm=False)[1]:
            ours.append(time.perf_counter() - began)
    ours, torches = statistics.median(ours), statistics.median(torches)
    bench.row("start to first answer; limit 1.6 times `import torch`", "s", ours, 1.6 * torches, 1.6 * torches / ours, 1)


def main():
    """All of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pdk-bench-") as folder:
        bench = Bench(Path(folder), options.rounds, options.seconds)
        for part in (start, cost, bare_loop, modelserver, alike, defaults):
            part(bench)
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    versions = {name: metadata.version(name) for name in ("pdk", "torch", "uvicorn", "uvloop")} | {
        "torchserve": "0.12.0",
        "kserve": "0.20.0",
    }
    target = HERE / "results" / "serving.json"
    target.write_text(json.dumps({"machine": machine, "versions": versions, "rows": bench.rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
