"""Training: four convolutional blocks on pictures of 96 pixels, from scratch, on CPU or GPU."""

import math
from typing import Any

import pictures
import torch
from determined.pytorch import DataLoader, PyTorchTrial, PyTorchTrialContext
from handler import normalize
from torch import nn


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Return convolution, batch norm, activation and half the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    )


class Net(nn.Module):
    """Scores for dog and cat, of shape (N, 2), from normalized pictures of shape (N, 3, 96, 96)."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(block(3, 16), block(16, 32), block(32, 64), block(64, 128))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(128, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        return self.head(self.features(x))


def augment(x: torch.Tensor) -> torch.Tensor:
    """Mirror, shift and recolour each picture of a batch of uint8 at random."""
    flip = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    x = torch.where(flip, x.flip(3), x)
    pad = nn.functional.pad(x.float(), (8, 8, 8, 8), mode="reflect")
    left, top = torch.randint(0, 17, (2,)).tolist()
    x = pad[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    gain = 1 + 0.3 * (torch.rand(len(x), 3, 1, 1, device=x.device) - 0.5)
    return (x * gain).clamp(0, 255)


class DogCatTrial(PyTorchTrial):
    """Trains `Net`; with `data.pachyderm.previous_commit` set it goes on from the warm-start checkpoint on what changed."""

    def __init__(self, context: PyTorchTrialContext) -> None:
        """Make model and optimizer as the experiment's config says."""
        self.context = context
        self.source = context.get_data_config()["pachyderm"]
        self.incremental = bool(self.source.get("previous_commit"))
        self.rate = context.get_hparam("learning_rate") * (context.get_hparam("incremental_rate") if self.incremental else 1.0)
        self.model = context.wrap_model(Net(context.get_hparam("dropout")))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.rate, weight_decay=context.get_hparam("weight_decay"))
        self.optimizer = context.wrap_optimizer(optimizer)
        self.pictures: tuple[pictures.Pictures, pictures.Pictures] | None = None
        self.batches = 0

    def _pictures(self) -> tuple[pictures.Pictures, pictures.Pictures]:
        if self.pictures is None:
            self.pictures = pictures.load(self.source)
        return self.pictures

    def build_training_data_loader(self) -> DataLoader:
        """Return the batches that the model learns from."""
        rows = self._pictures()[0]
        size = min(self.context.get_per_slot_batch_size(), len(rows))
        epochs = self.context.get_experiment_config()["searcher"]["max_length"]["epochs"]
        self.batches = epochs * max(1, len(rows) // size)
        return DataLoader(rows, batch_size=size, shuffle=True, drop_last=True)

    def build_validation_data_loader(self) -> DataLoader:
        """Return the batches that it is judged by."""
        return DataLoader(self._pictures()[1], batch_size=128)

    def _set_rate(self, step: int) -> None:
        """Set the learning rate: a warm-up over a tenth of the run, then half a cosine down; counted in this run's own batches."""
        done = min(1.0, step / max(1, self.batches))
        factor = done / 0.1 if done < 0.1 else 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * max(factor, 0.01)

    def train_batch(self, batch: Any, epoch_idx: int, batch_idx: int) -> dict[str, torch.Tensor]:
        """Learn from one batch."""
        del epoch_idx
        x, y = batch
        self._set_rate(batch_idx)
        if self.incremental:  # a few pictures must not shift what the norms learned from many
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        scores = self.model(normalize(augment(x)))
        loss = nn.functional.cross_entropy(scores, y, label_smoothing=0.05)
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        return {"loss": loss}

    def evaluate_batch(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss and the share of right answers."""
        x, y = batch
        scores = self.model(normalize(x))
        right = (scores.argmax(dim=1) == y).float().mean()
        return {"validation_loss": nn.functional.cross_entropy(scores, y), "accuracy": right}
