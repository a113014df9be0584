"""The local Determined server: experiments as processes, their checkpoints, and the model registry."""
