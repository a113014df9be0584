"""The clock of a step."""

import subprocess
import sys
import threading

from pdk.timing import IMPORTS, WAITING, Clock


def test_inside_one_another_only_the_innermost_counts(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pdk.timing.time.monotonic", lambda: now[0])
    clock = Clock()
    with clock.during(WAITING):
        now[0] += 1
        with clock.during(IMPORTS):
            now[0] += 10
        now[0] += 2
    now[0] += 50
    assert clock.spent == {WAITING: 3, IMPORTS: 10}


def test_threads_do_not_meet():
    clock, seen = Clock(), []
    with clock.during(WAITING):
        thread = threading.Thread(target=lambda: seen.append(dict(clock.spent)))
        thread.start()
        thread.join()
    assert seen == [{}]
    assert set(clock.spent) == {WAITING}


def test_a_program_says_where_its_time_went():
    code = "from pdk.timing import clock; clock.begin(); print(clock.report())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    whole, imports, waiting, own = (
        float(word) for word in said.replace("s,", "").replace("\n", "").split() if word.replace(".", "").isdigit()
    )
    assert whole > 0
    assert abs(whole - imports - waiting - own) < 0.03


def test_leaving_keeps_what_was_printed_and_the_status():
    code = "import sys; from pdk.timing import leave; print('to the end', end=''); print('and this', end='', file=sys.stderr); leave(3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "to the end", "and this")
