"""The deploy step: from a checkpoint to an archive, a model store and an InferenceService."""
