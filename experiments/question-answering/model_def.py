"""A small extractive model, trained from scratch: where in the context does the answer begin, and where does it end."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from determined.pytorch import DataLoader, PyTorchTrial, PyTorchTrialContext
from handler import BUCKETS, numbers
from torch import nn

from pdk import data

Question = tuple[str, str, str, int]  # context, question, answer, where it begins
HELD_OUT = 8  # one question in so many validates


class Net(nn.Module):
    """Scores of the answer's first and last word, each of shape (N, words of the context).

    Takes contexts (N, W) and questions (N, Q) as buckets of words, 0 where there is none, and shared words (N, W) as 0 or 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(BUCKETS, width, padding_idx=0)
        self.read = nn.Conv1d(width, width, 3, padding=1)
        self.enter = nn.Conv1d(2 * width + 1, width, 1)
        self.layers = nn.ModuleList([nn.Conv1d(width, width, 3, padding=reach, dilation=reach) for reach in (1, 2, 4, 8)])
        self.ends = nn.Conv1d(width, 2, 1)

    def forward(self, context: torch.Tensor, shared: torch.Tensor, question: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores."""
        asked = torch.relu(self.read(self.embed(question).transpose(1, 2)))
        asked = asked.masked_fill((question == 0).unsqueeze(1), 0.0).max(dim=2).values
        words = self.embed(context).transpose(1, 2)
        rows = self.enter(torch.cat([words, shared.unsqueeze(1), asked.unsqueeze(2).expand(-1, -1, context.shape[1])], dim=1))
        for layer in self.layers:  # each sees twice as far: together 15 words to both sides
            rows = rows + torch.relu(layer(rows))
        scores = self.ends(rows).masked_fill((context == 0).unsqueeze(1), -1e4)
        return scores[:, 0], scores[:, 1]


def texts(source: dict[str, Any]) -> list[Question]:
    """Return every question of the commit's files, which have SQuAD's form: context, question, answer and where it begins.

    Raises:
        ValueError: there is none, or a file is not of that form.
    """
    found: list[Question] = []
    for file, text in data.texts(source, [".json"]):
        try:
            found += list(questions(json.loads(text)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file.path} is not of SQuAD's form: {type(error).__name__}: {error}") from error
    if len(found) < 2 * HELD_OUT:
        raise ValueError(f"commit {source['branch']} of {source['project']}/{source['repo']} holds {len(found)} questions; too few")
    print(f"questions: {len(found)}", flush=True)
    return found


def questions(body: dict[str, Any]) -> Iterator[Question]:
    """Give the questions of a file in SQuAD's form."""
    for article in body["data"]:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                answer = entry["answers"][0]
                yield paragraph["context"], entry["question"], answer["text"], int(answer["answer_start"])


def example(context: str, question: str, answer: str, begin: int) -> tuple[list[int], list[float], list[int], int, int]:
    """Return one question as numbers, with the words at which its answer begins and ends."""
    found, known, shared, wanted = numbers(context, question)
    inside = [index for index, (_, at) in enumerate(found) if begin <= at < begin + len(answer)]
    if not inside:
        raise ValueError(f"the answer {answer!r} is not at {begin} of its context")
    return known, shared, wanted, inside[0], inside[-1]


def together(rows: list[Any]) -> tuple[torch.Tensor, ...]:
    """Make a batch: lists of different lengths, filled up with zeros."""
    known, shared, wanted, first, last = zip(*rows, strict=True)
    pad = nn.utils.rnn.pad_sequence
    filled = [pad([torch.tensor(row) for row in part], batch_first=True) for part in (known, shared, wanted)]
    return (*filled, torch.tensor(first), torch.tensor(last))


class AnswerTrial(PyTorchTrial):
    """Trains `Net`."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        """Make model and optimizer as the experiment's config says."""
        self.context = context
        self.model = context.wrap_model(Net(context.get_hparam("width")))
        self.optimizer = context.wrap_optimizer(torch.optim.Adam(self.model.parameters(), lr=context.get_hparam("learning_rate")))
        self.rows: list[list[Any]] = []

    def _split(self) -> list[list[Any]]:
        if not self.rows:
            every = [example(*row) for row in texts(self.context.get_data_config()["pachyderm"])]
            self.rows = [[row for index, row in enumerate(every) if (index % HELD_OUT == 0) == held] for held in (False, True)]
        return self.rows

    def build_training_data_loader(self) -> DataLoader:
        """Return the batches that the model learns from."""
        return DataLoader(self._split()[0], batch_size=self.context.get_per_slot_batch_size(), shuffle=True, collate_fn=together)

    def build_validation_data_loader(self) -> DataLoader:
        """Return the batches that it is judged by."""
        return DataLoader(self._split()[1], batch_size=128, collate_fn=together)

    def _loss(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        known, shared, wanted, first, last = batch
        begins, ends = self.model(known, shared, wanted)
        loss = nn.functional.cross_entropy(begins, first) + nn.functional.cross_entropy(ends, last)
        right = (begins.argmax(1) == first) & (ends.argmax(1) == last)
        return loss, right.float().mean()

    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> dict[str, torch.Tensor]:
        """Learn from one batch."""
        del epoch_idx, batch_idx
        loss, _ = self._loss(batch)
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer, clip_grads=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1.0))
        return {"loss": loss}

    def evaluate_batch(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss and the share of right answers."""
        loss, right = self._loss(batch)
        return {"validation_loss": loss, "exact": right}
