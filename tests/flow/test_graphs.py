"""Random graphs of pipelines under commits, deletions and restarts: every job saw what the model says, and wrote what follows from it.

Jobs of all pipelines on one commit share an ID, and so do their datums. What one of them sees must not depend on the others.
"""

import hashlib
import itertools
import json
import os
import signal
import threading

import grpc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from conftest import Up, wait_until

GRAPHS = int(os.environ.get("PDK_GRAPHS", "4"))  # 20 in `make nightly`
LARGEST = 30 if GRAPHS > 4 else 12  # pipelines of a graph
SOURCES = ("r0", "r1")
# what a datum sees when it begins and when it ends, as its one output file, which is named by its content
SCRIPT = """
see() { cd /pfs && find . -path ./out -prune -o -type f -print | LC_ALL=C sort | xargs -r sha256sum; }
before=$(see)
sleep SECONDS
after=$(see)
[ "$before" = "$after" ] || { echo "the inputs changed: $before"; echo "then: $after"; exit 3; }
printf '%s\\n' "$after" > /tmp/seen
cp /tmp/seen "/pfs/out/$(sha256sum < /tmp/seen | cut -c1-16)"
"""


def text_of(parts):
    """What `SCRIPT` writes for a datum: of each part (name of the input, files by path) every file."""
    found = {f"./{name}{path}": hashlib.sha256(content).hexdigest() for name, files in parts for path, content in files.items()}
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(found.items(), key=lambda pair: pair[0].encode()))


def parts_of(name, glob, tree):
    """An input's parts by their glob: pairs of the key for joins and groups, and the part."""
    if glob == "/":
        return [("", (name, tree))]
    tops = {}
    for path, content in tree.items():
        tops.setdefault(path.split("/")[1], {})[path] = content
    return [(top[0], (name, files)) for top, files in tops.items()]


def output_of(pipeline, trees):
    """What a pipeline's job writes, from the trees of its inputs."""
    sides = [parts_of(*leaf, tree) for leaf, tree in zip(pipeline["leaves"], trees, strict=True)]
    keys = sorted({key for side in sides for key, _ in side})
    at = [[[part for key, part in side if key == wanted] for side in sides] for wanted in keys]
    if pipeline["kind"] in ("pfs", "union"):
        datums = [[part] for side in sides for _, part in side]
    elif pipeline["kind"] == "cross":
        datums = [[part for _, part in chosen] for chosen in itertools.product(*sides)]
    elif pipeline["kind"] == "join":
        datums = [list(chosen) for found in at for chosen in itertools.product(*filter(None, found))]  # an outer join on both sides
    else:
        datums = [list(itertools.chain.from_iterable(found)) for found in at]
    texts = [text_of(parts).encode() for parts in datums]
    return {f"/{hashlib.sha256(text).hexdigest()[:16]}": text for text in texts}


@st.composite
def graphs(draw):
    """Pipelines, each over repos or pipelines before it, with what reads how; half of them slow."""
    made = []
    for number in range(draw(st.integers(5, LARGEST))):
        kind = draw(st.sampled_from(["pfs", "pfs", "cross", "union", "join", "group"]))
        above = [*SOURCES, *(pipeline["name"] for pipeline in made)]
        count = 1 if kind == "pfs" else 2
        upstream = draw(st.lists(st.sampled_from(above), min_size=count, max_size=count, unique=True))
        keyed = kind in ("join", "group")
        leaves = [(f"in{index}", "/*" if keyed else draw(st.sampled_from(["/", "/*"]))) for index in range(len(upstream))]
        if kind == "cross":
            leaves[0] = (leaves[0][0], "/")  # or the graph grows without bound
        made.append({"name": f"p{number}", "kind": kind, "upstream": upstream, "leaves": leaves, "slow": draw(st.booleans())})
    return made


CHANGES = st.lists(
    st.tuples(st.sampled_from(SOURCES), st.sampled_from(["put", "put", "delete", "restart"]), st.integers(0, 5), st.integers(0, 99)),
    min_size=4,
    max_size=6,
)


