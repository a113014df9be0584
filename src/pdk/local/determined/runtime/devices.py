"""The slots of this machine: its GPUs where torch sees some, else its cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdk.errors import EngineError

DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # without one of them torch, which takes seconds to import, need not be asked
PROBE_S = 120.0  # until the question for GPUs is given up: torch takes long to import from a cold disk
PROBE = """
import json, torch
kind = "rocm" if torch.version.hip else "cuda"
print(json.dumps([[kind, torch.cuda.get_device_name(number)] for number in range(torch.cuda.device_count())]))
"""
VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES"}


@dataclass(frozen=True)
class Device:
    """A slot; `name` is how the drivers' own variable calls it."""

    id: int
    kind: str
    brand: str
    name: str


def detect() -> tuple[Device, ...]:
    """Return the slots, in the order of their numbers. What a variable such as CUDA_VISIBLE_DEVICES hides from this process is none.

    Raises:
        EngineError: there are drivers, and torch cannot be asked for its devices.
    """
    if any(Path(path).exists() for path in DRIVERS):
        asked = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_S, check=False)
        if asked.returncode:
            raise EngineError(f"torch could not be asked for its devices: {asked.stderr.strip()[-500:]}; see whether `import torch` works")
        if found := devices(json.loads(asked.stdout), os.environ):
            return found
    return tuple(Device(number, "cpu", "cpu", str(number)) for number in range(os.cpu_count() or 1))


def devices(found: Sequence[Sequence[str]], environment: Mapping[str, str]) -> tuple[Device, ...]:
    """GPUs as torch lists them (kind, brand), named as `environment` names them."""
    made = []
    for number, (kind, brand) in enumerate(found):
        names = [name.strip() for name in environment.get(VISIBLE[kind], "").split(",") if name.strip()]
        made.append(Device(number, kind, brand, names[number] if number < len(names) else str(number)))
    return tuple(made)


def pinned(all_: Sequence[Device], slots: Sequence[int]) -> dict[str, str]:
    """Return the variables by which a program sees its own devices alone."""
    return {VISIBLE[kind]: ",".join(all_[slot].name for slot in slots) for kind in {device.kind for device in all_} & VISIBLE.keys()}
