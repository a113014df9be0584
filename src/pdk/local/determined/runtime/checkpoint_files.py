"""Reads and removes checkpoints, which trials write themselves: in folders directly, in buckets by the engine's own code.

That code (and what of it removes single files anywhere) runs in a process apart, for it takes seconds to import.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdk.errors import EngineError
from pdk.local.determined.rules import storage
from pdk.local.determined.rules.sections import Config

NOWHERE = "/nonexistent"


async def remove(config: Config, uuids: Sequence[str], globs: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    """Remove the files that match, of checkpoints of one experiment.

    Args:
        config: its config.
        env: variables for a process that does it.

    Returns:
        What is left of each (bytes by path).

    Raises:
        EngineError: the storage refused, or is not there.
    """
    place = storage.place(config)
    if place is not None and list(globs) == [storage.ALL]:
        if not place.is_dir():
            raise EngineError(f"the checkpoint storage {place} is not there; mount it again")
        for uuid in uuids:
            if (target := place / uuid).parent == place and target.exists():
                await asyncio.to_thread(shutil.rmtree, target)
        return {uuid: {} for uuid in uuids}
    answer = await _apart({"storage": _as_seen_here(config, place), "uuids": list(uuids), "globs": list(globs)}, env)
    return dict(json.loads(answer))


async def remove_events(config: Config, cluster: str, experiment: int, env: Mapping[str, str]) -> None:
    """Remove them.

    Raises:
        EngineError: as above.
    """
    if storage.place(config) is not None:
        await asyncio.to_thread(shutil.rmtree, storage.events(config, cluster, experiment), ignore_errors=True)
    else:
        await _apart({"storage": config.checkpoint_storage.content, "events": [cluster, str(experiment)]}, env)


async def fetch(config: Config, uuid: str, scratch: Path, env: Mapping[str, str]) -> Path:
    """Return a checkpoint's folder; copied to `scratch` out of a bucket.

    Raises:
        EngineError: as above.
    """
    place = storage.place(config)
    if place is not None:
        return place / uuid
    await _apart({"storage": config.checkpoint_storage.content, "uuids": [uuid], "target": str(scratch)}, env)
    return scratch


def _as_seen_here(config: Config, place: Path | None) -> dict[str, Any]:
    return config.checkpoint_storage.content if place is None else {"type": "directory", "container_path": str(place)}


async def _apart(request: Mapping[str, Any], env: Mapping[str, str]) -> bytes:
    env = {**env, "HOME": NOWHERE}  # or a bucket that somebody names would be reached with the keys of whoever started the server
    words, pipe = (sys.executable, "-P", "-m", "pdk.local.determined.runtime.transfer"), asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(env), start_new_session=True)
    try:
        out, errors = await process.communicate(json.dumps(request).encode())
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        said = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise EngineError(f"the checkpoint storage ({request['storage']['type']}) failed: {said[-1]}")
    return out
