"""What experiments share: config templates, and models that are archived and moved."""

import json

import yaml

from clients.determined.test_searches import create, ended  # noqa: F401 - fixtures


def test_a_template_holds_where_the_config_says_nothing(up, det, create, tmp_path, name):  # noqa: F811
    path = tmp_path / "template.yaml"
    path.write_text(yaml.safe_dump({"max_restarts": 3, "labels": ["shared"], "hyperparameters": {"x": 9, "length": 1}}))
    up.run(det, "template", "create", name, str(path))
    assert "already exists" in up.fails(det, "template", "create", name, str(path))
    assert name in up.run(det, "template", "list")
    assert "length: 1" in up.run(det, "template", "describe", name)
    config = {"entrypoint": "python3 train.py", "searcher": {"name": "single", "metric": "loss"}, "hyperparameters": {"x": 0.5}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"name": "templated", **config}))
    words = (det, "experiment", "create", "--template", name, str(tmp_path / "config.yaml"), str(tmp_path / "code"))
    experiment = up.run(*words).rpartition("Created experiment ")[2].split()[0]
    found = ended(up, det, experiment)
    assert found["state"] == "STATE_COMPLETED"
    assert found["config"]["max_restarts"] == 3
    assert found["config"]["labels"] == ["shared"]
    assert found["config"]["hyperparameters"] == {"x": {"type": "const", "val": 0.5}, "length": {"type": "const", "val": 1}}
    path.write_text(yaml.safe_dump({"max_restarts": 1}))
    up.run(det, "template", "set", name, str(path))
    assert "max_restarts: 1" in up.run(det, "template", "describe", name)
    up.run(det, "template", "remove", name)
    assert "not found" in up.fails(*words)


def test_models_are_archived_and_moved(up, det, sdk, name):
    model = sdk.create_model(name)
    model.archive()
    assert sdk.get_model(name).archived
    model.unarchive()
    assert not sdk.get_model(name).archived
    up.run(det, "workspace", "create", name)
    model.move_to_workspace(name)
    workspace = json.loads(up.run(det, "workspace", "describe", name, "--json"))["id"]
    assert sdk.get_model(name).workspace_id == workspace
