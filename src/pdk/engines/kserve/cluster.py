"""What a cluster has been set up with: serving runtimes, config maps, service accounts."""

from __future__ import annotations

from pdk.engines.kserve.connection import GROUP, Connection, mapped_errors


class Cluster(Connection):
    """The calls about a cluster's set-up."""

    def runtimes(self) -> dict[str, tuple[str, ...]]:
        """Return the ClusterServingRuntimes, and the model formats of each."""
        with mapped_errors():
            found = self._api.list_cluster_custom_object(GROUP, "v1alpha1", "clusterservingruntimes")["items"]
        return {
            body["metadata"]["name"]: tuple(str(entry.get("name")) for entry in body["spec"].get("supportedModelFormats") or [])
            for body in found
        }

    def config_map(self, namespace: str, name: str) -> dict[str, str]:
        """Return what a config map holds.

        Raises:
            NotFound: there is none.
        """
        with mapped_errors():
            return dict(self._core.read_namespaced_config_map(name, namespace).data or {})

    def account(self, namespace: str, name: str) -> dict[str, str]:
        """Return what a service account and its secrets are annotated with.

        Raises:
            NotFound: there is none, or a secret of it is missing.
        """
        with mapped_errors():
            found = self._core.read_namespaced_service_account(name, namespace)
            notes = dict(found.metadata.annotations or {})
            for reference in found.secrets or []:
                notes.update(self._core.read_namespaced_secret(reference.name, namespace).metadata.annotations or {})
        return notes
