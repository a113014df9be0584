"""Unit tests import neither torch nor an engine's SDK, so `make fast` takes seconds; a run of them alone fails where one does."""

import sys
from pathlib import Path

HEAVY = ("torch", "determined", "pachyderm_sdk", "kubernetes")


def pytest_sessionfinish(session):
    here = Path(__file__).parent
    imported = [name for name in HEAVY if name in sys.modules]
    if imported and session.items and all(item.path.is_relative_to(here) for item in session.items):
        print(f"\nunit tests imported {', '.join(imported)}: what needs them is in tests/clients")
        session.exitstatus = 1
