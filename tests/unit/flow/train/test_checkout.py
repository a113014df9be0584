"""Git URLs and refs are hostile until checked."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.material import commit_all
from pdk.errors import UserError
from pdk.flow.train.checkout import check_ref, check_url, checkout


@pytest.mark.parametrize(
    ("url", "becomes"),
    [
        ("https://github.com/owner/repo.git", "https://github.com/owner/repo.git"),
        ("https://git@github.com:/owner/repo.git", "https://git@github.com/owner/repo.git"),
        ("https://example.com:8443/r", "https://example.com:8443/r"),
        ("ssh://git@example.com/r", "ssh://git@example.com/r"),
        ("git@example.com:owner/r.git", "git@example.com:owner/r.git"),
        ("git@example.com:/srv/r.git", "git@example.com:/srv/r.git"),
    ],
)
def test_urls_that_are_fetched(url, becomes):
    assert check_url(url, ()) == becomes


@pytest.mark.parametrize(
    "url",
    [
        "", "-oProxyCommand=x", "--upload-pack=x", "ext::sh -c id", "file:///etc", "/etc", "http://example.com/x", "git://example.com/x",
        "https://", "https:///x", "https://user:pw@example.com/x", "https://token@example.com/x", "https://exa mple.com/x", "https://[x/y",
        "a b", "x\ny", "fd::17", "https://-x/y", "ssh://-oProxyCommand=x/y",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url):
    with pytest.raises(UserError):
        check_url(url, ())


@pytest.mark.parametrize(
    "url", ["https://169.254.169.254/latest/meta-data", "ssh://git@169.254.170.2/x", "git@169.254.169.254:x", "https://2852039166/x"]
)
def test_a_machines_own_addresses_are_not_fetched_from(url, tmp_path):
    with pytest.raises(UserError, match="link-local address, which no git server has"):
        checkout(url, "main", "", tmp_path)


@given(st.text(max_size=60))
def test_any_text_is_a_clean_url_or_refused(text):
    try:
        url = check_url(text, ())
    except UserError:
        return
    assert not url.startswith("-")
    assert "::" not in url
    assert not any(ord(character) < 33 for character in url)


@pytest.mark.parametrize("ref", ["", "-x", "--all", "a..b", "a b", "a;b", "@{1}", "x.lock", "a\nb"])
def test_refs_that_are_refused(ref):
    with pytest.raises(UserError):
        check_ref(ref)


def test_branch_tag_and_commit_are_checked_out(tmp_path):
    repo = tmp_path / "repo"
    (repo / "sub").mkdir(parents=True)
    (repo / "sub" / "f").write_text("one")
    first = commit_all(repo)
    subprocess.run(["git", "-C", str(repo), "tag", "v1"], check=True)
    (repo / "sub" / "f").write_text("two")
    second = commit_all(repo)
    for number, (ref, sha, text) in enumerate(
        [("main", second, "two"), ("v1", first, "one"), (first, first, "one"), (first[:10], first, "one")]
    ):
        made = checkout(str(repo), ref, "sub", tmp_path / f"s{number}", (tmp_path,))
        assert (made.sha, (made.folder / "f").read_text()) == (sha, text)
    with pytest.raises(UserError, match="outside the allowed folders"):
        checkout(str(repo), "main", "sub", tmp_path / "x", (tmp_path / "other",))
    for sub, means in (
        ("../..", "not inside"),
        ("nothing", "no folder"),
        ("sub/f", "no folder"),
        ("-x", "not inside"),
        ("/etc", "not inside"),
    ):
        with pytest.raises(UserError, match=means):
            checkout(str(repo), "main", sub, tmp_path / f"y{sub.replace('/', '')}", (tmp_path,))


def test_a_repository_cannot_run_anything(tmp_path):
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "link").symlink_to("/etc/passwd")
    (repo / ".gitattributes").write_text("* filter=evil\n")
    commit_all(repo)
    hook = repo / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    made = checkout(str(repo), "main", "", tmp_path / "s", (tmp_path,))
    assert not (tmp_path / "ran").exists()
    assert not (made.folder / "link").is_symlink()
