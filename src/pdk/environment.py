"""The variables that are read from the environment, and by whom: nothing else of it has an effect on PDK.

A function that needs them takes the environment as an argument where tests call it; only this module and those that
`tests/unit/test_layout.py` names look at the process's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pdk.errors import UserError

# name → who reads it, and what it says; docs/settings.md is made from this table, and a test compares it with what is read
COMMANDS, FLOW, TRAIN, DEPLOY, RUNTIME = "commands", "train and deploy step", "train step", "deploy step", "serving runtime"
VARIABLES: Mapping[str, tuple[str, str]] = {
    "PDK_STATE": (COMMANDS, "the installation's folder; without it `$XDG_STATE_HOME/pdk`, else `~/.local/state/pdk`"),
    "PDK_PROJECT": (COMMANDS, "the project of Pachyderm, where a command takes `--project`"),
    "XDG_STATE_HOME": (COMMANDS, "where folders of installations are"),
    "XDG_CACHE_HOME": (COMMANDS, "where caches of programs are; without it `~/.cache`"),
    "HOME": (COMMANDS, "the user's folder"),
    "PACHD_ADDRESS": (COMMANDS, "`grpc://HOST:PORT` of a Pachyderm instead of the installation's"),
    "PACH_TOKEN": (f"{COMMANDS}; {FLOW}", "the token for it; without it what `pachctl auth login` left"),
    "PACH_CONFIG": (COMMANDS, "pachctl's file; without it `~/.pachyderm/config.json`"),
    "KUBECONFIG": (COMMANDS, "the file that says which Kubernetes is asked, as kubectl reads it"),
    "DET_MASTER": (f"{COMMANDS}; {FLOW}", "the URL of a Determined instead of the installation's"),
    "DET_USER": (f"{COMMANDS}; {FLOW}", "the user there; without it `determined`"),
    "DET_PASS": (f"{COMMANDS}; {FLOW}", "the password; commands read DET_PASSWORD too"),
    "DET_PASSWORD": (f"{COMMANDS}; {FLOW}", "the same; it goes first in the steps, as the guide's secrets spell it"),
    "INGRESS_HOST": (COMMANDS, "where InferenceServices are reached, with INGRESS_PORT (without it 80)"),
    "INGRESS_PORT": (COMMANDS, "see INGRESS_HOST"),
    "AZURE_STORAGE_CONNECTION_STRING": (f"{COMMANDS}; {DEPLOY}", "how Azure's storage is reached, as `az` reads it"),
    "AZURE_STORAGE_ACCOUNT": (f"{COMMANDS}; {DEPLOY}", "the account in Azure's storage"),
    "AZURE_STORAGE_KEY": (f"{COMMANDS}; {DEPLOY}", "its key"),
    "AZURE_STORAGE_SAS_TOKEN": (f"{COMMANDS}; {DEPLOY}", "a token instead of the key"),
    "PACHD_LB_SERVICE_HOST": (FLOW, "Pachyderm's host, with PACHD_LB_SERVICE_PORT; from the secret `pipeline-secret`"),
    "PACHD_LB_SERVICE_PORT": (FLOW, "see PACHD_LB_SERVICE_HOST"),
    "PACHD_PEER_SERVICE_HOST": (FLOW, "Pachyderm's host as pachd tells its jobs, where the first is not set"),
    "PACHD_PEER_SERVICE_PORT": (FLOW, "see PACHD_PEER_SERVICE_HOST"),
    "PAC_TOKEN": (FLOW, "the token for Pachyderm, where it has authentication"),
    "PACH_JOB_ID": (FLOW, "set by Pachyderm: the job's ID"),
    "PPS_PIPELINE_NAME": (FLOW, "set by Pachyderm: the pipeline"),
    "PPS_PROJECT_NAME": (FLOW, "set by Pachyderm: the project"),
    "KSERVE_NAMESPACE": (DEPLOY, "the namespace of InferenceServices; without it `models`"),
    "GIT_TOKEN": (TRAIN, "the password for a git server that is reached by https"),
    "GIT_USER": (TRAIN, "the user there; without it `git`"),
    "GIT_SSH_KEY": (TRAIN, "the private key for a git server that is reached by ssh"),
    "GIT_SSH_KEY_FILE": (TRAIN, "a file with that key"),
    "GIT_KNOWN_HOSTS": (TRAIN, "the git server's keys, as lines of `known_hosts`; required with a key"),
    "GIT_SSL_CAINFO": (TRAIN, "a file with the certificate authority of a git server"),
    "PDK_GIT_ROOTS": (TRAIN, "set by `pdk up --allow-git`: folders that repositories may be in, with `:` between them"),
    "PROMETHEUS_MULTIPROC_DIR": (RUNTIME, "set by the runtime itself: where its workers keep their counts together"),
    "OMP_NUM_THREADS": ("trials", "how many threads of torch a trial has; set for each trial of a search"),
}
PASSED_ON = ("PIP_", "UV_", "SSL_CERT", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
             "no_proxy")  # fmt: skip


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
    """Return what ``pachctl auth login`` or ``use-auth-token`` left in pachctl's active context; empty where nobody logged in."""
    path = Path(environ.get("PACH_CONFIG") or Path(environ.get("HOME", "/")) / ".pachyderm" / "config.json")
    try:
        known = json.loads(path.read_text())["v2"]
        return str(known["contexts"][known["active_context"]].get("session_token") or "")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""


