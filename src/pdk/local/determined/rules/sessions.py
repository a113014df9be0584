"""Sessions that were ended before their time: their tokens count no more."""

from __future__ import annotations

import sqlite3
import time

Connection = sqlite3.Connection


def end(db: Connection, token: str, life_s: float) -> None:
    """End a session.

    Args:
        life_s: seconds after which its token would not count anyway, so that it need not be kept longer.
    """
    now = time.time()
    db.execute("DELETE FROM ended_session WHERE expires < ?", (now,))
    db.execute("INSERT OR IGNORE INTO ended_session VALUES (?, ?)", (token, now + life_s))


def is_ended(db: Connection, token: str) -> bool:
    """Tell whether a session was ended."""
    return db.execute("SELECT 1 FROM ended_session WHERE token = ?", (token,)).fetchone() is not None
