"""Where a model comes from, from the registry to the headers of an answer."""

from hypothesis import given
from hypothesis import strategies as st

from pdk.provenance import Code, ConfigFile, Data, JobRef, ParentVersion, Provenance

WORDS = st.text(max_size=8)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=8
)
PROVENANCES = st.builds(
    Provenance,
    data=st.none() | st.builds(Data, WORDS, WORDS, WORDS, WORDS),
    code=st.none() | st.builds(Code, WORDS, WORDS, WORDS),
    config=st.none() | st.builds(ConfigFile, WORDS, WORDS),
    experiment=st.none() | st.integers(),
    job=st.none() | st.builds(JobRef, WORDS, WORDS, WORDS),
    mode=WORDS,
    parent=st.none() | st.builds(ParentVersion, WORDS, WORDS),
    metrics=st.dictionaries(WORDS, st.floats(allow_nan=False)),
    reused=WORDS,
)


@given(PROVENANCES)
def test_what_is_written_is_read_back(provenance):
    assert Provenance.from_json(provenance.to_json()) == provenance


@given(ANY | st.fixed_dictionaries({}, optional=dict.fromkeys(("data", "code", "config", "experiment", "job", "metrics", "parent"), ANY)))
def test_what_anybody_wrote_is_read(content):
    found = Provenance.from_json(content)
    assert Provenance.from_json(found.to_json()) == found
    assert all(isinstance(value, str) and value for value in found.headers().values())


def test_its_form_is_that_of_earlier_versions():
    """An archive is found again by the digest of its origin: the same keys, whatever they are."""
    written = {
        "data": {"project": "p", "repo": "r", "commit": "c", "content": "h"},
        "code": {"url": "u", "sha": "s", "folder": ""},
        "config": {"file": "f", "hash": "h"},
        "experiment": 3,
        "job": {"project": "p", "pipeline": "l", "id": "i"},
        "mode": "full",
        "parent": None,
        "metrics": {"validation_loss": 0.5},
    }
    found = Provenance.from_json(written)
    assert found.to_json() == written
    assert found.origin() == {key: written[key] for key in ("data", "code", "config")}
    assert Provenance().origin() == {"data": None, "code": None, "config": None}
    assert found.headers() == {"pdk-data-repo": "r", "pdk-data-commit": "c", "pdk-code-sha": "s"}
