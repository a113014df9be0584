"""Experiment configs are read as the engine reads them, and are values of their types afterwards."""

import json

import pytest

from pdk.errors import UserError
from pdk.local.determined.rules import config

TEXT = """
name: any
entrypoint: python3 train.py
searcher: {name: single, metric: loss, source_checkpoint_uuid: null}
hyperparameters:
  lr: 2e-05
  range: {type: log, minval: -5, maxval: -1, base: 10.0}
data: {from: 2026-01-31, at: 9:30, rate: 1.0e-8, on: yes, build: 1.10}
resources: {slots_per_trial: 1, weight: 5e-1}
"""


def test_numbers_dates_and_times_are_what_the_engine_takes_them_for(tmp_path):
    made = config.parse(TEXT, tmp_path, 2)
    assert made.hyperparameters["lr"] == {"type": "const", "val": 2e-05}
    assert made.content["data"] == {"from": "2026-01-31", "at": "9:30", "rate": 1e-8, "true": True, "build": 1.1}
    assert (made.resources.weight, made.resources.slots_per_trial, made.resources.max_slots) == (0.5, 1, None)
    assert (made.searcher.name, made.searcher.metric, made.searcher.smaller_is_better) == ("single", "loss", True)
    assert (made.checkpoint_storage.type, made.checkpoint_storage.container_path) == ("directory", str(tmp_path))
    assert json.loads(json.dumps(made.content)) == made.content


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("data: {x: .inf}", "line 10: .inf is no value of JSON"),
        ("hyperparameters: {lr: .nan}", ".nan is no value of JSON"),
        ("data: {x: 1e999}", "is no value of JSON"),
        ("data: &a {x: *a}", "the anchor &a is not defined before"),
        ("resources: {weight: often}", "resources.weight: a number is expected, not 'often'"),
    ],
)
def test_what_json_cannot_hold_is_refused_before_anything_is_kept(line, said, tmp_path):
    with pytest.raises(UserError, match="invalid experiment configuration") as refused:
        config.parse(TEXT + line, tmp_path, 2)
    assert said in str(refused.value)
