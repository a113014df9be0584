"""What is named by an ID that several things share: each still has its own."""

import io
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from pdk.engines.records import Version
from pdk.errors import UserError
from pdk.flow.train import arguments, experiment
from pdk.local.determined.runtime import environment
from pdk.local.pachyderm.runtime.layout import in_memory
from pdk.provenance import Provenance


def test_a_copy_of_an_installation_has_its_own_memory(tmp_path):
    with in_memory(tmp_path / "a") as first:
        (first / "input").write_text("a")
        with in_memory(tmp_path / "b") as second:
            assert second != first
        assert (first / "input").read_text() == "a"


def test_trials_that_start_at_once_share_a_whole_environment(tmp_path):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("startup-hook.sh"))
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: environment.prepare(tmp_path, raw.getvalue()), range(6)))
    assert len({found.python for found in made}) == 1
    assert subprocess.run([made[0].python, "-c", "import pip"], check=True).returncode == 0


def test_two_pipelines_on_one_commit_do_not_share_a_model(tmp_path):
    def job(pipeline):
        words = ["--git-url", "u", "--git-ref", "r", "--config", "c", "--repo", "data", "--model", "m"]
        variables = {"DET_MASTER": "x", "DET_USER": "x", "PACH_JOB_ID": "j" * 32, "PPS_PIPELINE_NAME": pipeline}
        return arguments.parse(words, {**variables, "PACHD_LB_SERVICE_HOST": "x", "PACHD_LB_SERVICE_PORT": "1"})

    first = Version(1, "j" * 32, "checkpoint", Provenance(job=experiment.job_of(job("one"))))
    experiment.check_own(first, job("one"))
    with pytest.raises(UserError, match=r"registered by pipeline default/one.*another --model"):
        experiment.check_own(first, job("two"))
    with pytest.raises(UserError, match="by somebody else"):
        experiment.check_own(Version(1, "j" * 32, "checkpoint"), job("one"))
