"""Which predictor the gateway sends a request to."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pdk.local.gateway.routes import Target

ADDRESSES = ("a:1", "b:2", "c:3", "d:4")


def target(weights, relied_on=()):
    return Target("models/pets", weights=weights, relied_on=frozenset(relied_on))


def test_shares():
    found = Counter(target({"a:1": 30.0, "b:2": 70.0, "c:3": 0.0}).choose() for _ in range(2000))
    assert 450 < found["a:1"] < 750
    assert found["c:3"] == 0


def test_what_a_canary_dropped_goes_to_the_version_before():
    canary = {"a:1": 30.0, "b:2": 30.0, "c:3": 30.0, "d:4": 10.0}
    assert {target(canary, ["d:4"]).choose({"a:1"}) for _ in range(100)} == {"d:4"}
    assert {target(canary, ["d:4"]).choose({"a:1", "d:4"}) for _ in range(200)} == {"b:2", "c:3"}


@given(
    weights=st.dictionaries(st.sampled_from(ADDRESSES), st.sampled_from([0.0, 10.0, 100.0])),
    relied_on=st.sets(st.sampled_from(ADDRESSES)),
    lost=st.sets(st.sampled_from(ADDRESSES)),
)
def test_somebody_is_found_wherever_there_is_one(weights, relied_on, lost):
    found = target(weights, relied_on).choose(lost)
    assert (found is None) == (not weights)
    assert found is None or found in weights
    if weights.keys() - lost:
        assert found not in lost
    if not lost and any(weights.values()):
        assert weights[found] > 0
    if lost and (known := weights.keys() & relied_on - lost):
        assert found in known