def named_kubeconfig(environ: Mapping[str, str] | None = None) -> str:
    """Return the file that ``$KUBECONFIG`` names, as kubectl reads it; empty where it names none."""
    return (os.environ if environ is None else environ).get("KUBECONFIG", "")


def kubectl_config(environ: Mapping[str, str] | None = None) -> str:
    """Return the file that kubectl reads: ``$KUBECONFIG``, else its default where that is there; empty where there is none (in a pod)."""
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
    """Return the user's own settings for pip and proxies, which startup hooks need."""
    environ = os.environ if environ is None else environ
    return {key: value for key, value in environ.items() if key.startswith(PASSED_ON)}


def environment_with(more: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process and `more`, for a child; of `defaults` what it does not set itself."""
    return {**defaults, **os.environ, **more}


def cache_home(environ: Mapping[str, str] | None = None) -> Path:
    """Return where caches of the user's programs are: ``$XDG_CACHE_HOME``, else a folder of the user's own."""
    environ = os.environ if environ is None else environ
    return Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/tmp")) / ".cache")


def azure_account(environ: Mapping[str, str] | None = None) -> tuple[str, str, str]:
    """Connection string, account, and key or SAS token of Azure's storage, as the `az` command line reads them; each may be empty."""
    environ = os.environ if environ is None else environ
    credential = environ.get("AZURE_STORAGE_KEY") or environ.get("AZURE_STORAGE_SAS_TOKEN") or ""
    return environ.get("AZURE_STORAGE_CONNECTION_STRING", ""), environ.get("AZURE_STORAGE_ACCOUNT", ""), credential


def shared_metrics() -> str:
    """Return the folder in which several workers keep their counts together, as prometheus_client reads it; empty for one worker."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")


@dataclass(frozen=True)
class Addresses:
    """Where a job of the flow finds the engines, out of the variables that its pipeline sets."""

    pachd_host: str
    pachd_port: int
    pachd_token: str = ""  # where Pachyderm has authentication
    master: str = ""  # Determined's URL
    user: str = ""
    password: str = ""

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> Addresses:
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
    """Return the first of several variables that is set.

    Raises:
        UserError: none is.
    """
    for name in names:
        if environ.get(name):
            return environ[name]
    raise UserError(f"the environment variable {names[0]} is not set; is it in the pipeline's secrets (transform.secrets)?")
