"""Pipelines, jobs, datums."""

import json
import time

import pytest
from pachyderm_sdk.api import pfs, pps

DATA = {"/a1": b"1", "/a2": b"2", "/b1": b"3"}


def pfs_input(repo="data", glob="/*", **more):
    return {"pfs": {"repo": repo, "glob": glob, **more}}


def ended(job):
    """State and counters of a job."""
    counters = [job.data_total, job.data_processed, job.data_skipped, job.data_failed, job.data_recovered]
    return [pps.JobState(job.state).name, counters]


def contents(engine, repo):
    """Every file of a repo with its content."""
    found = [f.file.path for f in engine.sdk.pfs.walk_file(file=engine.file("/", repo=repo)) if f.file_type == pfs.FileType.FILE]
    return {path: engine.read(repo, path).decode() for path in found}


@pytest.fixture
def t(engine, recorded):
    engine.make_repo()
    return engine.transcript


def test_a_job_runs_and_datums_are_not_run_twice(engine, t):
    engine.put(DATA)
    script = "for f in /pfs/data/*; do echo $(cat $f)! > /pfs/out/$(basename $f); done"
    engine.make_pipeline("copy", script, pfs_input())
    job = t.call("the first job", lambda: engine.newest("copy"), show=ended)
    t.call("its output", lambda: contents(engine, "copy"))
    t.call("its datums", lambda: list(engine.sdk.pps.list_datum(job=job.job)), show=lambda found: [
        [d.datum.id, pps.DatumState(d.state).name, [f.file.path for f in d.data]] for d in found
    ])  # fmt: skip
    t.call("InspectCommit of its output", lambda: engine.sdk.pfs.inspect_commit(commit=job.output_commit), show=lambda c: [
        pfs.OriginKind(c.origin.kind).name, c.error, c.details.size_bytes,
        sorted([p.repo.name, p.repo.type] for p in c.direct_provenance),
    ])  # fmt: skip
    engine.put({"/a1": b"changed", "/c": b"new", "/b1": None})
    job = t.call("a change, an addition, a deletion", lambda: engine.newest("copy"), show=ended)
    t.call("its output", lambda: contents(engine, "copy"))
    states = lambda found: sorted([d.data[0].file.path, pps.DatumState(d.state).name] for d in found)  # noqa: E731
    t.call("its datums", lambda: list(engine.sdk.pps.list_datum(job=job.job)), show=states)
    engine.make_pipeline("copy", script + "; true", pfs_input(), update=True)
    t.call("after an update", lambda: engine.newest("copy"), show=ended)
    engine.make_pipeline("copy", script, pfs_input(), update=True, reprocess=True)
    t.call("after an update with reprocess", lambda: engine.newest("copy"), show=ended)
    t.call("InspectPipeline", lambda: engine.sdk.pps.inspect_pipeline(pipeline=engine.pipeline("copy"), details=True), show=lambda p: [
        p.version, p.details.output_branch, p.details.datum_tries, p.details.reprocess_spec, p.parallelism, p.stopped,
        pps.PipelineInfoPipelineType(p.type).name,
    ])  # fmt: skip
    t.fails("CreatePipeline again", lambda: engine.make_pipeline("copy", script, pfs_input()), "ALREADY_EXISTS", "already exists")


COMBINED = {
    "cross": [pfs_input("data", "/a*"), pfs_input("more", "/*")],
    "union": [pfs_input("data", "/*", name="x"), pfs_input("more", "/*", name="x")],
    "join": [pfs_input("data", "/(*)", join_on="$1"), pfs_input("more", "/(*)", join_on="$1", outer_join=True)],
    "group": [pfs_input("data", "/?(*)", group_by="$1"), pfs_input("more", "/?(*)", group_by="$1")],
}


@pytest.mark.parametrize("kind", COMBINED)
def test_combined_inputs(engine, t, kind):
    engine.make_repo("more")
    engine.put(DATA)
    engine.put({"/a1": b"m1", "/z2": b"m2"}, repo="more")
    script = (
        "mkdir -p /pfs/out/$PACH_DATUM_ID; cd /pfs; "
        "for f in */*; do case $f in out/*) ;; *) cp $f out/$PACH_DATUM_ID/$(echo $f | tr / -);; esac; done"
    )
    engine.make_pipeline("p", script, {kind: COMBINED[kind]})
    job = t.call("the job", lambda: engine.newest("p"), show=ended)
    t.call("its datums", lambda: list(engine.sdk.pps.list_datum(job=job.job)), show=lambda found: [
        [d.datum.id, [f"{f.file.commit.repo.name}{f.file.path}" for f in d.data]] for d in found
    ])  # fmt: skip
    t.call("what they saw", lambda: contents(engine, "p"))


