"""The train step with local Pachyderm and a real Determined master, where DET_MASTER, DET_USER and DET_PASS name one."""

import os

import pytest
import yaml
from determined.experimental import Determined

from flow.material import commit_all, train_spec
from flow.test_flow import Flow
from recorded.master import real_master

SCRIPT = """
import determined as det

info = det.get_cluster_info()
with det.core.init() as core:
    steps = 0
    if info.latest_checkpoint:
        with core.checkpoint.restore_path(info.latest_checkpoint) as path:
            steps = int((path / "steps").read_text())
    steps += 1
    core.train.report_validation_metrics(steps, {"loss": 1 / steps})
    core.train.report_progress(1.0)
    with core.checkpoint.store_path({"steps_completed": steps}) as (path, _):
        (path / "steps").write_text(str(steps))
    if info.user_data["pachyderm"]["repo"] == "":
        raise RuntimeError("no data")
"""
CONFIG = {
    "name": "real", "entrypoint": "python3 train.py", "searcher": {"name": "single", "metric": "loss"}, "max_restarts": 0,
    "data": {"pachyderm": {"repo": ""}},
}  # fmt: skip


@pytest.fixture
def flow(own_up, name, tmp_path):
    """A train pipeline whose secret names the real master."""
    if not os.environ.get("DET_MASTER"):
        pytest.skip("DET_MASTER names no real master")
    code = tmp_path / "code"
    (code / "experiment").mkdir(parents=True)
    (code / "experiment" / "train.py").write_text(SCRIPT)
    (code / "experiment" / "const.yaml").write_text(yaml.safe_dump(CONFIG))
    commit_all(code)
    made = Flow(own_up, name, code)
    values = dict(zip(("det_master", "det_user", "det_password"), real_master(), strict=True))
    made.engine.create_secret(name, values)
    spec = train_spec("train", "data", name, code, "main", model=name)
    spec["transform"]["secrets"] = [{**entry, "name": name} for entry in spec["transform"]["secrets"] if entry["key"] in values]
    made.engine.create_pipeline({**spec, "pipeline": made.pipeline("train")})
    return made


def test_commits_become_versions_on_a_real_master(flow, tmp_path):
    address, user, password = real_master()
    master = Determined(master=address, user=user, password=password)
    commits = []
    for number, content in enumerate(("one", "one more")):
        (tmp_path / f"file{number}").write_text(content)
        commits.append(flow.put([tmp_path / f"file{number}"]))
        job = flow.wait("train", commits[-1])
        assert job.state == "SUCCESS", flow.log("train", commits[-1])
    log = flow.log("train", commits[1])
    assert "going on from version" in log
    assert "% done" in log
    versions = master.get_model(flow.name).list_versions()
    assert [version.name for version in versions][::-1] == commits
    for version, commit in zip(versions[::-1], commits, strict=True):
        assert version.metadata["data"]["commit"] == commit
        assert version.metadata["job"]["id"] == commit
    first, second = (version.checkpoint for version in versions[::-1])
    assert (first.metadata["steps_completed"], second.metadata["steps_completed"]) == (1, 2)  # it went on from the other's
    assert versions[0].metadata["parent"]["commit"] == commits[0]
    # as the data were before: nothing is trained, the earlier checkpoint is registered again
    flow.up.run("pdk", "delete", "file", f"data@master:/data1/{tmp_path.name}/file1", "--project", flow.name)
    reverted = flow.engine.head(flow.name, "data", "master")
    assert flow.wait("train", reverted).state == "SUCCESS", flow.log("train", reverted)
    assert "its checkpoint is registered again" in flow.log("train", reverted)
    newest = master.get_model(flow.name).get_version()
    assert (newest.name, newest.checkpoint.uuid) == (reverted, first.uuid)
