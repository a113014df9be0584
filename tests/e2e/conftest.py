"""Fixtures of the tests on a cluster, which ``make e2e`` runs."""

import os

import pytest

from e2e.cluster import STORES, Flow, Master, served_code, set_up


@pytest.fixture(scope="session")
def testbed():
    """The testbed's ingress; skips where it is not up."""
    if not os.environ.get("PDK_TEST_INGRESS") or "KUBECONFIG" not in os.environ:
        pytest.skip("PDK_TEST_INGRESS names no cluster: the testbed is not up; run `make e2e`")
    return os.environ["PDK_TEST_INGRESS"]


@pytest.fixture(scope="session")
def master(testbed, tmp_path_factory):
    """The Determined of the flow."""
    made = Master.named(tmp_path_factory.mktemp("master") / "state")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def code(testbed, tmp_path_factory):
    """The examples' experiments, as pods reach them."""
    with served_code(tmp_path_factory.mktemp("code")) as made:
        yield made


@pytest.fixture(scope="session")
def cluster(master, code, tmp_path_factory):
    """The overlay, applied."""
    return set_up(tmp_path_factory.mktemp("overlay") / "deploy", master, code)


@pytest.fixture
def flow(testbed, cluster, code, master):
    """A flow of the example with nothing made yet; removed afterwards."""
    with Flow(testbed, code, master).watched() as made:
        yield made


@pytest.fixture
def quick(flow, code):
    """The flow, trained for one epoch."""
    code.branch("quick", "const.yaml", "epochs: 40", "epochs: 1")
    flow.arguments = {**STORES["pachyderm"], "gitRef": "quick"}
    return flow
