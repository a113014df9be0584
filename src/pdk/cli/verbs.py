"""The verbs that commands stand under (``pdk list repo``), shared by the modules that fill them."""

from __future__ import annotations

import typer


def _group(what: str) -> typer.Typer:
    return typer.Typer(help=what, no_args_is_help=True)


create = _group("Create a project, repo, branch, pipeline or secret.")
update = _group("Update a pipeline.")
list_ = _group("List projects, repos, branches, commits, files, pipelines, jobs or datums.")
inspect = _group("Show a project, repo, branch, commit, file, pipeline or job.")
delete = _group("Delete a project, repo, branch, file or pipeline.")
put = _group("Put files.")
get = _group("Get files.")
glob = _group("Find files by a pattern.")
copy = _group("Copy files.")
diff = _group("Compare files.")
start = _group("Start a commit or pipeline.")
finish = _group("Finish a commit.")
squash = _group("Take commits out of history.")
drop = _group("Remove the newest commits.")
stop = _group("Stop a pipeline or job.")
store = _group("Look into the local server's store.")

VERBS = {
    "create": create, "update": update, "list": list_, "inspect": inspect, "delete": delete, "put": put, "get": get, "glob": glob,
    "copy": copy, "diff": diff, "start": start, "finish": finish, "squash": squash, "drop": drop, "stop": stop, "store": store,
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for name, group in VERBS.items():
        app.add_typer(group, name=name)
