"""What a user's old client, python-pachyderm 7, sees: run by test_parity_old_client.py in an environment of its own, prints JSON."""

import json
import sys

import grpc
import python_pachyderm

client = python_pachyderm.Client(host=sys.argv[1], port=int(sys.argv[2]))
project, steps = sys.argv[3], []
repo = f"old-{project}"  # it knows no projects: everything is in the default one
master = (repo, "master")


def step(title, work):
    try:
        steps.append({"call": title, "answer": work()})
    except (grpc.RpcError, ConnectionError) as error:  # it wraps some of its errors
        cause = error if isinstance(error, grpc.RpcError) else error.__cause__
        steps.append({"call": title, "error": cause.code().name})


def paths(found):
    return [[f.file.path, f.size_bytes] for f in found]


step("get_remote_version", lambda: client.get_remote_version().major)
step("create_repo", lambda: client.create_repo(repo, "described") and None)
step("create_repo again", lambda: client.create_repo(repo) and None)
step("inspect_repo", lambda: client.inspect_repo(repo).description)
with client.commit(repo, "master") as commit:
    client.put_file_bytes(commit, "/a/b", b"one")
    client.put_file_bytes(commit, "/c", b"two")
step("wait_commit", lambda: len(client.wait_commit(commit.id)))
step("list_file", lambda: paths(client.list_file(master, "/")))
step("walk_file", lambda: paths(client.walk_file(master, "/")))
step("glob_file", lambda: paths(client.glob_file(master, "/**")))
step("get_file", lambda: client.get_file(master, "/a/b").read().decode())
step("inspect_file", lambda: client.inspect_file(master, "/c").size_bytes)
step("get_file of nothing", lambda: client.get_file(master, "/none").read().decode())
with client.commit(repo, "master") as commit:
    client.put_file_bytes(commit, "/d", b"three")
    client.delete_file(commit, "/c")
client.wait_commit(commit.id)
step("delete_file", lambda: paths(client.list_file(master, "/")))
step("diff_file", lambda: len(list(client.diff_file(master, "/", (repo, "master^"), "/"))))
step("list_commit", lambda: len(list(client.list_commit(repo))))
step("create_branch", lambda: client.create_branch(repo, "dev", commit) and None)
step("list_branch", lambda: sorted(info.branch.name for info in client.list_branch(repo)))
step("delete_branch", lambda: client.delete_branch(repo, "dev") and None)
step("list_pipeline", lambda: [info.pipeline.name for info in client.list_pipeline() if info.pipeline.name == repo])
step("delete_repo", lambda: client.delete_repo(repo) and None)
step("inspect_repo of nothing", lambda: client.inspect_repo(repo).description)
print(json.dumps(steps))
