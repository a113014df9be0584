"""The way to one Kubernetes; the client's errors stop here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from pdk.engines.patience import patiently
from pdk.errors import AuthError, Conflict, EngineError, NotFound, PdkError, TemporaryError, UserError
from pdk.timing import IMPORTS, clock

GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
OF = "serving.kserve.io/inferenceservice"  # label: the InferenceService that a pod belongs to
PATIENCE_S = 60.0  # how long the API may be away
CODES: dict[int, type[PdkError]] = {400: UserError, 401: AuthError, 403: AuthError, 404: NotFound, 409: Conflict, 422: UserError}


@contextlib.contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise the client's errors as PDK's."""
    try:
        yield
    except client.ApiException as error:
        kind = CODES.get(error.status, TemporaryError if error.status == 429 or error.status >= 500 else EngineError)
        raise kind(f"Kubernetes: {error.status} {error.reason}: {error.body or ''}"[:1000]) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TemporaryError(f"Kubernetes does not answer ({error}); is it running, and is the kubeconfig right?") from error


class Connection:
    """A client of one Kubernetes.

    Args:
        kubeconfig: file; without it the pod's own service account, or the user's kubeconfig.
        patience_s: seconds for which calls are repeated while it does not answer.
    """

    def __init__(self, kubeconfig: Path | None = None, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        try:
            if kubeconfig is not None:
                config.load_kube_config(str(kubeconfig))
            else:
                config.load_config()
        except (config.ConfigException, OSError) as error:
            raise UserError(f"no way to the Kubernetes API: {error}; give --k8s-config-file or set KUBECONFIG") from error
        with clock.during(IMPORTS):  # the client imports its 280 models when they are first named
            self._api, self._core, self._apps = client.CustomObjectsApi(), client.CoreV1Api(), client.AppsV1Api()

    def _patiently(self, call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Make a call of the API, repeated while nobody answers: an API server may be just starting again.

        Every call here names its object and its version, so that repeating one that had arrived does no harm.
        """

        def once() -> dict[str, Any]:
            with mapped_errors():
                return dict(call(GROUP, VERSION, *arguments))

        return patiently("Kubernetes", once, self._patience_s)
