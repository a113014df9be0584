r"""The engine's globs as regular expressions.

``*`` and ``?`` match within a name, ``**`` across folders, ``[a-c]``, ``[!x]`` and ``[[:digit:]]`` one character, ``{a,b}`` one of
several. ``(a|b)`` and ``@(a|b)`` capture one of several; ``*(…)``, ``+(…)`` and ``?(…)`` capture any number, one or more, at most one;
``!(…)`` captures anything else. ``\`` takes the next character as it is. (Syntax: the extended globs of ksh, as the engine has them.)

A pattern is matched against every path of a commit, and whoever may read one may send it. So what could take a time that grows by more than
the length of a path (repeated groups, several wildcards in one name) is matched by RE2, which needs as long for every pattern; the others
by Python's `re`, which is thirty times as fast.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import cast

import re2

from pdk.local.pachyderm.rules.model import Refused

SPECIAL = "*?[]{}!()@+^\\"  # a path that holds one of these is a pattern
NAME = "[^/]"  # one character of a name
REPEATED = frozenset("*+")
QUANTIFIERS = {"@": "", "*": "*", "+": "+", "?": "?", "!": ""}
POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7f", "blank": r"\t ", "cntrl": r"\x00-\x1f\x7f", "digit": "0-9",
    "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\s", "upper": "A-Z", "word": r"\w",
    "xdigit": "0-9A-Fa-f",
}  # fmt: skip


def is_pattern(path: str) -> bool:
    """Return whether a path holds wildcards."""
    return any(character in path for character in SPECIAL)


def clean(pattern: str) -> str:
    """Return the pattern as it is matched against paths: from the root, without a slash at its end."""
    return "/" + pattern.strip("/")


def literal_folder(pattern: str) -> str:
    """Return the folder that everything matched lies in: the pattern up to the last slash before its first wildcard."""
    prefix = re.split(f"[{re.escape(SPECIAL)}]", pattern, maxsplit=1)[0]
    return prefix[: prefix.rfind("/") + 1]


def crosses_folders(pattern: str) -> bool:
    """Return whether matches may lie at other depths than the pattern has slashes."""
    depth = 0
    for character in pattern:
        depth = max(0, depth + (character in "([{") - (character in ")]}"))
        if character == "/" and depth:
            return True
    return "**" in pattern or "\\" in pattern


def levels(pattern: str, start: str) -> list[re.Pattern[str]]:
    """For each folder on the way from `start` to what a pattern matches, and for that: what its path must match."""
    parts, above = pattern.split("/"), start.count("/")
    return [compile_glob("/".join(parts[:end])) for end in range(above + 1, len(parts) + 1)]


class _Translator:
    """One pattern on its way to a regular expression."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0
        self.deep = self.repeats = self.excludes = 0
        self.stars = Counter[int]()  # by the name, counted from the left, that they stand in

    @property
    def quick(self) -> bool:
        """Return whether `re` needs no more than the square of a path's length: what is free in a name ends at its slash."""
        return not self.repeats and self.deep <= 1 and all(count <= 1 for count in self.stars.values())

    def malformed(self, why: str) -> Refused:
        """Return the error for a pattern that says nothing."""
        return Refused(f"glob pattern {self.pattern!r} is malformed: {why}")

    def sequence(self, ends: str = "") -> str:
        """Return everything until one of `ends` (left standing) or the end of the pattern."""
        out = ""
        while self.at < len(self.pattern):
            character = self.pattern[self.at]
            if character in ends:
                return out
            self.at += 1
            if character in QUANTIFIERS and self.pattern.startswith("(", self.at):
                self.at += 1
                out += self.group(character, ends)
                continue
            out += self.term(character, ends)
        if ends:
            raise self.malformed(f"a bracket does not close (missing {ends[-1]!r})")
        return out

    def term(self, character: str, ends: str) -> str:
        """Return what `character`, which was just read, begins."""
        if character == "*":
            if self.pattern.startswith("*", self.at):
                self.at += 1
                self.deep += 1
                return ".*"
            self._star()
            return NAME + "*"
        if character == "?":
            return NAME
        if character == "[":
            return self.character_class()
        if character == "{":
            return f"(?:{self.alternatives(',', '}')})"
        if character == "(":
            return self.group("@", ends)
        if character == "\\":
            if self.at == len(self.pattern):
                raise self.malformed("nothing follows the last backslash")
            self.at += 1
            return re.escape(self.pattern[self.at - 1])
        return re.escape(character)

    def _star(self) -> None:
        self.stars[self.pattern.count("/", 0, self.at)] += 1

    def alternatives(self, separator: str, end: str) -> str:
        """Sequences between separators, up to and with `end`."""
        found = [self.sequence(separator + end)]
        while self.pattern[self.at] == separator:
            self.at += 1
            found.append(self.sequence(separator + end))
        self.at += 1
        return "|".join(found)

    def group(self, quantifier: str, ends: str) -> str:
        """Return a capture group whose opening bracket was just read."""
        inside = self.alternatives("|", ")")
        self.repeats += quantifier in REPEATED
        if quantifier != "!":
            repeat = QUANTIFIERS[quantifier]
            return f"((?:{inside}){repeat})" if repeat else f"({inside})"
        self.excludes += 1
        self._star()
        start = self.at
        rest = _Translator(self.pattern)  # what must not follow the excluded names for them to be excluded
        rest.at = start
        following = rest.sequence(ends) if not ends else ""
        following = re.sub(r"(?<!\\)\((?!\?)", "(?:", following)
        return f"((?!(?:{inside}){following}\\Z){NAME}*)"

    def character_class(self) -> str:
        """Return a list of characters whose opening bracket was just read."""
        negated = ""
        if self.pattern.startswith(("!", "^"), self.at):
            negated = "^"
            self.at += 1
        named = re.compile(r"\[:(\w+):\]\]").match(self.pattern, self.at)
        if named and named[1] in POSIX:
            self.at = named.end()
            return f"[{negated}{POSIX[named[1]]}]"
        end = self.pattern.find("]", self.at)
        members = self.pattern[self.at : end] if end > 0 else ""
        ranges = re.sub(r"(.)-(.)|.", lambda m: f"{re.escape(m[1])}-{re.escape(m[2])}" if m[1] else re.escape(m[0]), members)
        try:
            re.compile(f"[{ranges}]")
        except re.error:
            raise self.malformed(f"'[{members}' is no list of characters that ']' ends") from None
        self.at = end + 1
        return f"[{negated}{ranges}]"


