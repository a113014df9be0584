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
    failed = {name for name, finding in found.items() if finding["state"] == "failed"}
    assert failed == {"Determined", "ingress", "permission to deploy", "predictors' identity"}
    assert "no-such-one" in found["permission to deploy"]["found"]
    assert all(finding["matters"] and finding["todo"] for finding in found.values() if finding["state"] == "failed")


def test_checkpoints_and_the_identity_of_predictors(up):
    _, found = doctor(up.env)
    assert found["checkpoint storage"]["found"].startswith("directory /")
    assert found["predictors' identity"]["found"].startswith("service account 'pach-deploy': serving.kserve.io/s3-endpoint 127.0.0.1:")
    code, found = doctor(up.env, "--service-account-name", "nobody", "--cloud-model-host", "aws", "--cloud-model-bucket", "not-mine")
    assert code == 1
    assert {name for name, finding in found.items() if finding["state"] == "failed"} == {"model store", "predictors' identity"}


def test_a_bucket_without_a_host_is_no_question(up):
    done = subprocess.run([*PDK, "doctor", "--cloud-model-host", "aws"], env=up.env, capture_output=True, text=True, check=False)
    assert (done.returncode, "belong together" in done.stderr) == (2, True), done.stderr


def test_the_variables_of_the_guide_come_from_the_config_map(up):
    done = subprocess.run([*PDK, "env", "--from-cluster"], env=up.env, capture_output=True, text=True, check=True)
    given = dict(line.removeprefix("export ").split("=", 1) for line in done.stdout.splitlines())
    ports = up.installation.ports
    assert given["MLDM_URL"] == given["PACHD_ADDRESS"] == f"grpc://127.0.0.1:{ports.pachyderm}"
    assert given["DET_MASTER"] == f"http://127.0.0.1:{ports.determined}"
    assert (given["INGRESS_HOST"], given["INGRESS_PORT"]) == ("127.0.0.1", str(ports.gateway))
    assert {"AZ_REGION", "MODEL_ASSETS_BUCKET_NAME", "KSERVE_MODELS_NAMESPACE", "REGISTRY_URI", "NAME"} <= set(given)
    absent = subprocess.run([*PDK, "env", "--from-cluster", "-n", "models"], env=up.env, capture_output=True, text=True, check=False)
    assert (absent.returncode, '"pdk-config\\" not found' in absent.stderr) == (3, True), absent.stderr
