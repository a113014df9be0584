"""Whose turn it is."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pdk.local.determined.rules.scheduler import Waiting, choose, to_preempt


def order(candidates, held=None, free=100):
    return [one.trial for one in choose(candidates, held or {}, free, 9).starting]


def test_experiments_share_by_weight():
    many = [Waiting(number, 1, 1) for number in range(6)]
    few = [Waiting(number, 2, 1) for number in range(6, 12)]
    assert order(many + few, free=4) == [0, 6, 1, 7]
    assert order(many + few, {1: 2}, free=4) == [6, 7, 0, 8]
    heavy = [Waiting(number, 2, 1, weight=3.0) for number in range(6, 12)]
    assert Counter(trial < 6 for trial in order(many + heavy, free=4)) == {False: 3, True: 1}


def test_the_more_urgent_go_first_and_limits_hold():
    assert order([Waiting(1, 1, 1), Waiting(2, 2, 1, priority=10)], free=1) == [2]
    limited = [Waiting(number, 1, 1, max_slots=2) for number in range(5)]
    assert order(limited) == [0, 1]
    assert order(limited, {1: 1}) == [0]
    assert order([*limited, Waiting(9, 2, 1)], {1: 2}) == [9]


def test_nothing_smaller_passes_what_waits_for_room():
    assert order([Waiting(1, 1, 4), Waiting(2, 2, 1)], free=2) == []
    assert order([Waiting(1, 1, 0), Waiting(2, 2, 1)], free=0) == [1]  # what needs no slot needs not wait


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.sampled_from([1, 42]), st.none() | st.integers(3, 5)), max_size=20),
    st.integers(0, 8),
)
def test_slots_are_never_given_twice(asked, free):
    candidates = [Waiting(trial, *one[:3], max_slots=one[3]) for trial, one in enumerate(asked)]
    chosen = choose(candidates, {}, free, 9).starting
    assert sum(one.slots for one in chosen) <= free
    assert len({one.trial for one in chosen}) == len(chosen)
    for one in chosen:
        assert one.max_slots is None or sum(other.slots for other in chosen if other.experiment == one.experiment) <= max(
            other.max_slots or 99 for other in candidates if other.experiment == one.experiment
        )


def test_the_least_urgent_make_room_if_that_is_enough():
    running = [Waiting(1, 1, 1, priority=50), Waiting(2, 1, 1, priority=60), Waiting(3, 1, 2, priority=10), Waiting(4, 1, 0, priority=90)]

    def leaving(slots, priority, free=0):
        return [one.trial for one in to_preempt(Waiting(9, 2, slots, priority=priority), running, free)]

    assert leaving(1, 20) == [2]
    assert leaving(2, 20) == [2, 1]
    assert leaving(2, 20, free=1) == [2]
    assert leaving(3, 20) == []
    assert leaving(1, 60) == []


def test_what_needs_no_slot_has_places_of_its_own():
    candidates = [Waiting(number, 1, 0) for number in range(5)]
    assert len(choose(candidates, {}, 1, 3).starting) == 3
    assert choose([Waiting(1, 1, 4)], {}, 3, 3).blocked == Waiting(1, 1, 4)
