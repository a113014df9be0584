"""Every setting, with its default, unit and reason. Who else reads the environment is listed in `tests/unit/test_layout.py`."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pdk.durable import write_whole
from pdk.errors import NotFound, UserError

STATE_FILE, SECRET_FILE = "up.json", "secret"
MODELS_NAMESPACE = "models"  # of InferenceServices
SERVERS = ("pachyderm", "determined", "kserve", "gateway", "web")


def is_loopback(host: str) -> bool:
    """Whether a bind address or host name stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Ports:
    """TCP ports; the engines' own where they have usual ones, so that clients' defaults fit."""

    pachyderm: int = 30650  # gRPC, as pachd's node port
    s3: int = 30600  # Pachyderm's S3 gateway, as pachd's node port; /healthz of the Pachyderm server too
    determined: int = 8080  # as the Determined master's
    kserve: int = 6443  # as a Kubernetes API server's
    gateway: int = 8081  # the ingress; 80 would need root
    web: int = 8000  # the read-only page


@dataclass(frozen=True)
class Installation:
    """What `pdk up` writes down for its servers and clients: where everything is. The secret is kept apart."""

    state: Path
    bind: str = "127.0.0.1"
    ports: Ports = field(default_factory=Ports)
    git_roots: tuple[str, ...] = ()  # folders whose git repositories experiments may come from
    urls: tuple[str, ...] = ()  # places below which files may be fetched, beside the public web
    egress: tuple[str, ...] = ()  # places below which output may be copied
    domain: str = "example.com"  # InferenceServices answer to NAME.NAMESPACE.<domain>, as KServe's default

    @property
    def host(self) -> str:
        """Where clients on this machine reach the servers."""
        return "127.0.0.1" if self.bind in ("0.0.0.0", "::") else self.bind

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of its own; its folder is mounted into jobs."""
        return self.state / "kube" / "config"

    def folder(self, server: str) -> Path:
        """A server's own folder."""
        path = self.state / server
        path.mkdir(parents=True, exist_ok=True)
        return path

    def secret(self) -> str:
        """The one secret of this installation; made at the first call, readable by its owner alone."""
        path = self.state / SECRET_FILE
        if path.exists():
            return path.read_text().strip()
        temporary = self.state / f".{SECRET_FILE}.{os.getpid()}"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write("Pdk" + secrets.token_hex(24) + "\n")  # an upper-case letter and a digit: `det` warns otherwise
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # somebody else was faster: theirs counts
            os.link(temporary, path)  # whole or not at all
        temporary.unlink()
        return path.read_text().strip()

    def pipeline_secret(self) -> dict[str, str]:
        """The keys of the secret ``pipeline-secret``, as a cluster's set-up fills it for the guide's pipelines."""
        secret = self.secret()
        return {
            "det_master": f"http://{self.host}:{self.ports.determined}",
            "det_user": "determined",
            "det_password": secret,
            "pac_token": "" if is_loopback(self.bind) else secret,
            "pachd_lb_service_host": self.host,
            "pachd_lb_service_port": str(self.ports.pachyderm),
            "kserve_namespace": MODELS_NAMESPACE,
        }

    def save(self) -> None:
        """Write it where servers and clients look."""
        self.state.mkdir(parents=True, exist_ok=True)
        write_whole(self.state / STATE_FILE, json.dumps({**asdict(self), "state": str(self.state)}, indent=1) + "\n")

    @classmethod
    def load(cls, state: Path) -> Installation:
        """Read what `save` wrote.

        Raises:
            NotFound: nothing was ever started in that folder, or what it left cannot be read.
        """
        path = state / STATE_FILE
        try:
            return cls._from(json.loads(path.read_text()))
        except FileNotFoundError:
            raise NotFound(f"there is no PDK in {state}; start one with `pdk up --state {state}`") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise NotFound(f"{path} cannot be read ({error!r}); `pdk up --state {state}` makes it anew") from error

    @classmethod
    def _from(cls, content: dict[str, Any]) -> Installation:
        lists = {name: tuple(content.get(name) or ()) for name in ("git_roots", "urls", "egress")}
        content.update(state=Path(content["state"]), ports=Ports(**content["ports"]), **lists)
        return cls(**content)


