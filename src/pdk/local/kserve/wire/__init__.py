"""Bytes and messages of clients to what `rules` and `runtime` take, and their answers back."""
