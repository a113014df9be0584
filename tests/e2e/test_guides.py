"""What of the guides can run on the testbed, as they have it: the blocks marked ``<!-- testbed -->``, one after the other, in one shell."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import CHECKOUT
from e2e.cluster import marked
from pdk.demo import DEPLOY, MODEL


@pytest.mark.timeout(1200)
def test_the_on_prem_guide(flow, cluster, code, master, tmp_path):
    for name in ("pipelines", "sample-data"):
        shutil.copytree(CHECKOUT / name, tmp_path / name)
    shutil.copytree(cluster, tmp_path / "deploy")
    blocks = marked("testbed")
    assert len(blocks) >= 6
    env = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OVERLAY": "deploy/testbed", "REGISTRY_URI": "pdk.local",
        "GIT_URL": code.url, "DET_USER": master.user, "DET_PASS": master.password,
        "PIPELINE_ARGS": f"--arg target=on-prem --arg sharedFolder={master.shared} --arg gitSecret=git",
    }  # fmt: skip
    script = "set -e\n" + "\n".join(f"echo '#### block {number}'\n{block}" for number, block in enumerate(blocks, 1))
    (tmp_path / "guide.sh").write_text(script)
    done = subprocess.run(["bash", "guide.sh"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1000, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:] + flow.log(MODEL)[-1500:] + flow.log(DEPLOY)[-1500:]
    assert not re.search(r"^failed ", said, re.MULTILINE), said  # of pdk doctor
    assert '{"predictions":[1]}' in said
    assert '{"predictions":[0]}' in said
