"""The variables that the guide's commands use, out of the config map that a cluster's set-up leaves (``deploy/*/pdk-config.env``)."""

from __future__ import annotations

from collections.abc import Mapping

CONFIG_MAP = "pdk-config"
VARIABLES = {
    "AZ_REGION": "region",
    "MLDM_NAMESPACE": "mldm_namespace",
    "MLDM_BUCKET_NAME": "mldm_bucket_name",
    "MLDM_HOST": "mldm_host",
    "MLDM_PORT": "mldm_port",
    "MLDM_URL": "mldm_url",
    "MLDM_PIPELINE_SECRET": "mldm_pipeline_secret",
    "MLDE_BUCKET_NAME": "mlde_bucket_name",
    "MLDE_HOST": "mlde_host",
    "MLDE_PORT": "mlde_port",
    "MLDE_URL": "mlde_url",
    "MODEL_ASSETS_BUCKET_NAME": "kserve_model_bucket_name",
    "KSERVE_MODELS_NAMESPACE": "kserve_model_namespace",
    "INGRESS_HOST": "kserve_ingress_host",
    "INGRESS_PORT": "kserve_ingress_port",
    "DB_CONNECTION_URL": "db_connection_string",
    "REGISTRY_URI": "registry_uri",
    "NAME": "pdk_name",
    # the same places, under the names that pachctl, det and pdk read
    "PACHD_ADDRESS": "mldm_url",
    "DET_MASTER": "mlde_url",
}


def variables(config_map: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a config map; keys that it lacks give none."""
    return {name: config_map[key] for name, key in VARIABLES.items() if config_map.get(key)}
