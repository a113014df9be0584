"""From a checkpoint to an archive, beside what the flow's tests see of it."""

import json
import shutil
import subprocess
import sys

import torch

from conftest import CHECKOUT

PACK = """
import sys
from pathlib import Path
from pdk.deploy.archive import pack

made = pack("nothing", "1", Path(sys.argv[1]), {}, Path(sys.argv[2]))
assert "model-store/nothing.mar" in made
print("compiler" if "torch._dynamo" in sys.modules else "no compiler")
"""


def test_an_archive_is_made_without_importing_the_compiler(tmp_path):
    checkpoint, scratch = tmp_path / "checkpoint", tmp_path / "scratch"
    shutil.copytree(CHECKOUT / "bench" / "nothing", checkpoint / "code")
    scratch.mkdir()
    torch.save({"models_state_dict": [torch.nn.Linear(1, 1).state_dict()]}, checkpoint / "state_dict.pth")
    config = {"searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 1}}, "hyperparameters": {}}
    data = {"trial_type": "PyTorchTrial", "experiment_config": config, "hparams": {}, "trial_cls_spec": "model_def:NothingTrial"}
    (checkpoint / "load_data.json").write_text(json.dumps(data))
    done = subprocess.run([sys.executable, "-c", PACK, checkpoint, scratch], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "no compiler"  # its import would take a second of every deploy
