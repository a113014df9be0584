"""Where the server fetches from and sends to for whoever asks it, as clients see it."""

from unit.kit.test_reach import web  # noqa: F401 - a fixture


def test_from_outside(up, pachctl, name, web):  # noqa: F811
    up.run(pachctl, "create", "project", name)
    up.run(pachctl, "create", "repo", "data", "--project", name)
    said = up.fails(pachctl, "put", "file", "data@master:/x", "-f", f"http://127.0.0.1:{web[0]}/x", "--project", name)
    assert "127.0.0.1, which is not an address of the internet" in said
    assert "--allow-url" in said
