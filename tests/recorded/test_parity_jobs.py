"""Jobs and commits as streams and sets, listings with filters, datums that are started anew, inputs as S3 buckets."""

import threading

import pytest
from pachyderm_sdk.api import pfs, pps

from recorded.test_parity_pipelines import ended, pfs_input


@pytest.fixture
def t(engine, recorded):
    engine.make_repo()
    return engine.transcript


def states(found):
    return sorted([f.job.pipeline.name, pps.JobState(f.state).name] for f in found)


def test_listings_are_filtered(engine, t):
    engine.put({"/a": b"1"})
    engine.make_pipeline("good", "true", pfs_input())
    engine.make_pipeline("bad", "exit 3", pfs_input(), datum_tries=1)
    for name in ("good", "bad"):
        engine.newest(name)
    projects = [pfs.Project(name=engine.project)]
    for filter_ in ('.state == "JOB_FAILURE"', '.job.pipeline.name == "good"', "select(.details) | true", "null", "1", ".a.b.c", ""):
        t.call(
            f"ListJob of {filter_!r}",
            lambda f=filter_: list(engine.sdk.pps.list_job(projects=projects, jq_filter=f, details=True)),
            show=states,
        )
    list_jobs = lambda **more: list(engine.sdk.pps.list_job(projects=projects, **more))  # noqa: E731
    t.call("ListJob, one that passes", lambda: list_jobs(jq_filter='.state == "JOB_SUCCESS"', number=1), show=states)
    t.fails("ListJob of no filter", lambda: list_jobs(jq_filter="select("), "UNKNOWN", "jq filter")
    t.fails("ListJob of a filter that fails", lambda: list_jobs(jq_filter='.state | error("no")'), "UNKNOWN", "jq filter")
    sets = lambda **more: list(engine.sdk.pps.list_job_set(projects=projects, **more))  # noqa: E731
    t.call("ListJobSet", sets, show=lambda found: sorted(states(s.jobs) for s in found))
    t.call("ListJobSet of a filter", lambda: sets(jq_filter='.state == "JOB_SUCCESS"'), show=lambda found: [states(s.jobs) for s in found])
    t.call("ListJobSet, one", lambda: sets(number=1), show=len)
    t.fails("ListJobSet of fewer than none", lambda: sets(number=-1), "UNKNOWN", "non-negative")
    pipelines = lambda **more: sorted(p.pipeline.name for p in engine.sdk.pps.list_pipeline(projects=projects, **more))  # noqa: E731
    t.call("ListPipeline of a filter", lambda: pipelines(jq_filter='.pipeline.name != "bad"'))
    t.fails("ListPipeline of no filter", lambda: pipelines(jq_filter="}"), "UNKNOWN", "jq filter")


def collected(stream, count):
    """The first answers of a stream that does not end by itself."""
    found = []
    for answer in stream:
        found.append(answer)
        if len(found) == count:
            break
    stream.close()
    return found


def test_jobs_and_commits_are_subscribed_to(engine, t):
    first = engine.put({"/a": b"1"})
    engine.make_pipeline("p", "cp /pfs/data/* /pfs/out/", pfs_input())
    engine.newest("p")
    subscribed = {}

    def subscribe(name, stream, count):
        subscribed[name] = threading.Thread(target=lambda: subscribed.update({name: collected(stream, count)}))
        subscribed[name].start()
        return subscribed[name]

    threads = [
        subscribe("commits", engine.sdk.pfs.subscribe_commit(repo=engine.repo(), branch="master", state=pfs.CommitState.FINISHED), 3),
        subscribe("later", engine.sdk.pfs.subscribe_commit(
            repo=engine.repo(), branch="master", from_=engine.commit(first), state=pfs.CommitState.FINISHED), 2),
        subscribe("jobs", engine.sdk.pps.subscribe_job(pipeline=engine.pipeline("p")), 2),
    ]  # fmt: skip
    ids = [first, engine.put({"/b": b"2"}), engine.put({"/c": b"3"})]
    for thread in threads:
        thread.join(120)
    t.call("SubscribeCommit", lambda: [ids.index(c.commit.id) for c in subscribed["commits"]])
    t.call("SubscribeCommit from one on", lambda: [ids.index(c.commit.id) for c in subscribed["later"]])
    t.call(
        "SubscribeJob", lambda: [ids.index(j.job.id) for j in subscribed["jobs"]], differs="a job that has ended is sent by neither at once"
    )
    engine.finished("p", ids[-1])
    kinds = lambda found: sorted([c.commit.repo.name, pfs.OriginKind(c.origin.kind).name] for c in found if c.commit.repo.type == "user")  # noqa: E731
    sets = {s.commit_set.id: s for s in engine.sdk.pfs.list_commit_set(project=pfs.Project(name=engine.project))}
    t.call("ListCommitSet", lambda: [kinds(sets[id_].commits) for id_ in ids[1:]])


