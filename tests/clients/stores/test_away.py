"""Model stores that are away: an error that the deploy step waits for."""

from pathlib import Path

import pytest

from pdk.errors import TemporaryError
from pdk.kit.web import free_ports
from pdk.local.kserve.runtime.storage import S3Access, fetch
from pdk.stores import bucket_of


@pytest.fixture
def nobody(monkeypatch):
    """An address at which nobody answers."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    address = f"http://127.0.0.1:{free_ports('127.0.0.1', 1)[0]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    return address


def test_a_bucket(nobody):
    for call in (
        lambda store: store.find(model="m", digest="d" * 64),
        lambda store: store.put(model="m", files={"model-store/m.mar": Path(__file__)}, digest="d" * 64),
        lambda store: store.check(),
    ):
        with pytest.raises(TemporaryError, match="does not answer"):
            call(bucket_of("aws", "bucket"))


def test_what_a_predictor_reads(nobody, tmp_path):
    with pytest.raises(TemporaryError, match="cannot be read"):
        fetch("s3://bucket/m", tmp_path / "cache", S3Access(endpoint=nobody))
