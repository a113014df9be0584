"""What of an experiment's saved config leaves with its checkpoint."""

from pdk.engines.determined.connection import without_secrets


def test_credentials_go_and_hyperparameters_stay():
    saved = {
        "hparams": {"tokenizer": "bert", "pad_token": "<pad>"},
        "experiment_config": {
            "hyperparameters": {"token": {"type": "const", "val": "x"}},
            "data": {"pachyderm": {"token": "t", "repo": "pets", "tokenizer": "kept"}},
            "checkpoint_storage": {"access_key": "a", "secret_key": "s", "bucket": "b"},
            "environment": {"environment_variables": ["AWS_SECRET_ACCESS_KEY=s", "LEVEL=3"]},
        },
    }
    assert without_secrets(saved) == {
        "hparams": saved["hparams"],
        "experiment_config": {
            "hyperparameters": saved["experiment_config"]["hyperparameters"],
            "data": {"pachyderm": {"token": "", "repo": "pets", "tokenizer": "kept"}},
            "checkpoint_storage": {"access_key": "", "secret_key": "", "bucket": "b"},
            "environment": {"environment_variables": ["AWS_SECRET_ACCESS_KEY=", "LEVEL=3"]},
        },
    }
