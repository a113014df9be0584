"""Paths and globs."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pdk.errors import PdkError, UserError
from pdk.local.pachyderm.service.files import compile_glob
from pdk.local.pachyderm.service.model import clean_path


@pytest.mark.parametrize(("given_", "cleaned"), [("a", "/a"), ("//a///b/", "/a/b"), ("/./a/.", "/a"), ("", "/"), ("/", "/")])
def test_clean_path(given_, cleaned):
    assert clean_path(given_) == cleaned


@pytest.mark.parametrize("path", ["../a", "/a/../b", "a\0b", "a\\b", "a\nb", "x" * 300, "/".join(["ab"] * 2000)])
def test_paths_that_are_refused(path):
    with pytest.raises(UserError):
        clean_path(path)


@given(st.text())
def test_a_cleaned_path_is_clean(text):
    try:
        cleaned = clean_path(text)
    except PdkError:
        return
    assert cleaned.startswith("/")
    assert ".." not in cleaned.split("/")
    assert clean_path(cleaned) == cleaned


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/*", "/a", True), ("/*", "/a/b", False), ("/**", "/a/b", True), ("/*.jpg", "/a.jpg", True), ("/a?", "/ab", True),
        ("/[ab]", "/b", True), ("/[!ab]", "/b", False), ("/{a,bc}/d", "/bc/d", True), ("/@(a|b)", "/b", True), ("/(*)-x", "/q-x", True),
        ("/a.b", "/axb", False), ("/[a-c]", "/b", True), ("/[^a-c]", "/b", False), ("/[a&&b]", "/&", True),
    ],
)  # fmt: skip
def test_globs(pattern, path, matches):
    assert bool(compile_glob(pattern).fullmatch(path)) is matches


@example("[!]")
@example("[")
@example("[z-a]")
@example("[[:a:]]")
@given(st.text(alphabet="ab*?[]{}()@/.,|!^"))
def test_any_pattern_compiles_or_is_refused(pattern):
    try:
        compile_glob(pattern)
    except UserError:
        return
