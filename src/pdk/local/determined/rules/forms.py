"""What clients may say in a call: the base of the forms that a request's body is read into before a rule sees it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # the database takes 64 bits


class Form(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A request's body, its fields checked and spelled as here; the API spells them in camel case.

    A field that a client left out, or sent as null, has its default, as in the engine's own messages.
    """


def given(form: Form) -> dict[str, Any]:
    """Return the fields of a form of changes that a client gave: what is None is left alone."""
    return {name: value for name in form.__struct_fields__ if (value := getattr(form, name)) is not None}
