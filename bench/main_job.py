"""The numbers that the main job promises: ``python bench/main_job.py`` runs the demo and writes bench/results/main_job.json."""

import json
import os
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path

from rich.console import Console

from pdk.demo import UNTRAINED, WANTED, Demo, main_job, stop

LIMIT_S = 300  # the whole demo on two cores, without the installation of dependencies


def main():
    with tempfile.TemporaryDirectory(prefix="pdk-bench-") as folder:
        demo, began = Demo(Path(folder), Console()), time.monotonic()
        try:
            main_job(demo)
            seconds = time.monotonic() - began
        finally:
            stop(demo, wait=False)
    rows = [{"case": "demo, whole", "unit": "s", "ours": round(seconds, 1), "peer": None, "ratio": round(LIMIT_S / seconds, 2), "goal": 1}]
    for name, taken in demo.times:
        rows.append({"case": f"demo, {name}", "unit": "s", "ours": round(taken, 1), "peer": None, "ratio": None, "goal": None})
    trained, untrained, failed = (demo.numbers[key] for key in ("trained", "untrained", "failed"))
    rows.append(
        {"case": "held-out drawings right", "unit": "share", "ours": trained, "peer": None, "ratio": round(trained / WANTED, 2), "goal": 1}
    )
    rows.append(
        {
            "case": "the same, untrained",
            "unit": "share",
            "ours": untrained,
            "peer": None,
            "ratio": round(UNTRAINED / untrained, 2),
            "goal": 1,
        }
    )
    rows.append(
        {
            "case": "requests failed in the rollover",
            "unit": "count",
            "ours": failed,
            "peer": None,
            "ratio": 1 if failed == 0 else 0,
            "goal": 1,
        }
    )
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    versions = {name: metadata.version(name) for name in ("pdk", "torch", "determined", "pachyderm-sdk", "grpcio", "uvicorn")}
    target = Path(__file__).parent / "results" / "main_job.json"
    target.write_text(json.dumps({"machine": machine, "versions": versions, "rows": rows}, indent=1) + "\n")
    print(target.read_text())


if __name__ == "__main__":
    main()
