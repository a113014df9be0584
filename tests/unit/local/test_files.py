"""Paths and globs."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pdk.errors import PdkError, UserError
from pdk.local.pachyderm.rules.globs import _Translator, compile_glob, replace
from pdk.local.pachyderm.rules.model import check_path, clean_path


@pytest.mark.parametrize(("given_", "cleaned"), [("a", "/a"), ("//a///b/", "/a/b"), ("/./a/.", "/a"), ("", "/"), ("/", "/")])
def test_clean_path(given_, cleaned):
    assert clean_path(given_) == cleaned


@pytest.mark.parametrize("path", ["../a", "/a/../b", "a\0b", "a\\b", "a\nb", "", "é", "a*b", "x" * 300, "/".join(["ab"] * 2000)])
def test_paths_that_are_refused(path):
    with pytest.raises(UserError):
        check_path(path)


@given(st.text())
def test_a_cleaned_path_is_clean(text):
    try:
        cleaned = check_path(text)
    except PdkError:
        return
    assert cleaned.startswith("/")
    assert ".." not in cleaned.split("/")
    assert clean_path(cleaned) == check_path(cleaned) == cleaned


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/*", "/a", True), ("/*", "/a/b", False), ("/**", "/a/b", True), ("/*.jpg", "/a.jpg", True), ("/a?", "/ab", True),
        ("/[ab]", "/b", True), ("/[!ab]", "/b", False), ("/{a,bc}/d", "/bc/d", True), ("/@(a|b)", "/b", True), ("/(*)-x", "/q-x", True),
        ("/a.b", "/axb", False), ("/*(ab|c).x", "/abcab.x", True), ("/+(a).x", "/.x", False), ("/?(a)b", "/b", True),
        ("/!(a|b).jpg", "/c.jpg", True),
        ("/!(a|b).jpg", "/a.jpg", False), ("/!(a|b).jpg", "/ab.jpg", True), ("/[[:digit:]]", "/7", True),
        (r"/\*", "/*", True), (r"/\*", "/a", False),
        ("/[a-c]", "/b", True), ("/[^a-c]", "/b", False), ("/[a&&b]", "/&", True),
    ],
)  # fmt: skip
def test_globs(pattern, path, matches):
    assert bool(compile_glob(pattern).fullmatch(path)) is matches


@pytest.mark.parametrize("pattern", ["/+(+(a))b", "/*(*(*(a)))b", "/**a**a**a**a**a**b", "/*a*a*a*a*a*a*a*a*b", "/{*a,*a}*{*a,*a}*b"])
def test_no_pattern_takes_long(pattern):
    began = time.monotonic()
    assert not compile_glob(pattern).fullmatch("/" + "a" * 4000)
    assert time.monotonic() - began < 2


def test_what_would_take_long_beside_an_exclusion_is_refused():
    assert compile_glob("/a/!(b)/*").fullmatch("/a/c/d")
    for pattern in ("/!(a)*b*c", "/!(+(+(a)))b", "/!(**a**)"):
        with pytest.raises(UserError, match="beside !"):
            compile_glob(pattern)


@given(st.text(alphabet="ab*?{}()@+/.,|[!]", max_size=12), st.text(alphabet="ab/.", max_size=6))
def test_both_engines_answer_alike(pattern, path):
    """What is too slow for Python's `re` in general is compared with it on short paths."""
    translator = _Translator(pattern)
    try:
        expected = re.compile(translator.sequence(), re.DOTALL).fullmatch(path)
        compiled = compile_glob(pattern)
    except UserError:
        return
    found = compiled.fullmatch(path)
    assert bool(found) == bool(expected)
    assert compiled.groups == re.compile(_Translator(pattern).sequence()).groups


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


@pytest.mark.parametrize(
    ("pattern", "path", "template", "made"),
    [
        ("/(*)/(*).csv", "/2024/a.csv", "$2-${1}", "a-2024"), ("/@(a|b)*", "/bx", "$1", "b"), ("/*(ab)c", "/ababc", "$1", "abab"),
        ("/(*)", "/a/", "$1$$$3", "a$"), ("/(*)", "/a", "x$y", "x$y"),
    ],
)  # fmt: skip
def test_capture_groups_name_datums(pattern, path, template, made):
    assert replace(pattern, path, template) == made
