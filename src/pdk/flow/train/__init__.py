"""The train step: from a data commit to a registered model version and a checkpoint in /pfs/out."""