def test_what_user_code_finds(engine, t):
    head = engine.put({"/k1": b"1"})
    script = (
        "env | grep -E '^(data|data_COMMIT|PACH_JOB_ID|PACH_DATUM_ID|PACH_OUTPUT_COMMIT_ID|PPS_PIPELINE_NAME|PPS_PROJECT_NAME|MINE|"
        "PACH_DATUM_data_GROUP_BY)=' | sort > /pfs/out/env; ls /pfs > /pfs/out/ls; pwd > /pfs/out/pwd"
    )
    source = {"group": [pfs_input("data", "/k(*)", group_by="$1")]}
    engine.make_pipeline("p", script, source, transform={"env": {"MINE": "yes"}, "working_dir": "/tmp"})
    t.call("the job", lambda: engine.newest("p"), show=ended)
    t.call("its environment", lambda: [line.replace(head, "<head>") for line in contents(engine, "p")["/env"].splitlines()])
    t.call("its folder", lambda: contents(engine, "p")["/pwd"])


def test_failures(engine, t):
    engine.put(DATA)
    fails = "case $data in */a2) exit 3;; esac; cp /pfs/data/* /pfs/out/"
    engine.make_pipeline("bad", fails, pfs_input(), datum_tries=1)
    engine.make_pipeline("next", "true", pfs_input("bad"))
    job = t.call("a datum fails", lambda: engine.newest("bad"), show=ended)
    states = lambda found: sorted([d.data[0].file.path, pps.DatumState(d.state).name] for d in found)  # noqa: E731
    t.call("its datums", lambda: list(engine.sdk.pps.list_datum(job=job.job)), show=states)
    t.call("the reason names the datum", lambda: next(d.datum.id for d in engine.sdk.pps.list_datum(job=job.job)
           if d.state == pps.DatumState.FAILED) in job.reason)  # fmt: skip
    t.call("the commit's error", lambda: engine.sdk.pfs.inspect_commit(commit=job.output_commit).error == job.reason)
    below = t.call("the job below", lambda: engine.newest("next"), show=ended)
    t.call("its reason", lambda: below.reason)
    engine.make_pipeline("accepted", fails, pfs_input(), datum_tries=1, transform={"accept_return_code": [3]})
    t.call("an accepted exit code", lambda: engine.newest("accepted"), show=ended)
    engine.make_pipeline("handled", fails, pfs_input(), datum_tries=1, transform={"err_cmd": ["true"]})
    job = t.call("an err_cmd that succeeds", lambda: engine.newest("handled"), show=ended)
    t.call("its datums", lambda: list(engine.sdk.pps.list_datum(job=job.job)), show=states)
    t.call("its output", lambda: sorted(contents(engine, "handled")))
    failed = pps.ListDatumRequestFilter(state=[pps.DatumState.RECOVERED])
    t.call("ListDatum of a state", lambda: list(engine.sdk.pps.list_datum(job=job.job, filter=failed)), show=states)


def test_two_datums_cannot_write_one_path(engine, t):
    engine.put(DATA)
    engine.make_pipeline("p", "echo $data > /pfs/out/same", pfs_input())
    job = t.call("the job", lambda: engine.newest("p"), show=lambda job: ended(job)[0])
    t.call("its reason", lambda: "duplicate path output by different datums" in job.reason)


def test_jobs_are_stopped_listed_and_deleted(engine, t):
    engine.put({"/a": b"1"})
    engine.make_pipeline("slow", "sleep 60", pfs_input())
    job = next(iter(engine.sdk.pps.list_job(pipeline=engine.pipeline("slow"))))
    t.call("StopJob", lambda: engine.sdk.pps.stop_job(job=job.job, reason="enough") and None)
    stopped = t.call("then", lambda: engine.finished("slow", job.job.id), show=lambda j: [pps.JobState(j.state).name, j.reason])
    t.call("its commit", lambda: engine.sdk.pfs.inspect_commit(commit=stopped.output_commit), show=lambda c: c.error)
    t.call("StopJob again", lambda: engine.sdk.pps.stop_job(job=job.job) and None)
    t.call("ListJob", lambda: len(list(engine.sdk.pps.list_job(pipeline=engine.pipeline("slow")))))
    t.call("InspectJobSet", lambda: [j.job.pipeline.name for j in engine.sdk.pps.inspect_job_set(job_set=pps.JobSet(id=job.job.id))])
    t.fails(
        "FinishCommit of an output",
        lambda: engine.sdk.pfs.finish_commit(commit=stopped.output_commit),
        "UNKNOWN",
        "already finished|stop job",
    )
    t.call("DeleteJob", lambda: engine.sdk.pps.delete_job(job=job.job) and None)
    t.fails("InspectJob of nothing", lambda: engine.sdk.pps.inspect_job(job=job.job), "NOT_FOUND", "not found")
    t.fails("ListJob of no pipeline", lambda: list(engine.sdk.pps.list_job(pipeline=engine.pipeline("no"))), "NOT_FOUND", "not found")


