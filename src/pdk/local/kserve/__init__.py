"""The local Kubernetes API with KServe's kinds: objects in one table, InferenceServices as processes."""
