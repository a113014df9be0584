"""The other examples, by their own specs and sample data, through the endpoint."""

import csv
import json
import shutil
import sys

import pytest
import requests

from conftest import CHECKOUT, wait_until
from flow.material import examples, template_words
from flow.test_flow import Flow

SAMPLES = CHECKOUT / "sample-data"


class Example(Flow):
    """An example of pipelines/pipelines.jsonnet in its own project."""

    def __init__(self, up, example, folder):
        self.example = example
        examples(folder)
        super().__init__(up, f"pdk-{example}", folder)

    def put(self, folder, path):
        return self.engine.put_files(
            self.name, f"{self.example}-data", "master", {f"{path}/{file.name}": file for file in folder.iterdir()}
        )

    def create(self, **arguments):
        self.engine.create_repo(self.name, f"{self.example}-data")
        values = {"example": self.example, "gitUrl": str(self.code), **arguments}
        template = str(CHECKOUT / "pipelines/pipelines.jsonnet")
        place = ("--project", self.name, "--state", str(self.up.state))
        self.up.run(sys.executable, "-m", "pdk.cli.main", "create", "pipeline", "-f", template, *place, *template_words(values))

    def ask(self, deployment, body):
        url = f"http://127.0.0.1:{self.up.installation.ports.gateway}/v1/models/{self.example}:predict"
        return requests.post(url, data=body, headers={"Host": f"{deployment}.models.example.com"}, timeout=30)

    def commit(self, folder, path):
        commit = self.put(folder, path)
        for step in ("model", "deploy"):
            name = f"{self.example}-{step}"
            assert self.wait(name, commit, 240).state == "SUCCESS", self.log(name, commit)
        return commit


@pytest.fixture
def example(own_up, tmp_path):
    """Makes an example of a name."""

    def make(name):
        folder = own_up.state.parent / "code"
        folder.mkdir()
        return Example(own_up, name, folder)

    return make


def test_customer_churn_in_three_files(example):
    churn = example("customer-churn")
    assert {path.name for path in (CHECKOUT / "experiments/customer-churn").iterdir() if path.is_file()} == {
        "model_def.py", "const.yaml", "handler.py",
    }  # fmt: skip
    churn.create()
    churn.commit(SAMPLES / "customer-churn", "/2026")
    answer = churn.ask("churn", (SAMPLES / "requests/churn.json").read_bytes())
    assert [row["churn"] for row in answer.json()["predictions"]] == [1, 0], answer.text
    with (SAMPLES / "held-out/customer-churn.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = churn.ask("churn", json.dumps({"instances": rows})).json()["predictions"]
    share = sum(str(found["churn"]) == row["churned"] for found, row in zip(right, rows, strict=True)) / len(rows)
    assert share >= 0.85, share
    wrong = churn.ask("churn", json.dumps({"instances": [{"tenure_months": "long"}]}))
    assert (wrong.status_code, "tenure_months is 'long'" in wrong.text) == (400, True), wrong.text
    second = churn.commit(SAMPLES / "more-customer-churn", "/2027")
    wait_until(lambda: churn.ask("churn", (SAMPLES / "requests/churn.json").read_bytes()).headers["pdk-model-version"] == second)


def test_question_answering_from_an_s3_store(example):
    qa = example("question-answering")
    installation = qa.up.installation
    qa.engine.create_repo(qa.name, "models")
    qa.engine.put_files(qa.name, "models", "master", {"/readme": CHECKOUT / "README.md"})  # a bucket needs a branch
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), installation.secret())
    qa.engine.create_secret("model-store", keys)
    endpoint = f"http://127.0.0.1:{installation.ports.s3}"
    qa.create(target="aws", bucket=f"master.models.{qa.name}", storeSecret="model-store", storeEndpoint=endpoint)
    first = qa.commit(SAMPLES / "question-answering", "/books")
    body = (SAMPLES / "requests/questions.json").read_bytes()
    answer = qa.ask("qa", body)
    assert [row["answer"] for row in answer.json()["predictions"]] == ["1432", "Edda Onken", "amber"], answer.text
    for row, instance in zip(answer.json()["predictions"], json.loads(body)["instances"], strict=True):
        assert instance["context"][row["start"] :].startswith(row["answer"])
    asked = []
    for paragraph in json.loads((SAMPLES / "held-out/question-answering.json").read_text())["data"][0]["paragraphs"]:
        asked += [
            ({"context": paragraph["context"], "question": entry["question"]}, entry["answers"][0]["text"]) for entry in paragraph["qas"]
        ]
    found = qa.ask("qa", json.dumps({"instances": [instance for instance, _ in asked]})).json()["predictions"]
    right = sum(row["answer"] == text for row, (_, text) in zip(found, asked, strict=True))
    assert right >= 0.9 * len(asked), f"{right} of {len(asked)}"
    kubectl = shutil.which("kubectl")
    said = qa.up.run("kubectl", "logs", "-n", "models", "-l", "serving.kserve.io/inferenceservice=qa", "--tail", "500") if kubectl else ""
    lines = [json.loads(line) for line in said.splitlines() if '"question-answering"' in line or '"answered' in line]
    assert not kubectl or any("answered a question" in line["message"] for line in lines), said
    assert first in str(answer.headers)
