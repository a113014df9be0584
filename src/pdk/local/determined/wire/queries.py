"""What a request's address says: numbers of its path, pages and filters of its query."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
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
