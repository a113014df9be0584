"""Pages, cursors and changes of a collection."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdk.catalog import Collection, Event
from pdk.errors import NotFound, UserError


def collection(items):
    return Collection("thing", lambda: iter(items), str)


@given(st.lists(st.integers(), unique=True, max_size=40), st.integers(1, 7))
def test_pages_hold_everything_once_in_order(items, limit):
    found, after, pages = [], "", 0
    while True:
        page = collection(items).list(limit, after)
        assert len(page.items) <= limit
        found += page.items
        pages += 1
        if not page.after:
            break
        after = page.after
    assert found == items
    assert pages == max(1, -(-len(items) // limit))


def test_no_more_is_read_than_is_asked_for():
    read = []

    def every():
        for number in range(1000):
            read.append(number)
            yield number

    page = Collection("thing", every, str).list(5)
    assert (page.items, page.after) == ((0, 1, 2, 3, 4), "4")
    assert len(read) == 6


def test_wrong_cursors_limits_and_names():
    with pytest.raises(UserError, match="names no thing"):
        collection([1, 2]).list(1, "9")
    with pytest.raises(UserError, match="limit -1"):
        collection([1]).list(-1)
    with pytest.raises(NotFound, match="no thing '7'"):
        collection([1]).get("7")
    assert collection([1]).get("1") == 1
    assert collection([1, 2, 3]).list(0).items == (1, 2, 3)


def test_an_engine_may_begin_behind_a_cursor_itself():
    asked = []
    found = Collection("thing", lambda: [1, 2, 3], str, following=lambda after: asked.append(after) or [3])
    assert found.list(2, "2").items == (3,)
    assert asked == ["2"]


def test_what_changes_is_given():
    states, stop = [{"a": 1, "b": 1}, {"a": 2, "c": 1}, {}], threading.Event()

    def every():
        if len(states) == 1:
            stop.set()
        return list(states.pop(0).items())

    events = list(Collection("thing", every, lambda item: item[0]).watch(stop, pause_s=0.001))
    assert events[:4] == [Event("added", ("b", 1)), Event("added", ("a", 1)), Event("added", ("c", 1)), Event("changed", ("a", 2))]
    assert events[4] == Event("deleted", ("b", 1))
    assert sorted(event.item for event in events[5:]) == [("a", 2), ("c", 1)]
    assert {event.kind for event in events[5:]} == {"deleted"}