@lru_cache(maxsize=1024)
def compile_glob(pattern: str) -> re.Pattern[str]:
    """Return a regular expression to be matched against whole paths.

    Raises:
        Refused: brackets that do not close, lists of characters that are none, and ``!(…)`` beside what takes long to match.
    """
    translator = _Translator(pattern)
    expression = translator.sequence()
    if translator.quick:
        return re.compile(expression, re.DOTALL)
    if translator.excludes:
        why = "beside !(…) one * in each name and one ** are offered, and neither *(…) nor +(…)"
        raise translator.malformed(why)
    options = re2.Options()
    options.dot_nl, options.log_errors = True, False
    try:
        return cast("re.Pattern[str]", re2.compile(expression, options))  # which answers alike
    except re2.error as error:
        raise translator.malformed(str(error)) from None


def replace(pattern: str, path: str, template: str) -> str:
    """`template` with ``$1`` (or ``${1}``) replaced by what the pattern's first group captured of `path`, and so on; ``$$`` is ``$``."""
    match = compile_glob(clean(pattern)).fullmatch(path.rstrip("/"))

    def captured(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        number = int(found[1] or found[2])
        return (match[number] or "") if match and number <= match.re.groups else ""

    return re.sub(r"\$\$|\$(\d+)|\$\{(\d+)\}", captured, template)
