"""The programs that run in jobs, on any engines: `train` makes a model version of a data commit, `deploy` an endpoint of that version."""
