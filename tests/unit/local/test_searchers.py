"""Searchers: rungs as the paper has them, decisions as a plain model of the stopping rule makes them, samples from a seed."""

import json
import math
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdk.errors import UserError
from pdk.local.determined.rules import hyperparameters, searcher_config, searchers
from pdk.local.determined.rules.searchers import Create, Stop
from pdk.local.determined.rules.searchers.asha import adaptive_brackets, rungs

SPACE = {
    "a": {"type": "double", "minval": 0.0, "maxval": 1.0},
    "b": {"type": "log", "base": 10, "minval": -4, "maxval": -1},
    "c": {"type": "int", "minval": 3, "maxval": 9},
    "d": {"type": "categorical", "vals": ["x", "y", "z"]},
    "e": {"f": {"type": "const", "val": 7}, "g": {"type": "int", "minval": 0, "maxval": 1}},
    "h": 0.5,
}


def config(**given):
    return searcher_config.complete({"metric": "loss", **given}, SPACE, [])


def asha(**more):
    return config(
        **{"name": "async_halving", "max_time": 81, "time_metric": "batches", "divisor": 3, "num_rungs": 5, "max_trials": 81} | more
    )


def searcher(section, seed=1, hparams=SPACE, state=None):
    return searchers.make(section, hparams, seed, state)


class Runs:
    """Plays an experiment: trials report along their curves, one length of training at a time."""

    def __init__(self, section, curve, seed=1, lengths=None, slots=4, hparams=SPACE):
        self.searcher, self.curve, self.slots = searcher(section, seed, hparams), curve, slots
        self.lengths, self.waiting, self.made, self.trained, self.seen = lengths, [], {}, {}, []
        self.take(self.searcher.begin())
        while self.waiting:
            self.step(self.waiting.pop(0))

    def take(self, actions):
        for action in actions:
            if isinstance(action, Create):
                self.made[action.number] = action.hparams
                self.trained[action.number] = 0
                self.waiting.append(action.number)

    def step(self, number):
        length = self.lengths[sum(self.trained[number] >= step for step in self.lengths)]
        self.trained[number] = length
        value = self.curve(self.made[number], length)
        self.seen.append((sum(self.trained.values()), value))
        actions = self.searcher.validated(number, {"loss": value, "batches": length})
        stopped = Stop(number) in actions
        self.take(actions)
        if stopped or length == self.lengths[-1]:
            self.take(self.searcher.exited(number))
        else:
            self.waiting.append(number)
        # as after a restart of the server
        self.searcher = searcher(
            self.searcher.section, self.searcher.seed, self.searcher.hparams, json.loads(json.dumps(self.searcher.state))
        )


def test_rungs_are_those_of_the_paper():
    """Li et al., table 1: R = 9 and eta = 3 with r = 1 give rungs of 1, 3 and 9; R = 256, eta = 4, as in its section 4.1."""
    assert rungs(3, 3, 9) == (1, 3, 9)
    assert rungs(5, 4, 256) == (1, 4, 16, 64, 256)
    assert rungs(4, 4, 10) == (1, 1, 2, 10)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("aggressive", [((1, 4, 16, 64), 64, 16)]),
        ("standard", [((1, 4, 16, 64), 39, 6), ((4, 16, 64), 13, 5), ((16, 64), 12, 5)]),
        ("conservative", [((1, 4, 16, 64), 35, 4), ((4, 16, 64), 11, 4), ((16, 64), 4, 4), ((64,), 2, 4)]),
    ],
)
def test_adaptive_asha_divides_trials_among_brackets(mode, expected):
    section = config(name="adaptive_asha", max_trials=64, max_time=64, time_metric="batches", mode=mode)
    found = adaptive_brackets(section)
    assert [bracket.rungs for bracket in found] == [rungs for rungs, _, _ in expected]
    assert sum(bracket.trials for bracket in found) == 64
    assert sum(bracket.concurrent for bracket in found) <= 16
    assert [bracket.trials for bracket in found] == sorted((bracket.trials for bracket in found), reverse=True)


