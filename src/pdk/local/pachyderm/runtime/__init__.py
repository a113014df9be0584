"""What takes time or lasts: processes, files, uploads, sweeps. What must be true at once it does in one transaction of `rules`."""
