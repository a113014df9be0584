"""The inference gateway: the data plane, routing by Host."""