def test_pipelines_live(engine, t):
    sdk = engine.sdk.pps
    engine.make_pipeline("p", "cp /pfs/data/* /pfs/out/ || true", pfs_input(glob="/"))
    t.call("a job without data", lambda: engine.newest("p"), show=ended)
    t.call(
        "ListRepo", lambda: sorted(r.repo.name for r in engine.sdk.pfs.list_repo(type="user", projects=[pfs.Project(name=engine.project)]))
    )
    t.call("the output repo", lambda: engine.sdk.pfs.inspect_repo(repo=engine.repo("p")), show=lambda r: r.description)
    t.fails("DeleteRepo of the output", lambda: engine.sdk.pfs.delete_repo(repo=engine.repo("p")), "UNKNOWN", "delete the pipeline instead")
    t.fails("put into the output", lambda: engine.put({"/x": b"x"}, repo="p"), "UNKNOWN", "output branch|already finished")
    sdk.stop_pipeline(pipeline=engine.pipeline("p"))
    jobs = lambda: len(list(sdk.list_job(pipeline=engine.pipeline("p"))))  # noqa: E731
    engine.put({"/a": b"1"})
    t.call("no job while it is stopped", jobs)
    sdk.start_pipeline(pipeline=engine.pipeline("p"))
    t.call("one after its start", lambda: [ended(engine.newest("p")), jobs()])
    t.call("RerunPipeline", lambda: sdk.rerun_pipeline(pipeline=engine.pipeline("p"), reprocess=True) and None)
    t.call("its job", lambda: ended(engine.newest("p")))
    engine.make_pipeline("below", "true", pfs_input("p"))
    t.fails("DeletePipeline that is read", lambda: sdk.delete_pipeline(pipeline=engine.pipeline("p")), "UNKNOWN", "provenance")
    t.call("DeletePipeline below", lambda: sdk.delete_pipeline(pipeline=engine.pipeline("below")) and None)
    t.call("DeletePipeline", lambda: sdk.delete_pipeline(pipeline=engine.pipeline("p")) and None)
    t.fails("InspectPipeline of nothing", lambda: sdk.inspect_pipeline(pipeline=engine.pipeline("p")), "NOT_FOUND", "not found")
    t.call("ListPipeline", lambda: len(list(sdk.list_pipeline(projects=[pfs.Project(name=engine.project)]))))
    t.fails("RunCron without one", lambda: sdk.run_cron(pipeline=engine.pipeline("p")), "NOT_FOUND", "not found")


SPECS = (
    ("no repo of that name", {"input": pfs_input("absent")}, "NOT_FOUND", "repo .*absent not found"),
    ("no glob", {"input": {"pfs": {"repo": "data"}}}, "UNKNOWN", "must specify a glob"),
    ("no repo", {"input": {"pfs": {"glob": "/"}}}, "UNKNOWN", "must specify a (repo|name)"),
    ("an input named out", {"input": pfs_input(name="out")}, "UNKNOWN", "cannot be named.*out"),
    ("one name twice", {"input": {"cross": [pfs_input(), pfs_input()]}}, "UNKNOWN", "used more than once"),
    ("two kinds of input", {"input": {**pfs_input(), "cross": [pfs_input(name="x")]}}, "UNKNOWN", "multiple input types"),
    ("an empty input", {"input": {"cross": [{}]}}, "UNKNOWN", "no input set"),
    ("an s3 input with a glob", {"input": pfs_input(glob="/*", s3=True)}, "UNKNOWN", "must also set"),
    ("an s3 input in a join", {"input": {"join": [pfs_input(glob="/", s3=True)]}}, "UNKNOWN", "not supported"),
    ("an input from a commit", {"input": pfs_input(commit="0" * 32)}, "UNKNOWN", "cannot come from a commit"),
    ("a bad schedule", {"input": {"cron": {"name": "tick", "spec": "now and then"}}}, "UNKNOWN", "cron-spec"),
    ("a bad reprocess_spec", {"reprocess_spec": "never"}, "INVALID_ARGUMENT", "must be one of"),
    ("an unknown field", {"inputs": {}}, "INVALID_ARGUMENT", "inputs"),
    ("a bad name", {"pipeline": {"name": "a b"}}, "UNKNOWN", "only alphanumeric"),
    ("a name that is too long", {"pipeline": {"name": "x" * 52}}, "UNKNOWN", "1 characters longer"),
    ("no such project", {"pipeline": {"name": "x", "project": {"name": "absent"}}}, "INVALID_ARGUMENT", "not found"),
    ("a secret that is not there", {"transform": {"cmd": ["true"], "secrets": [{"name": "absent", "key": "k", "env_var": "K"}]}}, "UNKNOWN",
     "missing Kubernetes secret"),
    ("its own output", {"pipeline": {"name": "data2"}, "input": pfs_input("data2")}, "NOT_FOUND", "not found"),
    ("the name of a repo", {"pipeline": {"name": "data"}}, "UNKNOWN", "same name already exists"),
)  # fmt: skip


