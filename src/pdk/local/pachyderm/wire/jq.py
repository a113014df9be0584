"""Apply a jq filter, away from the server: ``python -m pdk.local.pachyderm.wire.jq``; see `filters`.

Reads the filter, as JSON, from the first line of standard input, then a document from each further line. Writes one JSON value: for each
document whether the filter's first result is neither null nor false, or an error's text.
"""

import json
import sys
from collections.abc import Iterator
from typing import TextIO

import jq


def verdicts(lines: Iterator[str]) -> list[bool]:
    """For each document whether it passes.

    Raises:
        ValueError: the filter is none, or fails on a document.
    """
    program = jq.compile(json.loads(next(lines)))
    return [next(iter(program.input_text(line)), None) not in (None, False) for line in lines]


def main(source: TextIO, target: TextIO) -> None:
    """Answer."""
    try:
        json.dump(verdicts(iter(source)), target)
    except ValueError as error:
        json.dump(str(error), target)


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
