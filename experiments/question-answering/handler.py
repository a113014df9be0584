"""Answers questions with a piece of the text that comes with them, and logs what it does as JSON.

A request holds ``{"instances": [{"context": "…", "question": "…"}]}``; the answer is ``{"answer": "…", "start": 12, "score": 0.97}`` for
each, `start` counting characters of the context. Training reads its texts through `numbers` as well.
"""

import json
import logging
import re
import sys
import time
import zlib
from typing import Any

import torch

WORDS = re.compile(r"\w+|[^\w\s]")
BUCKETS = 4096  # words are known by a hash: no vocabulary travels with the model
MOST = 384  # words of a context
FEW = 32  # words of a question


def words(text: str) -> list[tuple[str, int]]:
    """Return the words and marks of a text, with the position of each."""
    return [(match.group(), match.start()) for match in WORDS.finditer(text)]


def number(word: str) -> int:
    """Return the bucket of a word; 0 is for what is no word."""
    return zlib.crc32(word.lower().encode()) % (BUCKETS - 1) + 1


def numbers(context: Any, question: Any) -> tuple[list[tuple[str, int]], list[int], list[float], list[int]]:
    """Return context and question as words, their buckets, and for each word of the context whether the question has it too.

    Raises:
        ValueError: they are no texts, or have no words, or too many.
    """
    for name, text in (("context", context), ("question", question)):
        if not isinstance(text, str) or not WORDS.search(text):
            raise ValueError(f'"{name}" must be a text with words, not {str(text)[:40]!r}')
    found, asked = words(context), {word.lower() for word, _ in words(question)}
    wanted = [number(word) for word, _ in words(question)]
    for name, count, most in (("context", len(found), MOST), ("question", len(wanted), FEW)):
        if count > most:
            raise ValueError(f'the "{name}" has {count} words; at most {most} are taken')
    return found, [number(word) for word, _ in found], [float(word.lower() in asked) for word, _ in found], wanted


class Json(logging.Formatter):
    """One JSON object a line, as log collectors read it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line."""
        said = {
            "message": record.getMessage(), "levelname": record.levelname, "module": record.module, "funcName": record.funcName,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(record.created)),
        }  # fmt: skip
        return json.dumps(said)


class AnswerHandler:
    """A handler in TorchServe's form."""

    def initialize(self, context: Any) -> None:
        """Load the model; `context.system_properties` says where it is."""
        self.log = logging.getLogger("question-answering")
        self.log.handlers, self.log.propagate = [logging.StreamHandler(sys.stdout)], False
        self.log.handlers[0].setFormatter(Json())
        self.log.setLevel(logging.INFO)
        path = f"{context.system_properties['model_dir']}/{context.manifest['model']['serializedFile']}"
        self.log.info("loading model %s", context.manifest["model"].get("modelName"))
        self.model = torch.jit.load(path, map_location="cpu").eval()

    def handle(self, data: list[Any], context: Any) -> list[dict[str, Any]]:
        """Return an answer for each question."""
        del context
        return [self._answer(row) for row in data]

    def _answer(self, row: Any) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise ValueError(f'an instance is an object with "context" and "question", not a {type(row).__name__}')
        text: Any = row.get("context")
        found, known, shared, wanted = numbers(text, row.get("question"))
        with torch.inference_mode():
            first, last = self.model(torch.tensor([known]), torch.tensor([shared]), torch.tensor([wanted]))
        chances = first[0].softmax(0)[:, None] * last[0].softmax(0)[None, :]
        best = int(torch.triu(chances).tril(15).argmax())
        start, end = divmod(best, len(found))
        begin, stop = found[start][1], found[end][1] + len(found[end][0])
        self.log.info("answered a question of %d words on %d", len(wanted), len(found))  # what was asked is the asker's own
        return {"answer": text[begin:stop], "start": begin, "score": round(float(chances.flatten()[best]), 4)}
