"""Files: put, append, copy, delete, list, glob, walk, get, diff, file sets."""

import io
import tarfile

import pytest
from pachyderm_sdk.api import pfs

FILES = {"/a": b"one", "/b/c": b"two!", "/b/d/e": b"three", "/b.txt": b""}


def brief(found):
    """Path, size, type and (of small files) hash of every entry."""
    return [
        [f.file.path, f.size_bytes, pfs.FileType(f.file_type).name, f.hash.hex() if f.file_type == pfs.FileType.FILE else ""] for f in found
    ]


def changed(found):
    return [[side and side.file and side.file.path for side in (change.old_file, change.new_file)] for change in found]


@pytest.fixture
def t(engine, recorded):
    engine.make_repo()
    return engine.transcript


def test_what_was_put_is_listed(engine, t):
    engine.put(FILES)
    sdk = engine.sdk.pfs
    for path in ("/", "/b", "/b/", "/a", "b", "/b//d", "/nothing"):
        t.call(f"ListFile {path}", lambda path=path: sdk.list_file(file=engine.file(path)), show=brief)
    for path in ("/", "/b", "/b/", "/a", "b/c"):
        t.call(f"InspectFile {path}", lambda path=path: sdk.inspect_file(file=engine.file(path)), show=lambda info: brief([info]))
    t.fails("InspectFile of nothing", lambda: sdk.inspect_file(file=engine.file("/nothing")), "NOT_FOUND", "file .*nothing not found")
    for path in ("/", "/b", "/b/d/e"):
        t.call(f"WalkFile {path}", lambda path=path: sdk.walk_file(file=engine.file(path)), show=brief)
    t.fails("WalkFile of nothing", lambda: sdk.walk_file(file=engine.file("/nothing")), "NOT_FOUND", "not (found|contain)")


def test_listings_have_pages(engine, t):
    engine.put({f"/{number}": b"x" for number in range(6)})
    sdk = engine.sdk.pfs
    listed = lambda **more: lambda: sdk.list_file(file=engine.file("/"), **more)  # noqa: E731
    t.call("ListFile number", listed(number=2), show=brief)
    t.call("ListFile behind a marker", listed(number=2, pagination_marker=engine.file("/2")), show=brief)
    t.call("ListFile backwards", listed(number=2, reverse=True), show=brief)
    t.call("ListFile backwards before a marker", listed(number=2, reverse=True, pagination_marker=engine.file("/3")), show=brief)
    t.fails("ListFile backwards without a number", listed(reverse=True), "UNKNOWN", "number must be > 0")
    t.fails("ListFile of too many", listed(number=100_001), "UNKNOWN", "cannot return more than 100000")


GLOBS = (
    "/*", "/**", "/b/*", "/?", "/[ab]", "/[!a]", "/{a,b}", "/b*", "/**/e", "/b/@(c|x)", "/(*)", "/*.txt", "/", "", "b/**", "/+(a|x)",
    "/!(a)", "/*(a)", "/b/?(c)", "/nothing*",
)  # fmt: skip


def test_globs_match_alike(engine, t):
    engine.put(FILES)
    for pattern in GLOBS:
        t.call(
            f"GlobFile {pattern}",
            lambda pattern=pattern: engine.sdk.pfs.glob_file(commit=engine.commit(branch="master"), pattern=pattern),
            show=lambda found: [f.file.path for f in found],
        )
    t.fails(
        "GlobFile of a list that does not close",
        lambda: engine.sdk.pfs.glob_file(commit=engine.commit(branch="master"), pattern="/[a"),
        "UNKNOWN", "malformed|unexpected end",
    )  # fmt: skip