class Model:
    """0.38's stopping rule, word for word and without a thought to speed."""

    def __init__(self, rungs, divisor):
        self.rungs, self.divisor = rungs, divisor
        self.reported = {rung: [] for rung in range(len(rungs))}
        self.at = {}

    def stops(self, trial, time, value):
        for rung in range(self.at.get(trial, 0), len(self.rungs)):
            self.at[trial] = rung
            if time < self.rungs[rung]:
                return False
            better = sum(other < value for other in self.reported[rung])
            self.reported[rung].append(value)
            if rung == len(self.rungs) - 1:
                return True
            if better >= max(1, math.floor(len(self.reported[rung]) / self.divisor)):
                return True
        return False


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 100), st.floats(-10, 10)), max_size=60), st.sampled_from([2, 3, 4.5]))
def test_decisions_are_those_of_the_stopping_rule(reports, divisor):
    section = asha(divisor=divisor, max_trials=9, max_concurrent_trials=9)
    searched, stopped = searcher(section), set()
    model = Model(rungs(5, divisor, 81), divisor)
    assert len(searched.begin()) == 9
    for trial, time, value in reports:
        if trial not in stopped:
            stops = Stop(trial) in searched.validated(trial, {"loss": value, "batches": time})
            assert stops == model.stops(trial, time, value)
            stopped |= {trial} if stops else set()


def test_as_many_trials_as_asked_for_run_and_no_more_at_once():
    sections = {
        "random": config(name="random", max_trials=20, max_concurrent_trials=5),
        "asha": asha(max_trials=20, max_concurrent_trials=5),
        "adaptive": config(name="adaptive_asha", max_trials=20, max_time=81, time_metric="batches", max_concurrent_trials=6),
    }
    for name, section in sections.items():
        runs = Runs(section, lambda hparams, length: hparams["a"] + 1 / length, lengths=[1, 3, 9, 27, 81])
        assert len(runs.made) == 20, name
        assert runs.searcher.verdict == "COMPLETED"
        assert runs.searcher.progress(dict.fromkeys(runs.made, 1.0)) == 1.0
    first = searcher(sections["random"]).begin()
    assert [create.number for create in first] == [0, 1, 2, 3, 4]
    assert len(searcher(sections["asha"]).begin()) == 5
    assert len(searcher(sections["adaptive"]).begin()) == 6
    assert len(searcher(asha(max_concurrent_trials=0)).begin()) == 81  # as many as bring one to the top rung


def test_a_seed_makes_the_same_trials():
    """The first values are numpy's for that seed, drawn in the order of the names."""
    first, second = (searcher(config(name="random", max_trials=30), seed=7).begin() for _ in range(2))
    assert first == second != searcher(config(name="random", max_trials=30), seed=8).begin()
    assert first[0].hparams["a"] == 0.07630828937395717  # numpy.random.RandomState(7).random_sample()
    for create in first:
        found = create.hparams
        assert 0 <= found["a"] < 1
        assert 1e-4 <= found["b"] < 0.1
        assert 3 <= found["c"] <= 9
        assert found["d"] in ("x", "y", "z")
        assert found["e"]["f"] == 7
        assert found["e"]["g"] in (0, 1)
        assert found["h"] == 0.5
        assert 0 <= create.seed < 2**31
    assert {create.hparams["d"] for create in first} == {"x", "y", "z"}


def test_a_grid_has_every_combination():
    space = {
        "a": {"type": "int", "minval": 1, "maxval": 3, "count": 9},
        "b": {"c": {"type": "log", "base": 10, "minval": -2, "maxval": 0, "count": 3}, "d": {"type": "categorical", "vals": [True, None]}},
        "e": {"type": "double", "minval": 0, "maxval": 4, "count": 1},
        "f": "same",
    }
    section = searcher_config.complete({"name": "grid", "metric": "loss", "max_concurrent_trials": 4}, space, [])
    found = searcher(section, hparams=space)
    made = found.begin()
    assert len(made) == 4
    while created := found.exited(made[len(found.state["closed"])].number):
        made += created
    assert len(made) == 18
    points = [json.dumps(create.hparams, sort_keys=True) for create in made]
    assert len(set(points)) == 18
    assert {create.hparams["a"] for create in made} == {1, 2, 3}
    assert {create.hparams["b"]["c"] for create in made} == {0.01, 0.1, 1.0}
    assert all(create.hparams["e"] == 2 and create.hparams["f"] == "same" for create in made)
    assert made[0].hparams["a"] == 3  # the engine begins with the last one


def test_trials_that_end_early_are_counted_as_what_they_are():
    found = searcher(config(name="random", max_trials=3, max_concurrent_trials=1))
    (first,) = found.begin()
    (second,) = found.exited(first.number, searchers.INVALID)  # does not count
    (third,) = found.exited(second.number, searchers.ERRORED)
    (fourth,) = found.exited(third.number)
    assert found.exited(fourth.number) == []
    assert found.verdict == "COMPLETED"
    for early, verdict in ((searchers.ERRORED, "ERROR"), (searchers.CANCELED, "CANCELED"), ("", "COMPLETED")):
        single = searcher(config(name="single"))
        assert single.exited(single.begin()[0].number, early) == []
        assert single.verdict == verdict
    ranked = searcher(asha(max_trials=4, max_concurrent_trials=2))
    ranked.begin()
    assert [create.number for create in ranked.exited(0, searchers.ERRORED)] == [2]
    assert ranked.validated(1, {"loss": 5.0, "batches": 1}) == []  # better than one that failed


