"""What every noun of the catalogue offers: a list in pages, one by its name, and what changes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from pdk.errors import NotFound, UserError

T = TypeVar("T")
LIMIT = 200  # items of a page, unless the caller says otherwise
WATCH_S = 0.5  # between two looks of `watch`: what a person takes for at once


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some items, and the cursor that the next page is asked for with; the cursor is empty on the last page."""

    items: tuple[T, ...]
    after: str = ""


@dataclass(frozen=True)
class Event(Generic[T]):
    """What happened to an item: ``added``, ``changed`` (the item as it is now) or ``deleted`` (as it was last)."""

    kind: str
    item: T


@dataclass(frozen=True)
class Collection(Generic[T]):
    """The things of one kind in one place, such as the commits of a repo.

    Args:
        what: names one of them, for messages: "commit".
        every: gives all, in the order of the list; what is not asked for is not read.
        name: names an item: what `get` takes, and what a cursor is made of.
        one: finds an item by its name; without it, `every` is searched.
        following: gives the items that come after the one with a name, where the engine itself can begin there.
    """

    what: str
    every: Callable[[], Iterable[T]]
    name: Callable[[T], str]
    one: Callable[[str], T] | None = None
    following: Callable[[str], Iterable[T]] | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.every())

    def list(self, limit: int = LIMIT, after: str = "") -> Page[T]:
        """Return a page.

        Args:
            limit: items of the page at most; 0 for all.
            after: cursor of the page before.

        Raises:
            UserError: the cursor names nothing that is there any more, or the limit is negative.
        """
        if limit < 0:
            raise UserError(f"limit {limit}: 0 for all, or a positive number is expected")
        found = self._following(after) if after else iter(self.every())
        items = tuple(itertools.islice(found, limit or None))
        more = limit and next(found, None) is not None
        return Page(items, self.name(items[-1]) if more else "")

    def _following(self, after: str) -> Iterator[T]:
        if self.following is not None:
            return iter(self.following(after))
        found = iter(self.every())
        if not any(self.name(item) == after for item in found):  # which leaves the iterator behind it
            raise UserError(f"the cursor {after!r} names no {self.what} that is there now; begin with the first page again")
        return found

    def get(self, name: str) -> T:
        """Return the item with a name.

        Raises:
            NotFound: there is none.
        """
        if self.one is not None:
            return self.one(name)
        for item in self.every():
            if self.name(item) == name:
                return item
        raise NotFound(f"there is no {self.what} {name!r}")

    def watch(self, stop: threading.Event | None = None, pause_s: float = WATCH_S) -> Iterator[Event[T]]:
        """Give what is there as added, and from then on what changes.

        Args:
            stop: ends it when it is set.
            pause_s: seconds between two looks at the engine.
        """
        stop, known = stop or threading.Event(), dict[str, T]()
        while not stop.is_set():
            now = {self.name(item): item for item in self.every()}
            for name, item in reversed(now.items()):  # lists begin with the newest
                if name not in known:
                    yield Event("added", item)
                elif known[name] != item:
                    yield Event("changed", item)
            for name in known.keys() - now.keys():
                yield Event("deleted", known[name])
            known = now
            stop.wait(pause_s)
