"""Why a program failed, read off what it printed: the last line of the traceback, the place in the user's own file, how it ended."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

TRACEBACK = "Traceback (most recent call last):"
FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>.+))?')
RAISED = re.compile(
    r"^(?P<kind>[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Fault|Failed|NotFound|Group))(?::\s*(?P<said>.*))?$"
)
LIBRARY = re.compile(r"/(site-packages|dist-packages|lib/python\d[\d.]*)/|^<|/pdk/(flow|engines|serving|mar|local|kit)/")
# what the train step and Determined put before a line
PREFIX = re.compile(r"^(?:\[[^\]]{0,80}\]\s?)+(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL): )?")
ENDED = re.compile(r"\b(?:exit(?:ed)?(?: with)?|returned|Error with)(?: status| code)?:? (?P<code>\d{1,3})\b")
SIGNALLED = re.compile(r"\b(?:signal:? |killed by (?:signal )?)(?P<name>SIG[A-Z]+|\d{1,2}|killed)", re.IGNORECASE)
MEMORY = re.compile(r"\bOOM\s?Killed\b|\bout of memory\b|\bMemoryError\b|Cannot allocate memory|oom-kill", re.IGNORECASE)
STEP = re.compile(r"^(?:train|deploy): (?P<said>.+)")  # how a step of the flow ends
SIGNALS = {
    "SIGKILL": "killed (SIGKILL): most often for want of memory, or by whoever stopped it",
    "SIGSEGV": "crashed: it touched memory that is not its own (SIGSEGV)",
    "SIGABRT": "crashed: it gave itself up (SIGABRT)",
    "SIGBUS": "crashed: a file or device that it had mapped went away, often a full /dev/shm (SIGBUS)",
    "SIGTERM": "ended from outside (SIGTERM)",
    "SIGINT": "interrupted (SIGINT)",
}
LINES = 20  # of what was printed that are kept


def first_line(text: str) -> str:
    """Return what a cell of a list shows of a reason."""
    return text.partition("\n")[0]


@dataclass(frozen=True)
class Explanation:
    """What a program said of its end.

    Attributes:
        reason: the headline: the exception, or the last words of the step or program.
        place: FILE:LINE of the innermost frame in the user's own code; empty where there is no traceback.
        ended: exit code or signal in words; empty where nobody says.
        lines: the end of what it printed.
    """

    reason: str
    place: str
    ended: str
    lines: tuple[str, ...]


def explain(printed: Sequence[str]) -> Explanation:
    """Read what a program printed, oldest line first; the engine's own reason may stand among the lines."""
    lines = [line.rstrip() for line in printed if line.strip()]
    bare = [PREFIX.sub("", line) for line in lines]
    raised, place = _traceback(bare)
    return Explanation(raised or _last_words(bare), place, ended(bare), tuple(lines[-LINES:]))


def _traceback(lines: Sequence[str]) -> tuple[str, str]:
    """Return what the last traceback ends with, and the place in the user's own code; empty where there is none."""
    starts = [number for number, line in enumerate(lines) if line.strip() == TRACEBACK]
    if not starts and any(FRAME.match(line) for line in lines):  # its beginning is cut off
        starts = [-1]
    for start in reversed(starts):
        place, fallback = "", ""
        for line in lines[start + 1 :]:
            if frame := FRAME.match(line):
                here = f"{_short(frame['file'])}:{frame['line']}"
                fallback = here
                place = place if LIBRARY.search(frame["file"]) else here
            elif fallback and (raised := RAISED.match(line.strip())):
                return raised.group(0), place or fallback
    return "", ""


def _short(file: str) -> str:
    """Return a file as the user knows it: without the folder that a trial or job runs in."""
    return re.sub(r"^.*?/(?:workdir|code|experiment|repo|models/[^/]+)/", "", file) if file.startswith("/") else file


def _last_words(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        if step := STEP.match(line):
            return step["said"]
    said = [line for line in lines if not ENDED.search(line) or len(line.split()) > 8]
    return (said or lines)[-1] if lines else ""


def ended(lines: Sequence[str]) -> str:
    """Return how a program ended, in words, by the last line that says so."""
    if any(MEMORY.search(line) for line in lines):
        return "killed: out of memory" if not any("MemoryError" in line for line in lines) else "out of memory"
    for line in reversed(lines):
        if found := SIGNALLED.search(line):
            return signal_in_words(found["name"])
        if found := ENDED.search(line):
            return code_in_words(int(found["code"]))
    return ""


def code_in_words(code: int) -> str:
    """Return an exit code in words; shells say 128 and the signal's number of what a signal ended."""
    if code > 128 and code - 128 in set(signal.Signals):
        return signal_in_words(str(code - 128))
    known = {126: "the command cannot be run", 127: "there is no such command"}
    return f"exit code {code}" + (f": {known[code]}" if code in known else "")


def signal_in_words(name: str) -> str:
    """Return a signal, by its name or number, in words."""
    name = "SIGKILL" if name.lower() == "killed" else signal.Signals(int(name)).name if name.isdecimal() else name.upper()
    return SIGNALS.get(name, f"ended by a signal ({name})")
