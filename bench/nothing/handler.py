"""Answers 1."""

import torch


class NothingHandler:
    def initialize(self, context):
        path = f"{context.system_properties['model_dir']}/{context.manifest['model']['serializedFile']}"
        self.model = torch.jit.load(path)

    def handle(self, data, context):
        self.model(torch.zeros(len(data), 1))
        return [1] * len(data)
