"""YAML and JSON of others: read as the engines read them, and bounded; what is written is read back."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdk.documents import DEPTH, Unreadable, read_all_yaml, read_json, read_yaml, write_yaml

# what ghodss/yaml, the engines' reader, made of each: compared one by one
SCALARS = {
    "1e-4": 0.0001, "5e-05": 5e-05, "1.0e4": 1e4, "1E-8": 1e-8, "1e3": 1000, "1E+3": 1000, ".5": 0.5, "5.": 5.0, "-.5e1": -5.0,
    "0o17": 15, "017": 15, "08": 8, "0x0f": 15, "0b11": 3, "1_000": 1000, "-12": -12, "+12": 12, "18446744073709551615": 2**64 - 1,
    "18446744073709551616": 2.0**64, "9:30": "9:30", "190:20:30": "190:20:30", "2026-01-31": "2026-01-31",
    "2026-01-31T10:00:00Z": "2026-01-31T10:00:00Z", "y": True, "n": False, "Y": True, "N": False, "yes": True, "off": False, "~": None,
    "null": None, "": None, "=": "=", "<<": "<<", "1.0.0": "1.0.0", "1.2e": "1.2e", "0x": "0x", "+": "+", "._": "._",
    "'1e-4'": "1e-4", "!!str 12": "12", "!custom 12": 12, "!!binary aGFsbG8=": "hallo",
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_is_what_the_engines_take_it_for(text):
    read, wanted = read_yaml(f"- {text}")[0], SCALARS[text]
    assert read == wanted
    assert isinstance(read, bool | str) == isinstance(wanted, bool | str)  # 1 and true are equal to Python


def test_keys_become_texts_and_merges_are_carried_out():
    assert read_yaml("1: a\ntrue: b\n1.5: c\n") == {"1": "a", "true": "b", "1.5": "c"}
    assert read_yaml("x: &x {a: 1, b: 1}\nv: {<<: *x, b: 2}\nz: {b: 3, <<: [*x, {c: 4}]}") == {
        "x": {"a": 1, "b": 1}, "v": {"a": 1, "b": 2}, "z": {"a": 1, "b": 3, "c": 4},
    }  # fmt: skip
    assert read_yaml("") is None
    assert read_all_yaml("a: 1\n---\n---\nb: 2\n") == [{"a": 1}, None, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: .inf", "line 1: .inf is no value of JSON"),
        ("a:\n  b: .NaN", "line 2: .NaN is no value of JSON"),
        ("a: 1e999", "is no value of JSON"),
        ("a: &a [*a]", "the anchor &a is not defined before"),
        ("a: *b", "the anchor &b is not defined before"),
        ("? [1]\n: 2", "cannot be the key of a mapping"),
        ("~: 1", "cannot be the key of a mapping"),
        ("{a", "it is not YAML"),
        ("a: 1\n---\nb: 2", "it holds 2 YAML documents"),
        ("{<<: 1}", "<< takes a mapping"),
        ("a: !!binary '%'", "holds no text in base64"),
        ("[" * 100_000, f"more than {DEPTH} levels"),
        ("\n".join(f"{' ' * level}a:" for level in range(2 * DEPTH)), f"more than {DEPTH} levels"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_line(text, said):
    with pytest.raises(Unreadable, match=re.escape(said)):
        read_yaml(text)


def test_a_few_hundred_bytes_of_aliases_do_not_become_gigabytes():
    levels = ["a0: &a0 [" + ", ".join(["xxxxxxxxxx"] * 10) + "]"]
    levels += [f"a{level}: &a{level} [" + ", ".join([f"*a{level - 1}"] * 10) + "]" for level in range(1, 12)]
    began = time.monotonic()
    with pytest.raises(Unreadable, match="its aliases stand for more than"):
        read_yaml("\n".join(levels))
    assert time.monotonic() - began < 0.5
    assert read_yaml("\n".join(levels[:3]))["a2"][9][9][9] == "xxxxxxxxxx"  # what somebody writes by hand is read


def test_json_is_bounded_and_strict():
    assert read_json(b'{"a": [1, null]}') == {"a": [1, None]}
    assert read_json("[" * 150 + "]" * 150)
    for raw, said in (
        (b"[" * 100_000, "levels"),
        ("[" * 250 + "]" * 250, "levels"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b"\xff", "not JSON"),
    ):
        with pytest.raises(Unreadable, match=said):
            read_json(raw)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(sorted(SCALARS))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_back(value):
    assert read_yaml(write_yaml(value)) == value