def test_one_commit_is_squashed_or_dropped(engine, t):
    ids = [engine.put({f"/{number}": b"x"}) for number in range(4)]
    squash = lambda id_, **more: engine.sdk.pfs.squash_commit(commit=engine.commit(id_), **more) and None  # noqa: E731
    drop = lambda id_, **more: engine.sdk.pfs.drop_commit(commit=engine.commit(id_), **more) and None  # noqa: E731
    listed = lambda: [ids.index(c.commit.id) for c in engine.sdk.pfs.list_commit(repo=engine.repo())]  # noqa: E731
    t.call("SquashCommit", lambda: squash(ids[1]))
    t.call("then", listed)
    t.call("its files stay", lambda: sorted(f.file.path for f in engine.sdk.pfs.list_file(file=engine.file("/"))))
    t.fails("SquashCommit of the last", lambda: squash(ids[3]), "UNKNOWN", "no children")
    t.fails("DropCommit of one that has children", lambda: drop(ids[0]), "UNKNOWN", "has children")
    t.call("DropCommit", lambda: drop(ids[3]))
    t.call("then", listed)
    t.call("its file goes", lambda: sorted(f.file.path for f in engine.sdk.pfs.list_file(file=engine.file("/"))))
    engine.make_repo("below")
    engine.sdk.pfs.create_branch(branch=engine.branch("master", "below"), provenance=[engine.branch()])
    last = engine.put({"/5": b"x"})
    ids.append(last)
    t.fails("DropCommit of a source", lambda: drop(last), "UNKNOWN", "recursive|provenance|subvenance|depend")
    t.call("DropCommit with what is below", lambda: drop(last, recursive=True))
    t.call("then", listed)
    t.fails("SquashCommit of nothing", lambda: squash("0" * 12 + "4" + "0" * 19), "NOT_FOUND", "not found")


def test_repos_are_deleted_together(engine, t):
    engine.make_repo("more", "other")
    engine.make_pipeline("p", "true", pfs_input("other"))
    names = lambda: sorted(r.repo.name for r in engine.sdk.pfs.list_repo(type="user", projects=[pfs.Project(name=engine.project)]))  # noqa: E731
    t.fails(
        "DeleteRepos while a pipeline reads one",
        lambda: engine.sdk.pfs.delete_repos(projects=[pfs.Project(name=engine.project)]),
        "UNKNOWN",
        "pipeline|provenance",
    )
    t.call("then", names)
    engine.sdk.pps.delete_pipeline(pipeline=engine.pipeline("p"))
    deleted = lambda: engine.sdk.pfs.delete_repos(projects=[pfs.Project(name=engine.project)])  # noqa: E731
    t.call("DeleteRepos", deleted, show=lambda found: sorted(r.name for r in found.repos))
    t.call("then", names)


def test_a_datum_that_does_not_run_is_not_started_anew(engine, t):
    engine.put({"/a": b"1"})
    engine.make_pipeline("p", "true", pfs_input())
    job = engine.newest("p").job
    t.fails("RestartDatum of nothing", lambda: engine.sdk.pps.restart_datum(job=engine.job("no", job.id)), "NOT_FOUND", "not found")
    restart = lambda: engine.sdk.pps.restart_datum(job=job, data_filters=["/a"])  # noqa: E731
    t.fails("RestartDatum of one that has ended", restart, "UNKNOWN", "datum matching filter .* could not be found")


def test_an_input_as_an_s3_bucket(engine, t):
    engine.put({"/a/b": b"1", "/c": b"2"})
    script = "echo $S3_ENDPOINT | grep -c http > /pfs/out/endpoint; ls /pfs > /pfs/out/pfs"
    engine.make_pipeline("p", script, pfs_input(glob="/", s3=True))
    t.call("the job", lambda: engine.newest("p"), show=ended)
    t.call("it is told of an endpoint", lambda: engine.read("p", "/endpoint").decode())
    t.call("and has no files", lambda: "data" in engine.read("p", "/pfs").decode().split(), differs="an empty folder stands there locally")