def test_specs_that_are_refused(engine, t):
    for title, change, code, means in SPECS:
        spec = {"pipeline": {"name": "p"}, "transform": {"image": engine.image, "cmd": ["true"]}, "input": pfs_input(), **change}
        spec["pipeline"].setdefault("project", {"name": engine.project})
        t.fails(title, lambda spec=spec: engine.sdk.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec)), code, means)
    t.call("nothing was made", lambda: len(list(engine.sdk.pps.list_pipeline(projects=[pfs.Project(name=engine.project)]))))


def test_cron_inputs_tick(engine, t):
    spec = {"cron": {"name": "tick", "spec": "@never", "overwrite": True}}
    engine.make_pipeline("p", "ls /pfs/tick | wc -l > /pfs/out/count", spec)
    t.call("a job before the first tick", lambda: engine.newest("p"), show=ended)
    t.call("its repo", lambda: engine.sdk.pfs.inspect_repo(repo=engine.repo("p_tick")), show=lambda r: r.description)
    engine.sdk.pps.run_cron(pipeline=engine.pipeline("p"))
    t.call("a tick", lambda: engine.newest("p"), show=ended)
    t.call("its file", lambda: [len(f.file.path) for f in engine.sdk.pfs.list_file(file=engine.file("/", repo="p_tick"))])
    tick = int(time.time())
    while int(time.time()) == tick:  # a tick's name is its second
        engine.newest("p")
    engine.sdk.pps.run_cron(pipeline=engine.pipeline("p"))
    t.call("another tick", lambda: engine.newest("p"), show=ended)
    t.call("its file", lambda: len(list(engine.sdk.pfs.list_file(file=engine.file("/", repo="p_tick")))))


def test_a_commit_triggers_a_line_of_pipelines(engine, t):
    engine.make_pipeline("one", "cp /pfs/data/* /pfs/out/", pfs_input())
    engine.make_pipeline("two", "cp /pfs/one/* /pfs/out/", pfs_input("one"))
    engine.newest("two")
    head = engine.put({"/a": b"x"})
    t.call("the jobs of its ID", lambda: [engine.finished(name, head) and name for name in ("one", "two")])
    t.call("its output", lambda: contents(engine, "two"))
    kinds = lambda found: sorted([c.commit.repo.name, pfs.OriginKind(c.origin.kind).name] for c in found if c.commit.repo.type == "user")  # noqa: E731
    t.call("its commit set", lambda: list(engine.sdk.pfs.inspect_commit_set(commit_set=pfs.CommitSet(id=head))), show=kinds)
    t.fails(
        "squash with children missing",
        lambda: engine.sdk.pfs.squash_commit_set(commit_set=pfs.CommitSet(id=head)),
        "UNKNOWN",
        "no children",
    )
    t.call("drop the whole set", lambda: engine.sdk.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=head)) and None)
    t.fails("its commits", lambda: engine.sdk.pfs.inspect_commit(commit=engine.commit(head, "two")), "NOT_FOUND", "not found")


def test_datums_of_an_input(engine, t):
    engine.put(DATA)
    source = pps.Input(pfs=pps.PfsInput(project=engine.project, repo="data", branch="master", name="data", glob="/a*"))
    t.call("ListDatum", lambda: list(engine.sdk.pps.list_datum(input=source)), show=lambda found: [
        [d.datum.id, [f.file.path for f in d.data]] for d in found
    ])  # fmt: skip
    t.fails("ListDatum of nothing", lambda: list(engine.sdk.pps.list_datum()), "UNKNOWN", "must specify a job")


def test_jsonnet_templates(engine, t):
    template = 'function(name, src="data") {pipeline: {name: name}, input: {pfs: {repo: src, glob: "/*"}}, transform: {cmd: ["true"]}}'
    t.call("RenderTemplate", lambda: json.loads(engine.sdk.pps.render_template(template=template, args={"name": "x"}).json))
    t.fails(
        "without an argument", lambda: engine.sdk.pps.render_template(template=template, args={}), "UNKNOWN", "template err|missing|name"
    )
    t.fails("no jsonnet", lambda: engine.sdk.pps.render_template(template="{", args={}), "UNKNOWN", "template err|expected|unexpected")
