"""Slow senders, and handlers that end in ways of their own."""

import asyncio
from dataclasses import replace

import pytest
from starlette.requests import Request

from pdk.serving import bodies
from pdk.serving.runner import Rejected
from pdk.settings import Serving

ENDS = """
import sys

def predict(instances):
    if "exit" in instances:
        sys.exit("enough")
    if "stop" in instances:
        next(iter([]))
    if "late" in instances:
        raise TimeoutError("a database")
    return instances
"""


@pytest.mark.parametrize("first", [None, {"type": "http.request", "body": b"half", "more_body": True}])
def test_a_body_that_does_not_come_is_not_waited_for(first):
    async def ask():
        messages = [first] if first else []

        async def receive():
            return messages.pop() if messages else await asyncio.Event().wait()

        await bodies.read(Request({"type": "http"}, receive), replace(Serving(), receive_s=0.05))

    with pytest.raises(Rejected, match="did not arrive") as caught:
        asyncio.run(ask())
    assert caught.value.status == 408


def test_handlers_that_end_in_their_own_way_are_defects_and_nothing_else(start):
    runtime = start({"m": ENDS})
    for value, means in (("exit", "SystemExit"), ("stop", "StopIteration"), ("late", "TimeoutError: a database")):
        answer = runtime("/v1/models/m:predict", {"instances": [value]})
        assert (answer.status_code, means in answer.json()["error"]) == (500, True), answer.text
    assert runtime("/v1/models/m:predict", {"instances": [1]}).json() == {"predictions": [1]}
