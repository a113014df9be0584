"""The three engines, as the flow sees them: the only modules of train, deploy and cli that import an engine's SDK."""
