"""The flow's client goes on when its session ends under it."""

import requests

from pdk.engines.determined import Determined
from pdk.errors import NotFound


def test_a_session_that_ended_is_begun_anew(up, name):
    installation = up.installation
    address = f"http://127.0.0.1:{installation.ports.determined}"
    client = Determined(address, "determined", installation.secret())
    calls = (
        lambda: client.versions(name),
        lambda: client.find_experiment(name),
        lambda: client.ensure_model(name, "said"),
        lambda: absent(lambda: client.status(999999)),
        lambda: absent(lambda: client.best_checkpoint(999999)),
        lambda: absent(lambda: client.metrics("5c2f4f0e-0000-4000-8000-000000000000")),
    )
    for call in calls:
        headers = {"Authorization": f"Bearer {client._session.token}"}
        assert requests.post(f"{address}/api/v1/auth/logout", headers=headers, timeout=10).ok
        call()


def absent(call):
    """What is asked for is not there: the engine was heard, and not because of a session."""
    try:
        call()
    except NotFound:
        return
    raise AssertionError("found")
