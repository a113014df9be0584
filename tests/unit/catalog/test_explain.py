"""What a program's output says of its end: headline, place in the user's code, exit in words."""

import time

import pytest

from pdk.catalog.explain import LINES, SIGNALS, code_in_words, explain

TRIAL = """code: https://example.com/x.git at 1234
[experiment 3] INFO: [2] determined.core: starting
[experiment 3] [rank=0] Traceback (most recent call last):
[experiment 3] [rank=0]   File "/opt/venv/lib/python3.11/site-packages/determined/pytorch/_trainer.py", line 200, in fit
[experiment 3] [rank=0]     self.run()
[experiment 3] [rank=0]   File "/run/determined/workdir/model_def.py", line 42, in build_training_data_loader
[experiment 3] [rank=0]     rows = [int(row) for row in lines]
[experiment 3] [rank=0]   File "/opt/venv/lib/python3.11/site-packages/pdk/data.py", line 9, in rows
[experiment 3] [rank=0]     raise ValueError(text)
[experiment 3] [rank=0] ValueError: invalid literal for int() with base 10: 'age'
[experiment 3] ERROR: trial failed and ended with exit code 1
train: experiment 3 ended as ERROR; the last lines of its log:
the last lines
exited with code 1
"""


def test_a_traceback_names_the_line_of_the_user():
    found = explain(TRIAL.splitlines())
    assert found.reason == "ValueError: invalid literal for int() with base 10: 'age'"
    assert found.place == "model_def.py:42"
    assert found.ended == "exit code 1"
    assert found.lines[-1] == "exited with code 1"
    assert len(found.lines) <= LINES


CHAIN = """Traceback (most recent call last):
  File "/pfs/code/load.py", line 3, in <module>
    open("x")
FileNotFoundError: [Errno 2] No such file or directory: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/pfs/code/load.py", line 5, in <module>
    raise KeyError("x") from None
KeyError: 'x'
"""


POD = """datum a2735 failed
pod dog-cat-predictor-1, kserve-container: Error with code 1:
    model.load()
  File "/home/model-server/tmp/models/a1/handler.py", line 17, in initialize
    raise RuntimeError("no device")
RuntimeError: no device
the model's workers ended 5 times within 60 s; the server ends
"""


def test_a_traceback_whose_beginning_is_cut_off():
    found = explain(POD.splitlines())
    assert (found.reason, found.ended) == ("RuntimeError: no device", "exit code 1")
    assert found.place == "handler.py:17"


def test_of_several_the_last_one_counts():
    assert (explain(CHAIN.splitlines()).reason, explain(CHAIN.splitlines()).place) == ("KeyError: 'x'", "load.py:5")


def test_without_a_frame_of_the_user_the_innermost_one_is_named():
    lines = [
        "Traceback (most recent call last):",
        '  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw',
        "json.decoder.JSONDecodeError: Expecting value",
    ]
    assert explain(lines).reason == "json.decoder.JSONDecodeError: Expecting value"
    assert explain(lines).place == "/usr/lib/python3.11/json/decoder.py:355"


@pytest.mark.parametrize(
    ("printed", "reason", "ended"),
    [
        (["it went wrong", "datum abc: exited with code 3"], "it went wrong", "exit code 3"),
        (["deploy: the bucket 'b' cannot be used: 403", "exited with code 1"], "the bucket 'b' cannot be used: 403", "exit code 1"),
        (["sh: 1: nosuch: not found", "exited with code 127"], "sh: 1: nosuch: not found", "exit code 127: there is no such command"),
        (["loading", "the program was killed by signal 9"], "the program was killed by signal 9", SIGNALS["SIGKILL"]),
        (["loading", "Last state: OOMKilled, exit code 137"], "loading", "killed: out of memory"),
        (["x", "exit code: 139"], "x", "crashed: it touched memory that is not its own (SIGSEGV)"),
        (["MemoryError", "exited with code 1"], "MemoryError", "out of memory"),
        ([], "", ""),
        (["", "   "], "", ""),
        (["ValueError: said without a place", "bye"], "bye", ""),
    ],
)  # fmt: skip
def test_last_words_and_ends(printed, reason, ended):
    found = explain(printed)
    assert (found.reason, found.ended) == (reason, ended)


def test_codes_in_words():
    assert code_in_words(1) == "exit code 1"
    assert code_in_words(143) == "ended from outside (SIGTERM)"
    assert code_in_words(255) == "exit code 255"
    assert code_in_words(126) == "exit code 126: the command cannot be run"


def test_a_long_log_without_an_end_is_read_at_once():
    lines = ["x" * 200 + " File exit code"] * 20_000 + ["[" * 5_000] * 10
    began = time.process_time()
    assert explain(lines).ended == ""
    assert time.process_time() - began < 2.0
