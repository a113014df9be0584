"""Turns requests into predictions: travels with the experiment into the archive.

A request holds ``{"instances": [{"data": "<base64 of a picture>"}]}``; the answer is 1 for a cat and 0 for a dog. Training reads its
pictures through `pixels` as well, so that it sees exactly what the endpoint will see.
"""

import base64
import binascii
import io
from typing import Any

import numpy as np
import torch
from PIL import Image

SIDE = 96  # pixels
MEAN, SPREAD = 0.45, 0.27  # of natural pictures, on a scale of 0 to 1
MAX_PIXELS = 50_000_000  # larger pictures are refused before they are decoded


def pixels(raw: bytes) -> np.ndarray:
    """Return a picture's bytes as uint8 of shape (3, SIDE, SIDE): short side scaled to SIDE, the middle cut out.

    Raises:
        ValueError: the bytes are not a picture, or one of absurd size.
    """
    try:
        with Image.open(io.BytesIO(raw)) as file:
            if file.width * file.height > MAX_PIXELS or min(file.size) < 1:
                raise ValueError(f"the picture has {file.width}x{file.height} pixels; at most {MAX_PIXELS:,} are taken")
            file.draft("RGB", (2 * SIDE, 2 * SIDE))  # JPEG only: decode no more than is needed
            image = file.convert("RGB")
            scale = SIDE / min(image.size)
            width, height = max(SIDE, round(image.width * scale)), max(SIDE, round(image.height * scale))
            image = image.resize((width, height), Image.Resampling.BILINEAR)
            left, top = (width - SIDE) // 2, (height - SIDE) // 2
            image = image.crop((left, top, left + SIDE, top + SIDE))
            return np.asarray(image).transpose(2, 0, 1).copy()
    except Exception as error:  # decoders raise whatever they like on broken data
        raise ValueError(f"the data is not a picture that can be read: {error}") from error


def normalize(batch: torch.Tensor) -> torch.Tensor:
    """Turn uint8 of shape (N, 3, SIDE, SIDE) into the floats that the model takes."""
    return batch.float().div_(255.0).sub_(MEAN).div_(SPREAD)


class DogCatHandler:
    """A handler in TorchServe's form."""

    def initialize(self, context: Any) -> None:
        """Load the model; `context.system_properties` says where it is."""
        properties, manifest = context.system_properties, context.manifest
        path = f"{properties['model_dir']}/{manifest['model']['serializedFile']}"
        self.model = torch.jit.load(path, map_location="cpu").eval()

    def handle(self, data: list[Any], context: Any) -> list[int]:
        """Return a prediction for each request."""
        del context
        batch = [self._picture(row) for row in data]
        with torch.inference_mode():
            scores = self.model(normalize(torch.from_numpy(np.stack(batch))))
        return scores.argmax(dim=1).tolist()

    def _picture(self, row: Any) -> np.ndarray:
        value = row.get("data") if isinstance(row, dict) else None
        if value is None:
            raise ValueError('an instance must be an object with the key "data" that holds a picture in base64')
        if isinstance(value, str):
            try:
                value = base64.b64decode(value, validate=True)
            except binascii.Error as error:
                raise ValueError(f'"data" is not base64: {error}') from error
        if not isinstance(value, bytes | bytearray):
            raise ValueError(f'"data" must hold a picture in base64, not a {type(value).__name__}')
        return pixels(bytes(value))
