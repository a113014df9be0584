"""An experiment that learns nothing: what a flow costs beside training."""

import torch
from determined.pytorch import DataLoader, PyTorchTrial


class NothingTrial(PyTorchTrial):
    """One batch of one number, from which nothing is learned."""

    def __init__(self, context):
        self.context = context
        self.model = context.wrap_model(torch.nn.Linear(1, 1))
        self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=0.0))

    def build_training_data_loader(self):
        return DataLoader([torch.zeros(1)], batch_size=1)

    def build_validation_data_loader(self):
        return DataLoader([torch.zeros(1)], batch_size=1)

    def train_batch(self, batch, epoch_idx, batch_idx):
        return {"loss": 0.0}

    def evaluate_batch(self, batch):
        return {"loss": 0.0}
