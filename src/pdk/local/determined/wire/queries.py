"""What a request's address says: numbers of its path; pages, orders and filters of its query."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.datastructures import QueryParams
from starlette.requests import Request

from pdk.errors import UserError

T = TypeVar("T")
DIGITS = 18  # of a number, which the database takes as 64 bits
COMPARED = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}


def number(request: Request, name: str = "id") -> int:
    """Return a numeric part of the path.

    Raises:
        UserError: it is not a number.
    """
    return _whole(name, request.path_params[name])


def whole(query: QueryParams, name: str, default: int = 0) -> int:
    """Return a whole number of a query; `default` where it is not given.

    Raises:
        UserError: it is not a number.
    """
    return _whole(name, text) if (text := query.get(name)) else default


def wholes(query: QueryParams, name: str) -> list[int]:
    """Return a query's whole numbers of one name.

    Raises:
        UserError: one is not a number.
    """
    return [_whole(name, value) for value in query.getlist(name)]


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= DIGITS):
        raise UserError(f"{name}: {text!r} is not a number")
    return int(text)


def ordered(
    items: Sequence[T], query: QueryParams, keys: Mapping[str, Callable[[T], Any]], default: str = "", name: str = "sortBy"
) -> list[T]:
    """Return items in the order that ``sortBy`` and ``orderBy`` of a query ask for.

    Args:
        keys: what each value of ``sortBy`` compares (without SORT_BY_); what it gives None for comes last, whichever way.
        default: by what they are sorted where the query does not say; empty for the order that they have.

    Raises:
        UserError: they cannot be sorted by that.
    """
    wanted = (query.get(name) or "").removeprefix("SORT_BY_").removeprefix("UNSPECIFIED") or default
    if wanted and wanted not in keys:
        raise UserError(f"{name}: SORT_BY_{wanted} is not offered; these are: {', '.join(f'SORT_BY_{key}' for key in keys)}")
    if not wanted:
        return list(items[::-1]) if descending(query) else list(items)
    return by_value(items, keys[wanted], downwards=descending(query))


def descending(query: QueryParams) -> bool:
    """Return whether a query asks for the largest first."""
    return query.get("orderBy") == "ORDER_BY_DESC"


def by_value(items: Sequence[T], key: Callable[[T], Any], *, downwards: bool) -> list[T]:
    """Return items sorted by what a key gives of each; those that it gives None for come last, whichever way."""
    valued = [(key(item), item) for item in items]
    known = sorted((pair for pair in valued if pair[0] is not None), key=lambda pair: pair[0], reverse=downwards)
    return [item for _, item in known] + [item for value, item in valued if value is None]


def page(items: Sequence[T], query: QueryParams, render: Callable[[T], Any], key: str) -> dict[str, Any]:
    """Return one page of a listing: `offset` and `limit` of the query; no limit means all.

    Raises:
        UserError: one of them is not a number.
    """
    offset, limit = max(0, whole(query, "offset")), whole(query, "limit")
    shown = items[offset : offset + limit] if limit > 0 else items[offset:]
    pagination = {"offset": offset, "limit": limit, "startIndex": offset, "endIndex": offset + len(shown), "total": len(items)}
    return {key: [render(item) for item in shown], "pagination": pagination}


def numbered(number: int, query: QueryParams, key: str) -> bool:
    """Say whether a number passes the filter ``KEY.lt=…``, ``.lte``, ``.gt``, ``.gte``, ``.incl`` and ``.notIn`` of a query.

    Raises:
        UserError: what it is compared with is not a number.
    """
    given = {name: wholes(query, f"{key}.{name}") for name in (*COMPARED, "incl", "notIn")}
    return (
        all(compare(number, bound) for name, compare in COMPARED.items() for bound in given[name])
        and (not given["incl"] or number in given["incl"])
        and number not in given["notIn"]
    )