def test_files_are_read(engine, t):
    engine.put(FILES)
    sdk = engine.sdk.pfs
    joined = lambda parts: b"".join(part.value if hasattr(part, "value") else part for part in parts).decode()  # noqa: E731
    t.call("GetFile", lambda: sdk.get_file(file=engine.file("/b/d/e")), show=joined)
    t.call("GetFile from an offset", lambda: sdk.get_file(file=engine.file("/b/d/e"), offset=2), show=joined)
    t.call("GetFile from behind the end", lambda: sdk.get_file(file=engine.file("/b/d/e"), offset=99), show=joined)
    t.call("GetFile by a glob", lambda: sdk.get_file(file=engine.file("/?")), show=joined)
    t.fails("GetFile of a folder", lambda: sdk.get_file(file=engine.file("/b")), "UNKNOWN", "GetFileTAR instead")
    t.fails("GetFile of several", lambda: sdk.get_file(file=engine.file("/**")), "UNKNOWN", "GetFileTAR instead")
    t.fails("GetFile of nothing", lambda: sdk.get_file(file=engine.file("/nothing")), "NOT_FOUND", "file .*nothing not found")

    def members(parts):
        content = b"".join(part.value if hasattr(part, "value") else part for part in parts)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            return [[member.name, member.size, member.isdir()] for member in archive]

    t.call("GetFileTAR of a folder", lambda: sdk.get_file_tar(file=engine.file("/b")), show=members)
    t.call("GetFileTAR of all", lambda: sdk.get_file_tar(file=engine.file("/")), show=members)
    t.call("GetFileTAR by a glob", lambda: sdk.get_file_tar(file=engine.file("/b*")), show=members)
    t.fails("GetFileTAR of nothing", lambda: sdk.get_file_tar(file=engine.file("/nothing")), "NOT_FOUND", "not found")


def test_put_overwrites_and_appends(engine, t):
    read = lambda path: engine.read("data", path).decode()  # noqa: E731
    engine.put({"/a": b"one"})
    engine.put({"/a": b"two"})
    t.call("put again", lambda: read("/a"))
    engine.put({"/a": b"+", "/new": b"n"}, append=True)
    t.call("append", lambda: [read("/a"), read("/new")])
    requests = [*engine.changes({"/twice": b"1"}, engine.commit(branch="master")), *engine.changes({"/other": b"o"})]
    requests += engine.changes({"/twice": b"2"}, append=True)
    engine.sdk.pfs.modify_file(iter(requests))
    t.call("parts that do not follow each other", lambda: [read("/twice"), read("/other")])
    engine.put({"/a": None, "/absent": None})
    t.call("delete", lambda: engine.sdk.pfs.list_file(file=engine.file("/")), show=brief)


def test_folders_are_deleted_by_their_slash(engine, t):
    engine.put(FILES)
    engine.put({"/b": None})
    t.call("delete without a slash", lambda: engine.sdk.pfs.list_file(file=engine.file("/b")), show=brief)
    engine.put({"/b/": None})
    t.call("delete with a slash", lambda: engine.sdk.pfs.walk_file(file=engine.file("/")), show=brief)
    engine.put({"/": None})
    t.call("delete everything", lambda: engine.sdk.pfs.list_file(file=engine.file("/")), show=brief)


def copying(engine, source, target, **more):
    yield pfs.ModifyFileRequest(set_commit=engine.commit(branch="master"))
    yield pfs.ModifyFileRequest(copy_file=pfs.CopyFile(src=engine.file(source), dst=target, **more))


def test_copies(engine, t):
    engine.put(FILES)
    for title, source, target, more in (
        ("a file", "/a", "/copied", {}), ("a folder", "/b", "/folder", {}), ("over a file", "/a", "/b.txt", {}),
        ("onto a file", "/a", "/copied", {"append": True}), ("nothing", "/nothing", "/x", {}),
    ):  # fmt: skip
        t.call(f"CopyFile {title}", lambda s=source, d=target, m=more: engine.sdk.pfs.modify_file(copying(engine, s, d, **m)) and None)
        t.call(f"CopyFile {title}: then", lambda: engine.sdk.pfs.walk_file(file=engine.file("/")), show=brief)


REFUSED = (
    ("dots", "/a/../b", "relative file paths"), ("a dot", "./a", "relative file paths"), ("a wildcard", "/a*", "globbing character"),
    ("an umlaut", "/ä", "printable ASCII"), ("a line end", "/a\n", "printable ASCII"), ("nothing", "", "printable ASCII"),
)  # fmt: skip


def test_paths_that_are_refused(engine, t):
    for title, path, means in REFUSED:
        changes = engine.changes({path: b"x"}, engine.commit(branch="master"), append=True)
        t.fails(f"add a file named by {title}", lambda changes=changes: engine.sdk.pfs.modify_file(changes), "UNKNOWN", means)
    t.call("nothing was written", lambda: engine.sdk.pfs.list_commit(repo=engine.repo()), show=lambda found: len(list(found)))


