"""Fetch the experiment's code with the system's git. URL and ref come from a pipeline spec: hostile until checked."""

from __future__ import annotations

import ipaddress
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pdk.errors import UserError
from pdk.kit import reach
from pdk.timing import WAITING, clock

SCP = re.compile(r"(?:(?P<user>[A-Za-z0-9_.-]+)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?!//)(?P<path>[^\s]+)")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}")
SHA = re.compile(r"[0-9a-f]{40}")
METADATA = ipaddress.ip_address("fd00:ec2::254")  # of AWS, over IPv6
TIMEOUT_S = 600  # until a git command is given up
PAUSES_S = (1.0, 4.0)  # before git is run again while the other side is away


@dataclass(frozen=True)
class Checkout:
    """Code on disk: the experiment's folder, and the commit that it is."""

    folder: Path
    url: str
    sha: str


def check_url(url: str, roots: Sequence[Path]) -> str:
    """Return the URL in the form that git gets.

    Args:
        url: https://…, ssh://…, user@host:path, or a local path (also file://…) below one of `roots`.

    Raises:
        UserError: anything else.
    """
    if not url or url.startswith("-") or "::" in url or any(ord(character) < 33 or ord(character) == 127 for character in url):
        raise UserError(f"git URL {url!r} is not one: https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH is expected")
    if url.startswith(("/", "file://")):
        return str(_local(url, roots))
    if "://" not in url:
        match = SCP.fullmatch(url)
        if match is None:
            raise UserError(f"git URL {url!r} has no scheme; https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH is expected")
        return url
    # the original's guide writes https://git@github.com:/owner/repo.git, with a colon but no port
    try:
        parts = urlsplit(re.sub(r"^(https://[^/]*[^/:]):/", r"\1/", url))
    except ValueError as error:
        raise UserError(f"git URL {url!r} is not one: {error}") from error
    if parts.scheme not in ("https", "ssh"):
        raise UserError(f"git URL {url!r} has the scheme {parts.scheme!r}; only https and ssh are fetched")
    if not parts.hostname or not HOST.fullmatch(parts.hostname) or not parts.path.strip("/"):
        raise UserError(f"git URL {url!r} has no host or no path")
    if parts.password or (parts.scheme == "https" and parts.username not in (None, "git")):
        raise UserError("the git URL carries a credential, which would end up in logs; use one from the pipeline's secrets instead")
    return parts.geturl()


def check_host(url: str) -> None:
    """Refuse a git server that is a machine's own: clouds hand out a node's credentials at link-local addresses.

    Raises:
        UserError: the URL's host is, or resolves to, such an address.
    """
    host = urlsplit(url).hostname or "" if "://" in url else url.partition(":")[0].rpartition("@")[2]
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:  # git says so in its own words
        return
    for text in found:
        address = reach.meant(str(text))
        if address.is_link_local or address == METADATA:
            raise UserError(f"git URL {url!r} is not fetched: {host} is {address}, a link-local address, which no git server has")


def _local(url: str, roots: Sequence[Path]) -> Path:
    path = Path(url.removeprefix("file://")).resolve()
    allowed = [root.resolve() for root in roots]
    if not any(path == root or path.is_relative_to(root) for root in allowed):
        named = ", ".join(map(str, allowed)) or "none"
        raise UserError(
            f"git URL {url!r} is a path of this machine outside the allowed folders ({named}); allow one with `pdk up --allow-git DIR`"
        )
    if not (path / ".git").exists() and not (path / "HEAD").exists():
        raise UserError(
            f"git URL {url!r}: {path} is not a git repository (there is no .git); run `git init` and commit, or give another URL"
        )
    return path


def check_ref(ref: str) -> str:
    """Raise UserError for what cannot be a branch, tag or commit."""
    if not REF.fullmatch(ref) or ".." in ref or ref.endswith((".lock", "/", ".")):
        raise UserError(f"git ref {ref!r} is not a branch, tag or commit")
    return ref


