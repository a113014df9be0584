"""What is durable, and how it lies on disk."""
