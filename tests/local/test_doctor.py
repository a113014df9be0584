"""`pdk doctor`, on what works and on what does not."""

import json
import subprocess
import sys

PDK = [sys.executable, "-m", "pdk.cli.main"]


def doctor(env, *words):
    done = subprocess.run([*PDK, "doctor", "-o", "json", *words], env=env, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_an_installation_that_works(up):
    code, found = doctor(up.env)
    assert code == 0, found
    assert {finding["state"] for finding in found.values()} <= {"ok", "warning"}
    assert found["Pachyderm version"]["found"].startswith("2.12.")
    assert "slots" in found["Determined agents"]["found"]
    assert found["runtime for model format mar"]["found"] == "pdk-mar"


def test_what_is_missing_is_said_with_what_to_do(up):
    code, found = doctor(
        {**up.env, "DET_MASTER": "http://127.0.0.1:9", "INGRESS_HOST": "127.0.0.1", "INGRESS_PORT": "9"}, "-n", "no-such-one"
    )
    assert code == 1
    assert {name for name, finding in found.items() if finding["state"] == "failed"} == {"Determined", "ingress", "permission to deploy"}
    assert "no-such-one" in found["permission to deploy"]["found"]
    assert all(finding["matters"] and finding["todo"] for finding in found.values() if finding["state"] == "failed")
