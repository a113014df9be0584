"""Makes tensors of the pictures of a data commit: all of them, or those that changed since another commit."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from handler import pixels

from pdk import data

CAT, DOG = 1, 0
WORD = re.compile(r"(?:^|[^a-z])(cat|dog)s?(?=[^a-z]|$)")
HELD_OUT = 7  # one picture in so many validates


def label_of(path: str) -> int | None:
    """Return 1 for a cat, 0 for a dog, from the file's own name or else the folder it lies in; None where neither tells."""
    for name in path.strip("/").split("/")[::-1][:2]:
        found = set(WORD.findall(name.lower()))
        if len(found) == 1:
            return CAT if found == {"cat"} else DOG
    return None


class Pictures:
    """The labelled pictures of a run, in memory: `x` uint8 of shape (N, 3, SIDE, SIDE), `y` of shape (N,)."""

    def __init__(self, rows: Sequence[tuple[np.ndarray, int]]) -> None:
        self.x, self.y = torch.from_numpy(np.stack([x for x, _ in rows])), torch.tensor([y for _, y in rows])

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index]


def load(source: dict[str, Any]) -> tuple[Pictures, Pictures]:
    """Return training and validation pictures.

    Raises:
        ValueError: the commit holds no picture of a cat or dog.
    """
    found, rows, unlabelled, broken = data.pictures(source), [], 0, []
    for file in sorted(found, key=lambda file: (file.hash, file.path)):
        if (label := label_of(file.path)) is None:
            unlabelled += 1
            continue
        try:
            rows.append((pixels(file.read()), label))
        except ValueError as error:
            broken.append(f"{file.path}: {error}")
    others = len(data.paths(source)) - len(found)
    counts = f"{others} files are no pictures, {unlabelled} say neither cat nor dog, {len(broken)} cannot be read"
    print(f"pictures: {len(rows)} used, {counts}", *broken[:10], sep="\n  ", flush=True)
    if not rows:
        what = f"changed since {source['previous_commit']}" if source.get("previous_commit") else "in it"
        raise ValueError(
            f"commit {source['branch']} of {source['project']}/{source['repo']} has no readable picture of a cat or dog {what}; "
            "name files (or the folder they are in) cat… or dog…"
        )
    held = [row for index, row in enumerate(rows) if index % HELD_OUT == 0]
    rest = [row for index, row in enumerate(rows) if index % HELD_OUT]
    return Pictures(rest or held), Pictures(held)
