"""From a checkpoint to an archive, beside what the flow's tests see of it."""

import json
import os
import shutil
import subprocess
import sys

import torch

from conftest import CHECKOUT

PACK = """
import sys
from pathlib import Path
from pdk.flow.deploy.archive import pack
from pdk.provenance import Provenance

made = pack("nothing", "1", Path(sys.argv[1]), Provenance(), Path(sys.argv[2]))
assert "model-store/nothing.mar" in made
print("compiler" if "torch._dynamo" in sys.modules else "no compiler")
"""


def write_checkpoint(checkpoint, state):
    """A checkpoint of the bench's experiment, which learns nothing."""
    shutil.copytree(CHECKOUT / "bench" / "nothing", checkpoint / "code")
    torch.save(state, checkpoint / "state_dict.pth")
    config = {"searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 1}}, "hyperparameters": {}}
    data = {"trial_type": "PyTorchTrial", "experiment_config": config, "hparams": {}, "trial_cls_spec": "model_def:NothingTrial"}
    (checkpoint / "load_data.json").write_text(json.dumps(data))


def test_an_archive_is_made_without_importing_the_compiler(tmp_path):
    checkpoint, scratch = tmp_path / "checkpoint", tmp_path / "scratch"
    write_checkpoint(checkpoint, {"models_state_dict": [torch.nn.Linear(1, 1).state_dict()]})
    scratch.mkdir()
    done = subprocess.run([sys.executable, "-c", PACK, checkpoint, scratch], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "no compiler"  # its import would take a second of every deploy


class Evil:
    """Runs a program when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_in_a_checkpoint_is_never_run(tmp_path):
    """Not even where the pipeline's own variables ask for it."""
    checkpoint, scratch, ran = tmp_path / "checkpoint", tmp_path / "scratch", tmp_path / "ran"
    write_checkpoint(checkpoint, {"models_state_dict": [Evil(ran)]})
    scratch.mkdir()
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    words = [sys.executable, "-c", PACK, checkpoint, scratch]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert "the checkpoint cannot be loaded" in done.stderr, done.stderr
    assert not ran.exists()