def default_state(environ: Mapping[str, str] | None = None) -> Path:
    """``$PDK_STATE``, else a folder of the user's own."""
    environ = os.environ if environ is None else environ
    if chosen := environ.get("PDK_STATE"):
        return Path(chosen).absolute()
    return Path(environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/")) / ".local/state") / "pdk"


def named_pachyderm(environ: Mapping[str, str] | None = None) -> tuple[str, int, str] | None:
    """Host, port and token of the Pachyderm that ``$PACHD_ADDRESS`` (``grpc://HOST:PORT``) names; the token is $PACH_TOKEN or pachctl's.

    Raises:
        UserError: the address is none.
    """
    environ = os.environ if environ is None else environ
    address = environ.get("PACHD_ADDRESS")
    if not address:
        return None
    parts = urlsplit(address if "://" in address else f"grpc://{address}")
    if parts.scheme not in ("grpc", "http") or not parts.hostname:
        raise UserError(f"PACHD_ADDRESS is {address!r}: grpc://HOST:PORT is expected")
    return parts.hostname, parts.port or 30650, environ.get("PACH_TOKEN") or _pachctl_token(environ)


def _pachctl_token(environ: Mapping[str, str]) -> str:
    """What ``pachctl auth login`` or ``use-auth-token`` left in pachctl's active context; empty where nobody logged in."""
    path = Path(environ.get("PACH_CONFIG") or Path(environ.get("HOME", "/")) / ".pachyderm" / "config.json")
    try:
        known = json.loads(path.read_text())["v2"]
        return str(known["contexts"][known["active_context"]].get("session_token") or "")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""


def named_kubeconfig(environ: Mapping[str, str] | None = None) -> str:
    """The file that ``$KUBECONFIG`` names, as kubectl reads it; empty where it names none."""
    return (os.environ if environ is None else environ).get("KUBECONFIG", "")


def kubectl_config(environ: Mapping[str, str] | None = None) -> str:
    """The file that kubectl reads: ``$KUBECONFIG``, else its default where that is there; empty where there is none (in a pod)."""
    environ = os.environ if environ is None else environ
    default = Path(environ.get("HOME", "/")) / ".kube" / "config"
    return named_kubeconfig(environ) or (str(default) if default.is_file() else "")


def named_determined(environ: Mapping[str, str] | None = None) -> tuple[str, str, str] | None:
    """URL, user and password of the Determined that ``$DET_MASTER``, ``$DET_USER`` and ``$DET_PASS`` name, as `det` reads them."""
    environ = os.environ if environ is None else environ
    if not environ.get("DET_MASTER"):
        return None
    return environ["DET_MASTER"], environ.get("DET_USER") or "determined", environ.get("DET_PASS") or environ.get("DET_PASSWORD") or ""


def named_ingress(environ: Mapping[str, str] | None = None) -> tuple[str, int] | None:
    """Host and port that ``$INGRESS_HOST`` and ``$INGRESS_PORT`` name, as the guide's commands use them."""
    environ = os.environ if environ is None else environ
    host, port = environ.get("INGRESS_HOST", ""), environ.get("INGRESS_PORT") or "80"
    return (host, int(port)) if host and port.isdecimal() else None


def inherited(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The user's own settings for pip and proxies, which startup hooks need."""
    environ = os.environ if environ is None else environ
    wanted = (
        "PIP_",
        "UV_",
        "SSL_CERT",
        "REQUESTS_CA_BUNDLE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    )
    return {key: value for key, value in environ.items() if key.startswith(wanted)}


def environment_with(more: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process and `more`, for a child; of `defaults` what it does not set itself."""
    return {**defaults, **os.environ, **more}


def cache_home(environ: Mapping[str, str] | None = None) -> Path:
    """Where caches of the user's programs are: ``$XDG_CACHE_HOME``, else a folder of the user's own."""
    environ = os.environ if environ is None else environ
    return Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/tmp")) / ".cache")


def azure_account(environ: Mapping[str, str] | None = None) -> tuple[str, str, str]:
    """Connection string, account, and key or SAS token of Azure's storage, as the `az` command line reads them; each may be empty."""
    environ = os.environ if environ is None else environ
    credential = environ.get("AZURE_STORAGE_KEY") or environ.get("AZURE_STORAGE_SAS_TOKEN") or ""
    return environ.get("AZURE_STORAGE_CONNECTION_STRING", ""), environ.get("AZURE_STORAGE_ACCOUNT", ""), credential


def shared_metrics() -> str:
    """The folder in which several workers keep their counts together, as prometheus_client reads it; empty for one worker."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")


def share(text: str) -> float:
    """A share between 0 and 1, for argparse.

    Raises:
        argparse.ArgumentTypeError: something else.
    """
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 1")


def ports_from(pairs: Mapping[str, int]) -> Ports:
    """Ports by name.

    Raises:
        UserError: a name that is none of ours.
    """
    known = {entry.name for entry in fields(Ports)}
    if unknown := set(pairs) - known:
        raise UserError(f"unknown port name {min(unknown)!r}; known are {', '.join(sorted(known))}")
    return Ports(**pairs)


@dataclass(frozen=True)
class Engines:
    """Where a job of the flow finds the engines, out of the variables that its pipeline sets."""

    pachd_host: str
    pachd_port: int
    pachd_token: str = ""  # where Pachyderm has authentication
    master: str = ""  # Determined's URL
    user: str = ""
    password: str = ""

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> Engines:
        """Read the variables, the guide's spellings included.

        Raises:
            UserError: Pachyderm's address is missing.
        """
        return cls(
            pachd_host=needed(environ, "PACHD_LB_SERVICE_HOST", "PACHD_PEER_SERVICE_HOST"),
            pachd_port=int(needed(environ, "PACHD_LB_SERVICE_PORT", "PACHD_PEER_SERVICE_PORT")),
            pachd_token=environ.get("PAC_TOKEN") or environ.get("PACH_TOKEN") or "",  # the second is the pipeline's own, and may do less
            master=environ.get("DET_MASTER") or "",
            user=environ.get("DET_USER") or "",
            password=environ.get("DET_PASSWORD") or environ.get("DET_PASS") or "",
        )


def needed(environ: Mapping[str, str], *names: str) -> str:
    """The first of several variables that is set.

    Raises:
        UserError: none is.
    """
    for name in names:
        if environ.get(name):
            return environ[name]
    raise UserError(f"the environment variable {names[0]} is not set; is it in the pipeline's secrets (transform.secrets)?")


@dataclass(frozen=True)
class Serving:
    """How the runtime answers."""

    body_limit: int = 64 << 20  # bytes of a request; a photograph in base64 has a few MB
    queue: int = 256  # requests that may wait for the model; more are answered 503, or memory would grow without bound
    threads: int = 1  # torch threads of a worker: replicas scale better than threads on small models
    receive_s: float = 60.0  # seconds that a request may take to arrive; slower clients would hold memory for ever
    keep_alive_s: int = 75  # seconds that an idle connection is kept: longer than proxies keep theirs, so that they close first
    crash_limit: int = 5  # deaths of a model's workers within crash_window_s that stop the server
    crash_window_s: float = 60.0
    drain_s: int = 30  # seconds that open requests get on SIGTERM, as Kubernetes' grace period
