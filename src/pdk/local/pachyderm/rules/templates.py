"""Pipeline specs from jsonnet templates."""

from __future__ import annotations

import json
from typing import Any

import _jsonnet

from pdk.local.pachyderm.rules.model import Refused


def _no_imports(_folder: str, name: str) -> tuple[str, bytes]:
    raise RuntimeError(f"import of {name!r}: a template cannot read files of the server; put everything into one file")


def render(template: str, arguments: dict[str, str]) -> tuple[str, list[dict[str, Any]]]:
    """Evaluate a template whose top level is a function of `arguments`.

    Returns:
        The JSON text, and the specs in it: one object, or a list of them.

    Raises:
        Refused: the template is wrong.
    """
    try:
        text = _jsonnet.evaluate_snippet("template.jsonnet", template, tla_vars=arguments, import_callback=_no_imports)
    except RuntimeError as error:
        raise Refused(f"template err: {str(error).strip()}") from error
    content = json.loads(text)
    specs = content if isinstance(content, list) else [content]
    if not all(isinstance(spec, dict) for spec in specs):
        raise Refused(f"not a json object or list: {text.strip()[:80]}")
    return text, specs
