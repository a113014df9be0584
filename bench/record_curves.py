"""Record learning curves: ``python bench/record_curves.py`` writes tests/unit/local/curves.json, which simulations of searches play.

Each curve is the validation loss of a small network (numpy; two interleaved spirals) after 1, 3, 9, 27 and 81 epochs, for hyperparameters
drawn at random. Most of them learn little, some a lot, some diverge: what a search is for.
"""

import json
from pathlib import Path

import numpy as np

CONFIGS, LENGTHS, POINTS, BATCH = 400, (1, 3, 9, 27, 81), 512, 16
DIVERGED = 10.0  # a loss beyond this is recorded as this


def spirals(random, count):
    """Points on two spirals, and which one each is on."""
    kind = random.integers(0, 2, count)
    turn = np.sqrt(random.uniform(0.05, 1, count)) * 2.5 * np.pi
    angle = turn + kind * np.pi
    points = np.stack([turn * np.cos(angle), turn * np.sin(angle)], 1) / 8 + random.normal(0, 0.03, (count, 2))
    return points, kind[:, None].astype(float)


def loss_of(weights, points, kind):
    """The network's mean cross-entropy, and what it takes to go back through it."""
    one, bias, other, last = weights
    hidden = np.tanh(points @ one + bias)
    chance = 1 / (1 + np.exp(-np.clip(hidden @ other + last, -30, 30)))
    loss = -np.mean(kind * np.log(chance + 1e-9) + (1 - kind) * np.log(1 - chance + 1e-9))
    return loss, hidden, chance


def curve(random, train, valid, rate, momentum, width, scale):
    """Validation losses after each of `LENGTHS` epochs."""
    weights = [random.normal(0, scale, (2, width)), np.zeros(width), random.normal(0, scale / np.sqrt(width), (width, 1)), np.zeros(1)]
    speeds, found = [np.zeros_like(weight) for weight in weights], []
    for epoch in range(1, LENGTHS[-1] + 1):
        order = random.permutation(POINTS)
        for start in range(0, POINTS, BATCH):
            points, kind = (part[order[start : start + BATCH]] for part in train)
            _, hidden, chance = loss_of(weights, points, kind)
            back = (chance - kind) / BATCH
            inner = (back @ weights[2].T) * (1 - hidden**2)
            for place, gradient in enumerate((points.T @ inner, inner.sum(0), hidden.T @ back, back.sum(0))):
                speeds[place] = momentum * speeds[place] - rate * gradient
                weights[place] = weights[place] + speeds[place]
        if epoch in LENGTHS:
            found.append(round(float(min(np.nan_to_num(loss_of(weights, *valid)[0], nan=DIVERGED), DIVERGED)), 5))
    return found


def main():
    random = np.random.default_rng(1)
    train, valid = spirals(random, POINTS), spirals(random, POINTS)
    curves = []
    for _ in range(CONFIGS):
        rate, momentum = 10 ** random.uniform(-4, 0.5), random.uniform(0, 0.99)
        curves.append(curve(random, train, valid, rate, momentum, int(random.integers(2, 65)), random.uniform(0.5, 4)))
    target = Path(__file__).parent.parent / "tests" / "unit" / "local" / "curves.json"
    target.write_text(json.dumps({"lengths": LENGTHS, "losses": curves}) + "\n")


if __name__ == "__main__":
    main()
