"""Rollouts, rollbacks and crashes under a steady load: no request fails, and every answer names the version that gave it."""

import asyncio
import threading

import aiohttp
import pytest

from conftest import wait_until

RATE = 50  # requests a second
ROLLOUTS, ROLLBACKS, CRASHES = 20, 5, 5
CRASHING = """
import os, signal, threading
threading.Timer({answer} % 3 * 0.2, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()

def predict(instances):
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Load:
    """Requests at a steady rate, whether earlier ones were answered or not; what went wrong, and who answered."""

    def __init__(self, url, host):
        self.url, self.host = url, host
        self.problems, self.count, self.seen = [], 0, set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(190)  # longer than the gateway lets a request wait
        assert not self._thread.is_alive()

    async def _run(self):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as tasks:
            loop = asyncio.get_running_loop()
            due = loop.time()
            while not self._stop.is_set():
                tasks.create_task(self._one(session))
                due += 1 / RATE
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def _one(self, session):
        self.count += 1
        try:
            async with session.post(self.url, json={"instances": [1]}, headers={"Host": self.host}) as answer:
                text = await answer.text()
                if answer.status != 200:
                    self.problems.append((answer.status, text))
                    return
                (value,) = (await answer.json())["predictions"]
                version = answer.headers["pdk-model-version"]
        except aiohttp.ClientError as error:
            self.problems.append(repr(error))
            return
        if version != f"v{value}":
            self.problems.append((version, value))
        self.seen.add(version)


def versions_come_and_go(service, up):
    """Rollouts, rollbacks and crashes of new versions under load; what the load saw."""
    service.apply(service.model(0))
    service.ready()
    url = f"http://127.0.0.1:{up.installation.ports.gateway}/v1/models/m:predict"
    with Load(url, f"{service.name}.models.example.com") as load:
        for answer in range(1, ROLLOUTS + 1):
            service.apply(service.model(answer))
            service.ready()
        for number in range(ROLLBACKS):
            service.apply(service.model(100 + number), canaryTrafficPercent=50)
            service.ready()
            wait_until(lambda version=f"v{100 + number}": version in load.seen, 30, "the canary's answers")
            service.apply(service.model(ROLLOUTS))
            service.ready()
        for number in range(CRASHES):
            service.apply(service.model(200 + number, CRASHING))
            wait_until(service.failed, 120, "the failure")
            service.apply(service.model(ROLLOUTS))
            service.ready()
        wait_until(lambda: service.answers(10) == {ROLLOUTS: 10}, 20, "the last good version")
    return load


@pytest.mark.timeout(900)
def test_no_request_fails_while_versions_come_and_go(service, up):
    load = versions_come_and_go(service, up)
    assert load.problems == []
    assert load.seen >= {f"v{number}" for number in (*range(1, ROLLOUTS + 1), *range(100, 100 + ROLLBACKS))}
    assert load.count > RATE * 30
