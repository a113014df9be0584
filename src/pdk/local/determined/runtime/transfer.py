"""Reads or removes checkpoints in a storage by the engine's own code: ``python -m pdk.local.determined.runtime.transfer``.

Standard input: one JSON object with ``storage`` (a ``checkpoint_storage`` section), ``uuids``, and either ``globs`` (what to remove; what
is left is printed) or ``target`` (the folder to copy to); or with ``events`` (a cluster's ID and an experiment's number), whose TensorBoard
files are removed.
"""

from __future__ import annotations

import contextlib
import json
import sys

from determined import errors, tensorboard
from determined.common import storage


def main() -> None:
    """Carry out one request."""
    request = json.load(sys.stdin)
    if experiment := request.get("events"):
        with contextlib.suppress(errors.CheckpointNotFound):
            tensorboard.build(*experiment, None, request["storage"], async_upload=False, sync_on_close=False).delete()
        return
    manager = storage.build(request["storage"], container_path=None)
    if target := request.get("target"):
        manager.download(request["uuids"][0], target)
        return
    left = {}
    for uuid in request["uuids"]:
        try:
            left[uuid] = manager.delete(uuid, request["globs"])
        except errors.CheckpointNotFound:  # removed before
            left[uuid] = {}
    json.dump(left, sys.stdout)


if __name__ == "__main__":
    main()
