"""Draws the sample pictures: cat-like and dog-like faces, none of them a photograph.

``python sample-data/draw.py`` writes every file below sample-data anew; the same seed gives the same pictures.

What differs: cats have pointed ears, slit eyes and whiskers, dogs have hanging ears, round eyes and a muzzle with a tongue. What
varies in both alike: colours, size, place, tilt, background, noise.
"""

import base64
import io
import json
import math
import random
import shutil
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

HERE = Path(__file__).parent
SEED = 20261121
SIDE = 128  # pixels of a finished picture
SCALE = 3  # drawn larger and then reduced, for smooth edges
SETS = {  # folder → pictures of each kind
    "dogs-and-cats": 120,
    "more-dogs-and-cats": 12,
    "held-out": 20,
}


def colour(chance, low=40, high=235):
    """Any colour within bounds."""
    return tuple(chance.randint(low, high) for _ in range(3))


def fur(chance):
    """A colour of fur: grey, brown, ginger or nearly white."""
    base = chance.choice([(120, 120, 125), (140, 100, 65), (205, 140, 75), (225, 215, 200), (75, 65, 60)])
    return tuple(max(0, min(255, part + chance.randint(-25, 25))) for part in base)


def shade(base, factor):
    """A lighter or darker tone."""
    return tuple(max(0, min(255, round(part * factor))) for part in base)


def background(chance, size):
    """A gradient with a few shapes on it."""
    top, bottom = colour(chance), colour(chance)
    image = Image.new("RGB", (1, 64))
    for row in range(64):
        image.putpixel((0, row), tuple(round(a + (b - a) * row / 63) for a, b in zip(top, bottom)))
    image = image.resize((size, size))
    draw = ImageDraw.Draw(image)
    for _ in range(chance.randint(2, 7)):
        x, y = chance.randint(0, size), chance.randint(0, size)
        w, h = chance.randint(size // 12, size // 3), chance.randint(size // 12, size // 3)
        shape = chance.choice([draw.ellipse, draw.rectangle])
        shape((x - w, y - h, x + w, y + h), fill=colour(chance))
    return image.filter(ImageFilter.GaussianBlur(chance.uniform(0, size / 60)))


class Face:
    """One face, drawn in units of its own radius around its middle."""

    def __init__(self, chance, draw, size):
        self.chance, self.draw = chance, draw
        self.radius = size * chance.uniform(0.2, 0.3)
        self.x = size * chance.uniform(0.38, 0.62)
        self.y = size * chance.uniform(0.42, 0.62)
        self.tilt = math.radians(chance.uniform(-25, 25))
        self.fur = fur(chance)

    def at(self, x, y):
        """From the face's units to pixels."""
        turned = x * math.cos(self.tilt) - y * math.sin(self.tilt), x * math.sin(self.tilt) + y * math.cos(self.tilt)
        return self.x + turned[0] * self.radius, self.y + turned[1] * self.radius

    def polygon(self, points, fill):
        self.draw.polygon([self.at(*point) for point in points], fill=fill)

    def oval(self, x, y, width, height, fill):
        """An ellipse that tilts with the face."""
        steps = [math.tau * step / 40 for step in range(40)]
        self.polygon([(x + width * math.cos(step), y + height * math.sin(step)) for step in steps], fill)

    def line(self, points, width, fill):
        self.draw.line([self.at(*point) for point in points], fill=fill, width=max(1, round(width * self.radius)))

    def cat(self):
        """Pointed ears, slit eyes, a small nose, whiskers."""
        inner, spread = shade(self.fur, 0.7), self.chance.uniform(0.85, 1.0)
        for side in (-1, 1):
            tip = self.chance.uniform(1.35, 1.65)
            self.polygon([(side * spread, -0.3), (side * 0.8, -tip), (side * 0.15, -0.85)], self.fur)
            self.polygon([(side * 0.8, -0.5), (side * 0.75, -tip + 0.25), (side * 0.35, -0.85)], inner)
        self.oval(0, 0, 1.0, self.chance.uniform(0.82, 0.95), self.fur)
        eyes = self.chance.choice([(150, 190, 60), (220, 180, 50), (90, 170, 190)])
        for side in (-1, 1):
            self.oval(side * 0.42, -0.15, 0.2, 0.16, eyes)
            self.oval(side * 0.42, -0.15, 0.05, 0.15, (15, 15, 15))
            for lift in (-0.12, 0.0, 0.12):
                self.line([(side * 0.2, 0.32 + lift / 2), (side * 1.25, 0.28 + 2 * lift)], 0.035, (245, 245, 245))
        self.polygon([(-0.1, 0.2), (0.1, 0.2), (0, 0.32)], (215, 120, 130))
        self.line([(0, 0.32), (0, 0.45)], 0.04, (60, 40, 40))
        self.line([(-0.2, 0.52), (0, 0.45), (0.2, 0.52)], 0.04, (60, 40, 40))

    def dog(self):
        """Hanging ears, round eyes, a muzzle with a large nose, often a tongue."""
        ears = shade(self.fur, self.chance.uniform(0.5, 0.8))
        self.oval(0, 0, self.chance.uniform(0.85, 0.98), 1.0, self.fur)
        for side in (-1, 1):
            drop = self.chance.uniform(0.2, 0.45)
            self.oval(side * self.chance.uniform(0.9, 1.0), drop, 0.3, self.chance.uniform(0.65, 0.85), ears)
        muzzle = shade(self.fur, 1.25)
        self.oval(0, 0.48, 0.5, 0.42, muzzle)
        if self.chance.random() < 0.7:
            self.oval(0, 0.95, 0.17, 0.3, (220, 95, 110))
        self.oval(0, 0.27, 0.22, 0.15, (25, 22, 22))
        self.line([(0, 0.4), (0, 0.65)], 0.05, (40, 30, 30))
        for side in (-1, 1):
            self.oval(side * 0.38, -0.2, 0.14, 0.15, (45, 30, 20))
            self.oval(side * 0.35, -0.25, 0.04, 0.04, (250, 250, 250))


def picture(kind, chance):
    """One picture of a `kind` (``cat`` or ``dog``)."""
    size = SIDE * SCALE
    image = background(chance, size)
    face = Face(chance, ImageDraw.Draw(image), size)
    getattr(face, kind)()
    image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    grain = Image.frombytes("RGB", image.size, chance.randbytes(SIDE * SIDE * 3))
    image = Image.blend(image, ImageChops.multiply(image, grain), chance.uniform(0.0, 0.25))
    return image.filter(ImageFilter.GaussianBlur(chance.uniform(0, 0.8)))


def encoded(image):
    """The picture as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def main():
    """Write everything."""
    chance = random.Random(SEED)
    for folder, count in SETS.items():
        shutil.rmtree(HERE / folder, ignore_errors=True)
        for kind in ("cat", "dog"):
            target = HERE / folder / f"{kind}s"
            target.mkdir(parents=True)
            for number in range(1, count + 1):
                (target / f"{kind}.{number}.jpg").write_bytes(encoded(picture(kind, chance)))
    (HERE / "requests").mkdir(exist_ok=True)
    for kind in ("cat", "dog"):
        body = {"instances": [{"data": base64.b64encode(encoded(picture(kind, chance))).decode()}]}
        (HERE / "requests" / f"{kind}.json").write_text(json.dumps(body) + "\n")


if __name__ == "__main__":
    main()