@pytest.mark.long
def test_asha_finds_what_random_search_finds_in_a_third_of_the_training():
    """On recorded curves, median of 50 seeds: training until 99 % of the way from guessing (ln 2) to random search's best loss."""
    recorded = json.loads((Path(__file__).parent / "curves.json").read_text())
    lengths, losses, shares = recorded["lengths"], recorded["losses"], []
    space = {"curve": {"type": "categorical", "vals": list(range(len(losses)))}}

    def curve(hparams, length):
        return losses[hparams["curve"]][lengths.index(length)]

    for seed in range(50):
        plain = Runs(config(name="random", max_trials=81), curve, seed, lengths, hparams=space)
        halving = Runs(asha(max_concurrent_trials=8), curve, seed, lengths, hparams=space)
        best = min(value for _, value in plain.seen)
        enough = math.log(2) - 0.99 * (math.log(2) - best)
        taken = next((units for units, value in halving.seen if value <= enough), math.inf)
        shares.append(taken / sum(plain.trained.values()))
    assert statistics.median(shares) <= 1 / 3


TIMED = {"max_trials": 3, "max_time": 10, "time_metric": "batches"}
REFUSED = (
    ({"name": "bayes"}, "searcher.name: 'bayes' is none of"),
    ({"name": "random"}, "searcher.max_trials: is required"),
    ({"name": "random", "max_trials": 0}, "searcher.max_trials: a whole number of at least 1"),
    ({"name": "random", "max_trials": 3, "metric": None}, "searcher.metric: is required"),
    ({"name": "random", "max_trials": 3, "mode": "standard"}, "searcher.mode: unknown field"),
    ({"name": "adaptive_asha", "max_trials": 3, "max_time": 10}, "searcher.time_metric: is required"),
    ({"name": "adaptive_asha", **TIMED, "mode": "wild"}, "searcher.mode: 'wild'"),
    ({"name": "async_halving", **TIMED}, "searcher.num_rungs: is required"),
    (
        {"name": "async_halving", **TIMED, "num_rungs": 2, "divisor": 1},
        "searcher.divisor",
    ),
    ({"name": "grid"}, r"hyperparameters\.a: count is required"),
    ({"name": "single", "max_length": {"hours": 3}}, "searcher.max_length: one of"),
)


@pytest.mark.parametrize(("given", "why"), REFUSED)
def test_searchers_that_are_refused(given, why):
    with pytest.raises(UserError, match=why):
        config(**given)


BAD = (
    ({"type": "gauss"}, "type 'gauss' is none of"),
    ({"type": "int", "minval": 1}, "maxval is required"),
    ({"type": "int", "minval": 1, "maxval": 2.5}, "maxval: a whole number"),
    ({"type": "double", "minval": 1, "maxval": 1}, "not less than"),
    ({"type": "log", "minval": 1, "maxval": 2}, "base is required"),
    ({"type": "categorical", "vals": []}, "vals: a list"),
    ({"type": "double", "minval": 0, "maxval": 1, "step": 1}, "'step' is no key"),
    ({"type": "double", "minval": 0, "maxval": float("nan")}, "maxval: a number"),
)


@pytest.mark.parametrize(("value", "why"), BAD)
def test_hyperparameters_that_are_refused(value, why):
    with pytest.raises(UserError, match=rf"hyperparameters\.deep\.x: .*{why}"):
        hyperparameters.check({"deep": {"x": value}}, grid=False)


def test_older_configs_are_translated_with_a_note():
    notes = []
    given = {"name": "adaptive_simple", "metric": "loss", "max_length": {"epochs": 12}, "max_trials": 5, "stop_once": True}
    found = searcher_config.complete(given, {}, notes)
    assert (found["name"], found["max_time"], found["time_metric"], found["max_trials"]) == ("adaptive_asha", 12, "epochs", 5)
    assert "stop_once" not in found
    assert len(notes) == 4


def test_an_unknown_searcher_is_none_of_the_known_ones():
    known = ", ".join(sorted(searchers.SEARCHERS))
    with pytest.raises(UserError, match=f"no searcher 'no-such-one'; known are {known}"):
        searchers.make({"name": "no-such-one", "metric": "loss", "max_trials": 3}, SPACE, 1)


def test_every_searcher_is_in_the_table():
    modules = {path.stem for path in Path(searchers.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert modules == {kind.__module__.rpartition(".")[2] for kind in searchers.SEARCHERS.values()}
