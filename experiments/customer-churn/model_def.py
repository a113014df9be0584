"""Your own model in three files: this one trains it, handler.py answers with it, const.yaml configures the experiment."""

from typing import Any

import torch
from determined.pytorch import DataLoader, PyTorchTrial, PyTorchTrialContext
from handler import WIDTH, features
from torch import nn

from pdk import data

HELD_OUT = 5  # one customer in so many validates


class Net(nn.Module):
    """The logit of leaving, of shape (N,), from customers of shape (N, WIDTH); the scale of each column is learned from the data."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("spread", torch.ones(WIDTH))
        self.layers = nn.Sequential(nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.layers((x - self.mean) / self.spread).squeeze(1)


def customers(source: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the customers of all tables of the commit, and whether each has left.

    Raises:
        ValueError: there are too few, or a row cannot be used; with file and line.
    """
    x, y = [], []
    for row in data.rows(source):
        try:
            x.append(features(row.values))
            y.append(float(row.values["churned"] == "1"))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{row}: {error}") from error
    if len(x) < 2 * HELD_OUT:
        raise ValueError(
            f"commit {source['branch']} of {source['project']}/{source['repo']} holds {len(x)} customers in .csv files; too few"
        )
    print(f"customers: {len(x)}, of which {int(sum(y))} left", flush=True)
    return torch.tensor(x), torch.tensor(y)


class ChurnTrial(PyTorchTrial):
    """Trains `Net`."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        """Make model and optimizer as the experiment's config says."""
        self.context = context
        self.model = context.wrap_model(Net(context.get_hparam("hidden")))
        self.optimizer = context.wrap_optimizer(torch.optim.Adam(self.model.parameters(), lr=context.get_hparam("learning_rate")))
        self.rows: list[Any] = []

    def _split(self) -> list[Any]:
        if not self.rows:
            x, y = customers(self.context.get_data_config()["pachyderm"])
            held = torch.arange(len(x)) % HELD_OUT == 0
            self.model.mean.copy_(x[~held].mean(0))
            self.model.spread.copy_(x[~held].std(0).clamp(min=1e-3))
            self.rows = [list(zip(x[part], y[part], strict=True)) for part in (~held, held)]
        return self.rows

    def build_training_data_loader(self) -> DataLoader:
        """Return the batches that the model learns from."""
        return DataLoader(self._split()[0], batch_size=self.context.get_per_slot_batch_size(), shuffle=True)

    def build_validation_data_loader(self) -> DataLoader:
        """Return the batches that it is judged by."""
        return DataLoader(self._split()[1], batch_size=256)

    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> dict[str, torch.Tensor]:
        """Learn from one batch."""
        del epoch_idx, batch_idx
        x, y = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(x), y)
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        return {"loss": loss}

    def evaluate_batch(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss and the share of right answers."""
        x, y = batch
        logits = self.model(x)
        right = ((logits > 0) == (y > 0.5)).float().mean()
        return {"validation_loss": nn.functional.binary_cross_entropy_with_logits(logits, y), "accuracy": right}