class World:
    """A project with its graph, and what was committed to its repos."""

    def __init__(self, up, project, graph):
        self.up, self.project, self.graph = up, pfs.Project(name=project), {pipeline["name"]: pipeline for pipeline in graph}
        self.client = Client(host="127.0.0.1", port=up.installation.ports.pachyderm)
        self.trees, self.now = {}, {source: {f"/{c}": c.encode() for c in "ab"} for source in SOURCES}
        self._outputs, self._restarting = {}, threading.Lock()
        self.client.pfs.create_project(project=self.project)
        for source in SOURCES:
            self.client.pfs.create_repo(repo=self.repo(source))
            self.commit(source, self.now[source], [])

    def repo(self, name):
        return pfs.Repo(name=name, type="user", project=self.project)

    def commit(self, source, puts, deletions):
        """One commit; who is met by a restart of the server tries again, and a try that had done its work changes nothing."""
        branch = pfs.Branch(repo=self.repo(source), name="master")
        self.now[source] = {path: content for path, content in {**self.now[source], **puts}.items() if path not in deletions}

        def requests():
            yield pfs.ModifyFileRequest(set_commit=pfs.Commit(repo=branch.repo, branch=branch))
            for path in (*deletions, *puts):
                yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=path))
            for path, content in puts.items():
                yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=content))

        self.patiently(lambda: self.client.pfs.modify_file(requests()))

    def patiently(self, call):
        """The answer of a call, as soon as the server has one."""
        answers = []

        def answered():
            try:
                answers.append(call())
            except (grpc.RpcError, ConnectionError) as error:
                if isinstance(error, grpc.RpcError) and error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False
            return True

        wait_until(answered, 60, "an answer")
        return answers[0]

    def create(self, pipeline):
        leaves = [
            {"pfs": {"repo": repo, "name": name, "glob": "/(?)*" if glob == "/*" else glob}}
            for repo, (name, glob) in zip(pipeline["upstream"], pipeline["leaves"], strict=True)
        ]
        for leaf in leaves if pipeline["kind"] in ("join", "group") else ():
            leaf["pfs"].update({"join_on": "$1", "outer_join": True} if pipeline["kind"] == "join" else {"group_by": "$1"})
        script = SCRIPT.replace("SECONDS", "0.4" if pipeline["slow"] else "0")
        spec = {
            "pipeline": {"name": pipeline["name"], "project": {"name": self.project.name}},
            "transform": {"image": "pdk/train:0.1", "cmd": ["sh"], "stdin": script.splitlines()},
            "input": leaves[0] if pipeline["kind"] == "pfs" else {pipeline["kind"]: leaves},
            "parallelism_spec": {"constant": 2},
        }
        self.patiently(lambda: self.client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec)))

    def change(self, source, what, number, value):
        """One change of the world."""
        if what == "restart":
            with self._restarting:
                wait_until(self.up.healthy, 60, "the server")
                os.kill(self.up.server("pachyderm"), signal.SIGKILL)
        elif what == "delete":
            self.commit(source, {}, [f"/{number}"])
        else:
            self.commit(source, {f"/{number}": b"%d" % value, f"/d{number}/{value}": b"%d" % number}, [])

    def delete_leaf(self):
        """Delete a pipeline that no other one reads, in the midst of its jobs."""
        read = {upstream for pipeline in self.graph.values() for upstream in pipeline["upstream"]}
        name = next(name for name in reversed(self.graph) if name not in read)
        del self.graph[name]
        pipeline = pps.Pipeline(name=name, project=self.project)
        self.patiently(lambda: self.client.pps.delete_pipeline(pipeline=pipeline))

    def files(self, repo, commit):
        """What a commit holds."""
        root = pfs.File(commit=pfs.Commit(repo=self.repo(repo), id=commit), path="/")
        with self.client.pfs.pfs_tar_file(file=root) as archive:
            return {"/" + member.name.lstrip("/"): archive.extractfile(member).read() for member in archive if member.isfile()}

    def expected(self, repo, commit):
        """What a commit should hold: of a pipeline, computed from what its inputs should hold."""
        if (repo, commit) not in self._outputs:
            if repo in SOURCES:
                self._outputs[repo, commit] = self.files(repo, commit)
            else:
                info = self.client.pfs.inspect_commit(commit=pfs.Commit(repo=self.repo(repo), id=commit))
                above = {source.repo.name: source.id for source in info.direct_provenance}
                pipeline = self.graph[repo]
                self._outputs[repo, commit] = output_of(pipeline, [self.expected(name, above[name]) for name in pipeline["upstream"]])
        return self._outputs[repo, commit]

    def check(self):
        """Wait for every job and compare what it wrote."""
        jobs = 0
        self.patiently(self.client.get_version)
        for name in self.graph:
            pipeline = pps.Pipeline(name=name, project=self.project)
            for found in list(self.client.pps.list_job(pipeline=pipeline)):
                info = self.client.pps.inspect_job(job=found.job, wait=True)
                assert info.state == pps.JobState.JOB_SUCCESS, (name, info.state, info.reason)
                assert self.files(name, found.job.id) == self.expected(name, found.job.id), (name, found.job.id, self.graph[name])
                jobs += 1
        for source in SOURCES:
            head = self.client.pfs.inspect_branch(branch=pfs.Branch(repo=self.repo(source), name="master")).head.id
            assert self.files(source, head) == self.now[source]
        return jobs


@pytest.fixture(scope="module")
def graph_up(tmp_path_factory):
    """An installation whose servers the graphs may kill."""
    running = Up(tmp_path_factory.mktemp("graphs") / "state").start()
    yield running
    running.stop()


NUMBERS = itertools.count()


@pytest.mark.timeout(300 * GRAPHS)
@settings(max_examples=GRAPHS, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(graph=graphs(), changes=CHANGES)
def test_every_job_of_a_random_graph_sees_its_own_inputs(graph_up, graph, changes):
    world = World(graph_up, f"g{next(NUMBERS)}", graph)
    for pipeline in graph:
        world.create(pipeline)
    own = [[change for change in changes if change[0] == source] for source in SOURCES]
    writers = [threading.Thread(target=lambda mine=mine: [world.change(*one) for one in mine]) for mine in own]
    for writer in writers:
        writer.start()
    world.delete_leaf()
    for writer in writers:
        writer.join()
    assert world.check() >= len(world.graph)


def test_pipelines_of_different_length_on_one_repo_keep_their_inputs(up, name):
    graph = [{"name": f"p{n}", "kind": "pfs", "upstream": ["r0"], "leaves": [("in0", "/")], "slow": bool(n % 2)} for n in range(6)]
    world = World(up, name, graph)
    for pipeline in graph:
        world.create(pipeline)
    world.commit("r0", {f"/{n}": b"%d" % n for n in range(20)}, [])
    assert world.check() == 12
