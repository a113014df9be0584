"""Cron specs: five fields, ``@hourly`` and its like, ``@every 30s``, ``@never``; a time zone may stand before."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from pdk.local.pachyderm.rules.model import Refused

NAMED = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
SPAN = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")

Schedule = Callable[[float], float | None]  # a unix time → the next tick after it, None for never


def seconds(text: str) -> float | None:
    """Return a duration as Go writes it (``1h30m``, ``1.5s``); None for what is none."""
    parts = SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def timestamp(text: str) -> float:
    """Unix time of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def is_timestamp(text: str) -> bool:
    """Return whether `text` is an RFC 3339 time."""
    try:
        timestamp(text)
    except ValueError:
        return False
    return True


def spelled(when: float) -> str:
    """Return a unix time as RFC 3339, in whole seconds of UTC."""
    return datetime.fromtimestamp(int(when), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(spec: str) -> Schedule:
    """Return the schedule of a spec.

    Raises:
        Refused: it is not a schedule.
    """
    wrong = Refused(f"error parsing cron-spec: {spec!r} is no schedule; write five fields, @daily or @every 1h30m")
    text, zone = spec.strip(), UTC
    if match := re.match(r"(?:CRON_)?TZ=(\S+)\s+", text):
        try:
            zone = zoneinfo.ZoneInfo(match[1])  # type: ignore[assignment]
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):
            raise wrong from None
        text = text[match.end() :]
    if text == "@never":
        return lambda _: None
    if text.startswith("@every "):
        every = seconds(text.removeprefix("@every ").strip())
        if every is None:
            raise wrong
        every = max(1.0, float(int(every)))  # whole seconds, at least one, as the engine's library has it
        return lambda after: float(int(after)) + every
    expression = NAMED.get(text, text)
    try:
        CronSim(expression, datetime.now(zone))
    except CronSimError:
        raise wrong from None

    def following(after: float) -> float | None:
        return next(CronSim(expression, datetime.fromtimestamp(after, zone) + timedelta(0))).timestamp()

    return following