@dataclass(frozen=True)
class Credentials:
    """What private repositories are read with, from the pipeline's secrets.

    `token` (with `user`) is given to the URL's own host by https; `key` is an SSH private key; `known_hosts` are the host keys that are
    trusted, the first one seen where it is empty; `certificates` is a file of certificate authorities.
    """

    token: str = ""
    user: str = ""
    key: str = ""
    known_hosts: str = ""
    certificates: str = ""

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> Credentials:
        """Those of a job: GIT_TOKEN, GIT_USER, GIT_SSH_KEY (or GIT_SSH_KEY_FILE, of a mounted secret), GIT_KNOWN_HOSTS, GIT_SSL_CAINFO.

        Raises:
            UserError: the key's file cannot be read.
        """
        key, place = environ.get("GIT_SSH_KEY", ""), environ.get("GIT_SSH_KEY_FILE", "")
        if place and not key:
            try:
                key = Path(place).read_text()
            except OSError as error:
                raise UserError(f"GIT_SSH_KEY_FILE: {place} cannot be read: {error.strerror}") from error
        known, authorities = environ.get("GIT_KNOWN_HOSTS", ""), environ.get("GIT_SSL_CAINFO", "")
        return cls(environ.get("GIT_TOKEN", ""), environ.get("GIT_USER", "git"), key, known, authorities)


# git asks it for user and password; what it says must not reach another host than the URL's (after a redirect, say)
ASK = """#!/bin/sh
case "$1" in
  *"//$PDK_GIT_HOST'"*|*"@$PDK_GIT_HOST'"*) ;;
  *) exit 1;;
esac
case "$1" in
  Username*) printf '%s\\n' "$PDK_GIT_USER";;
  *) printf '%s\\n' "$PDK_GIT_TOKEN";;
esac
"""
AWAY = re.compile(
    r"could not resolve host|connection (timed out|reset|refused)|HTTP 5\d\d|error: 5\d\d|early EOF|unexpected disconnect", re.IGNORECASE
)


