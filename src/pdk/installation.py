"""What `pdk up` writes down of an installation: where its servers are, and what they may do."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pdk.durable import write_whole
from pdk.errors import NotFound, UserError

STATE_FILE, SECRET_FILE = "up.json", "secret"
MODELS_NAMESPACE = "models"  # of InferenceServices
SERVERS = ("pachyderm", "determined", "kserve", "gateway", "web")


def is_loopback(host: str) -> bool:
    """Return whether a bind address or host name stays on this machine."""
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
        """Return where clients on this machine reach the servers."""
        return "127.0.0.1" if self.bind in ("0.0.0.0", "::") else self.bind

    @property
    def kubeconfig(self) -> Path:
        """Return the kubeconfig of its own; its folder is mounted into jobs."""
        return self.state / "kube" / "config"

    def folder(self, server: str) -> Path:
        """Return a server's own folder."""
        path = self.state / server
        path.mkdir(parents=True, exist_ok=True)
        return path

    def secret(self) -> str:
        """Return the one secret of this installation; made at the first call, readable by its owner alone."""
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
        """Return the keys of the secret ``pipeline-secret``, as a cluster's set-up fills it for the guide's pipelines."""
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


def ports_from(pairs: Mapping[str, int]) -> Ports:
    """Ports by name.

    Raises:
        UserError: a name that is none of ours.
    """
    known = {entry.name for entry in fields(Ports)}
    if unknown := set(pairs) - known:
        raise UserError(f"unknown port name {min(unknown)!r}; known are {', '.join(sorted(known))}")
    return Ports(**pairs)