def test_streams_that_are_refused(engine, t):
    sdk, add = engine.sdk.pfs, pfs.ModifyFileRequest(add_file=pfs.AddFile(path="/a", raw=b"x"))
    target = pfs.ModifyFileRequest(set_commit=engine.commit(branch="master"))
    t.fails("no commit first", lambda: sdk.modify_file(iter([add])), "UNKNOWN", "first message must be a commit")
    t.fails("two commits", lambda: sdk.modify_file(iter([target, add, target])), "UNKNOWN", "cannot set commit")
    gone = pfs.ModifyFileRequest(set_commit=engine.commit(repo="absent", branch="master"))
    t.fails("no such repo", lambda: sdk.modify_file(iter([gone, add])), "NOT_FOUND", "repo .*absent not found")
    done = engine.put({"/a": b"x"})
    closed = pfs.ModifyFileRequest(set_commit=engine.commit(done))
    t.fails("a finished commit", lambda: sdk.modify_file(iter([closed, add])), "UNKNOWN", "has already finished")


def test_differences(engine, t):
    first = engine.put(FILES)
    second = engine.put({"/a": b"changed", "/b/c": None, "/new/x": b"n"})
    sdk = engine.sdk.pfs
    t.call("DiffFile with the parent", lambda: sdk.diff_file(new_file=engine.file("/", second)), show=changed)
    t.call(
        "DiffFile of two commits", lambda: sdk.diff_file(new_file=engine.file("/", first), old_file=engine.file("/", second)), show=changed
    )
    t.call("DiffFile below a folder", lambda: sdk.diff_file(new_file=engine.file("/b", second)), show=changed)
    t.call("DiffFile of the first commit", lambda: sdk.diff_file(new_file=engine.file("/", first)), show=changed)
    t.call("DiffFile with itself", lambda: sdk.diff_file(new_file=engine.file("/", first), old_file=engine.file("/", first)), show=changed)


def test_commits_that_changed_a_path_are_found(engine, t):
    engine.put({"/a": b"1"})
    engine.put({"/b": b"1"})
    last = engine.put({"/a": b"2"})
    found = lambda answers: [[bool(a.found_commit and a.found_commit.id), a.commits_searched] for a in answers]  # noqa: E731
    sdk = engine.sdk.pfs
    t.call("FindCommits", lambda: sdk.find_commits(start=engine.commit(last), file_path="/a"), show=found)
    t.call("FindCommits with a limit", lambda: sdk.find_commits(start=engine.commit(last), file_path="/a", limit=1), show=found)
    t.call("FindCommits of nothing", lambda: sdk.find_commits(start=engine.commit(last), file_path="/nothing"), show=found)


def test_file_sets(engine, t):
    sdk = engine.sdk.pfs
    one = sdk.create_file_set(engine.changes({"/x": b"1"}, append=True)).file_set_id
    two = sdk.create_file_set(engine.changes({"/x": b"2", "/y": b"y"}, append=True)).file_set_id
    virtual = lambda id_: pfs.Commit(repo=pfs.Repo(name="__filesets__", type="user", project=pfs.Project(name="default")), id=id_)  # noqa: E731
    t.call("ListFile of a file set", lambda: sdk.list_file(file=pfs.File(commit=virtual(two), path="/")), show=brief)
    both = sdk.compose_file_set(file_set_ids=[one, two], ttl_seconds=600).file_set_id
    open_ = sdk.start_commit(branch=engine.branch())
    t.call("AddFileSet", lambda: sdk.add_file_set(commit=open_, file_set_id=both) and None)
    sdk.finish_commit(commit=open_)
    sdk.inspect_commit(commit=open_, wait=pfs.CommitState.FINISHED)
    t.call("AddFileSet: then", lambda: [engine.read("data", "/x").decode(), engine.read("data", "/y").decode()])
    whole = sdk.get_file_set(commit=open_).file_set_id
    t.call("GetFileSet", lambda: sdk.list_file(file=pfs.File(commit=virtual(whole), path="/")), show=brief)
    t.call("RenewFileSet", lambda: sdk.renew_file_set(file_set_id=whole, ttl_seconds=60) and None)
    t.fails("RenewFileSet for too long", lambda: sdk.renew_file_set(file_set_id=whole, ttl_seconds=4000), "UNKNOWN", "exceeds max ttl")
    t.fails("RenewFileSet for no time", lambda: sdk.renew_file_set(file_set_id=whole, ttl_seconds=0), "UNKNOWN", "at least one second")
    t.fails("AddFileSet to a finished commit", lambda: sdk.add_file_set(commit=open_, file_set_id=one), "UNKNOWN", "already finished")