class Git:
    """The system's git with nothing of the user's or system's configuration, and no way to ask for a password."""

    def __init__(self, scratch: Path, url: str, credentials: Credentials) -> None:
        self.repo, self.url = scratch / "repo", url
        scratch.mkdir(parents=True, exist_ok=True)
        config = scratch / "gitconfig"
        config.write_text("")
        self._environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(scratch), "LANG": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(config), "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "GIT_LFS_SKIP_SMUDGE": "1",
            **({"GIT_SSL_CAINFO": credentials.certificates} if credentials.certificates else {}),
            **_ask(scratch, url, credentials),
            **_ssh(scratch, credentials),
        }  # fmt: skip
        if url.startswith("/"):
            self("config", "--file", str(config), "safe.directory", "*")

    def __call__(self, *words: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run git, again while the other side is away.

        Raises:
            UserError: git failed; in git's own words.
        """
        guards = (
            "protocol.ext.allow=never",
            "protocol.file.allow=user",
            "core.hooksPath=/dev/null",
            "core.symlinks=false",
            "submodule.recurse=false",
        )
        command = ["git", *(word for guard in guards for word in ("-c", guard)), *words]
        for delay in (*PAUSES_S, None):
            try:
                with clock.during(WAITING):
                    done = subprocess.run(
                        command, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, input=stdin
                    )
            except FileNotFoundError:
                raise UserError("git is not installed where this job runs; install it") from None
            except subprocess.TimeoutExpired:
                raise UserError(f"git {words[0]} of {self.url} took longer than {TIMEOUT_S} s") from None
            if not done.returncode or delay is None or not AWAY.search(done.stderr):
                break
            time.sleep(delay)
        if check and done.returncode:
            raise UserError(f"git {self._verb(words)} of {self.url} failed: {done.stderr.strip()[-800:]}")
        return done

    def _verb(self, words: Sequence[str]) -> str:
        return words[2] if words[0] == "-C" else words[0]


def _ask(scratch: Path, url: str, credentials: Credentials) -> dict[str, str]:
    if not credentials.token or not url.startswith("https://"):
        return {}
    script = scratch / "ask"
    script.write_text(ASK)
    script.chmod(0o700)
    host = urlsplit(url).netloc.rpartition("@")[2]
    return {"GIT_ASKPASS": str(script), "PDK_GIT_HOST": host, "PDK_GIT_USER": credentials.user, "PDK_GIT_TOKEN": credentials.token}


def _ssh(scratch: Path, credentials: Credentials) -> dict[str, str]:
    known, options = scratch / "known_hosts", ["-o", "BatchMode=yes"]
    known.write_text(credentials.known_hosts.rstrip("\n") + "\n" if credentials.known_hosts else "")
    strict = "yes" if credentials.known_hosts else "accept-new"
    options += ["-o", f"StrictHostKeyChecking={strict}", "-o", f"UserKnownHostsFile={known}"]
    if credentials.key:
        key = scratch / "key"
        key.touch(0o600)
        key.write_text(credentials.key.strip() + "\n")
        options += ["-i", str(key), "-o", "IdentitiesOnly=yes"]
    return {"GIT_SSH_COMMAND": shlex.join(["ssh", "-F", "/dev/null", *options])}  # git gives it to a shell; nothing of the user's is in it


def check_folder(sub_dir: str) -> str:
    """Raise UserError for what is no folder inside a repository."""
    parts = sub_dir.split("/")
    if sub_dir.startswith(("/", "-")) or ".." in parts or not sub_dir.isprintable():
        raise UserError(f"the folder {sub_dir!r} is not inside the repository; give one relative to its top")
    return sub_dir.strip("/")


def checkout(
    url: str, ref: str, sub_dir: str, scratch: Path, roots: Sequence[Path] = (), credentials: Credentials | None = None
) -> Checkout:
    """Fetch `ref` (with as little history and as few files as the server allows) and check it out below `scratch`.

    Raises:
        UserError: URL, ref or folder are wrong, or git's own reason.
    """
    url, ref, sub_dir = check_url(url, roots), check_ref(ref), check_folder(sub_dir)
    if not url.startswith("/"):
        check_host(url)
    git = Git(scratch, url, credentials or Credentials())
    git("init", "--quiet", str(git.repo))
    inside = ("-C", str(git.repo))
    git(*inside, "remote", "add", "--", "origin", url)
    if sub_dir:
        git(*inside, "sparse-checkout", "set", "--cone", "--stdin", stdin=sub_dir + "\n")
    thin = ("--filter=blob:none",) if sub_dir else ()
    if git(*inside, "fetch", "--quiet", "--depth=1", "--no-tags", *thin, "--", "origin", ref, check=False).returncode == 0:
        sha = git(*inside, "rev-parse", "--verify", "FETCH_HEAD^{commit}").stdout.strip()
    else:  # an abbreviated commit, or a server that does not hand out single commits
        git(*inside, "fetch", "--quiet", *thin, "--", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        found = git(*inside, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", check=False)
        if found.returncode:
            found = git(*inside, "rev-parse", "--verify", "--quiet", "--end-of-options", f"origin/{ref}^{{commit}}", check=False)
        if found.returncode:
            raise UserError(f"git ref {ref!r} does not exist in {url}; give a branch, tag or commit that was pushed")
        sha = found.stdout.strip()
    if SHA.fullmatch(ref) and sha != ref:
        raise UserError(f"{url} answered commit {sha} for {ref}")
    git(*inside, "checkout", "--quiet", "--detach", sha)
    folder = (git.repo / sub_dir).resolve()
    if not folder.is_relative_to(git.repo.resolve()) or not folder.is_dir():
        raise UserError(f"there is no folder {sub_dir!r} in {url} at {sha[:12]}")
    return Checkout(folder, url, sha)
