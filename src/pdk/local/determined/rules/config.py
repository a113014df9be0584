"""Experiment configs: checked, completed with the engine's defaults, older forms translated with a note of what changed."""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pdk.documents import Unreadable, read_yaml
from pdk.errors import UserError
from pdk.kit.logs import MASK
from pdk.local.determined.rules import hyperparameters, searcher_config, sections, storage
from pdk.local.determined.rules.fields import FLAG, LIST, MAPPING, NUMBER, TEXT, TEXTS, WHOLE, Field, check, complete, refusal
from pdk.local.determined.rules.sections import Config

LEGACY_ENTRYPOINT = re.compile(r"[a-zA-Z0-9_.]+:[a-zA-Z0-9_]+")
SECRET_KEY = re.compile(r"token|password|secret|access_key|api_key", re.IGNORECASE)
ENVIRONMENT_LIMIT = 100_000  # characters: the config travels in one variable, which the kernel limits to 128 KiB

FIELDS = {
    "bind_mounts": Field(LIST, []),
    "checkpoint_policy": Field(default="best", choices=("best", "all", "none")),
    "checkpoint_storage": Field(MAPPING, {}),
    "data": Field(MAPPING, {}),
    "debug": Field(FLAG, False),
    "description": Field(TEXT),
    "entrypoint": Field(),
    "environment": Field(MAPPING, {}),
    "hyperparameters": Field(MAPPING, {}),
    "labels": Field(TEXTS, []),
    "max_restarts": Field(WHOLE, 5, low=0),
    "min_checkpoint_period": Field(MAPPING, {"batches": 0}),
    "min_validation_period": Field(MAPPING, {"batches": 0}),
    "name": Field(TEXT, "experiment"),
    "optimizations": Field(MAPPING, {}),
    "perform_initial_validation": Field(FLAG, False),
    "preemption_timeout": Field(WHOLE, 3600, low=1),
    "profiling": Field(MAPPING, {}),
    "project": Field(TEXT, ""),
    "records_per_epoch": Field(WHOLE, 0, low=0),
    "reproducibility": Field(MAPPING, {}),
    "resources": Field(MAPPING, {}),
    "scheduling_unit": Field(WHOLE, 100, low=1),
    "searcher": Field(MAPPING),
    "workspace": Field(TEXT, ""),
}
SECTIONS = {
    "environment": {
        "add_capabilities": Field(TEXTS, []),
        "drop_capabilities": Field(TEXTS, []),
        "environment_variables": Field(default=[]),
        "force_pull_image": Field(FLAG, False),
        "image": Field(),
        "pod_spec": Field(MAPPING),
        "ports": Field(MAPPING, {}),
        "proxy_ports": Field(LIST, []),
        "registry_auth": Field(MAPPING),
    },
    "optimizations": {
        "aggregation_frequency": Field(WHOLE, 1, low=1),
        "auto_tune_tensor_fusion": Field(FLAG, False),
        "average_aggregated_gradients": Field(FLAG, True),
        "average_training_metrics": Field(FLAG, True),
        "grad_updates_size_file": Field(TEXT),
        "gradient_compression": Field(FLAG, False),
        "mixed_precision": Field(default="O0", choices=("O0", "O1", "O2", "O3")),
        "tensor_fusion_cycle_time": Field(WHOLE, 1, low=0),
        "tensor_fusion_threshold": Field(WHOLE, 64, low=0),
    },
    "profiling": {
        "begin_on_batch": Field(WHOLE, 0, low=0),
        "enabled": Field(FLAG, False),
        "end_after_batch": Field(WHOLE, low=0),
        "sync_timings": Field(FLAG, True),
    },
    "reproducibility": {"experiment_seed": Field(WHOLE, low=0, high=2**32 - 1)},
    "resources": {
        "agent_label": Field(TEXT),
        "devices": Field(LIST, []),
        "is_single_node": Field(FLAG),
        "max_slots": Field(WHOLE, low=1),
        "native_parallel": Field(FLAG, False),
        "priority": Field(WHOLE, 42, low=1, high=99),
        "resource_pool": Field(TEXT, "default"),
        "shm_size": Field(),
        "slots": Field(WHOLE, low=0),
        "slots_per_trial": Field(WHOLE, 1, low=0),
        "weight": Field(NUMBER, 1, low=1e-6),
    },
}
# settings of clusters that are read and have no effect on one machine; the last ones were taken out of the engine and are ignored there too
WITHOUT_EFFECT = {
    key: Field()
    for key in (
        "integrations", "internal", "log_policies", "pbs", "retention_policy", "security", "slurm", "tensorboard_storage", "data_layer",
        "hyperparameter_sets", "pachyderm",
    )
}  # fmt: skip


def parse(text: str, own: Path, slots: int, template: Mapping[str, Any] | None = None) -> Config:
    """Read a config as a client sends it.

    Args:
        text: YAML.
        own: the folder of this server for checkpoints.
        slots: that this machine offers.
        template: settings that hold where the config has none of its own.

    Raises:
        UserError: naming the field and the reason.
    """
    return fill(merge(template or {}, read(text)), own, slots)


def read(text: str) -> dict[str, Any]:
    """Return the mapping that a text is.

    Raises:
        UserError: it is not a mapping in YAML.
    """
    try:
        raw = read_yaml(text)
    except Unreadable as error:
        raise UserError(f"invalid experiment configuration: {error}") from error
    if not isinstance(raw, dict):
        raise UserError(f"invalid experiment configuration: a mapping is expected, not {type(raw).__name__}")
    if len(text) > ENVIRONMENT_LIMIT:
        raise UserError(f"invalid experiment configuration: it has {len(text):,} characters, more than {ENVIRONMENT_LIMIT:,}")
    return raw


def fill(raw: Mapping[str, Any], own: Path, slots: int) -> Config:
    """Check what a user wrote, and complete it.

    Raises:
        UserError: naming the field and the reason.
    """
    check("", raw, {**FIELDS, **WITHOUT_EFFECT})
    for name, fields in SECTIONS.items():
        check(name, raw.get(name) or {}, fields)
    notes: list[str] = []
    content = {**{key: raw[key] for key in WITHOUT_EFFECT if key in raw}, **complete(raw, FIELDS)}
    for name, fields in SECTIONS.items():
        content[name] = complete(content[name], fields)
    for key in ("min_checkpoint_period", "min_validation_period"):
        _check_period(key, content[key])
    _check_entrypoint(content["entrypoint"])
    environment_variables(content)
    if content["searcher"] is None:
        raise refusal("searcher", "is required: name and metric at least")
    content["searcher"] = searcher_config.complete(content["searcher"], content["hyperparameters"], notes)
    content["hyperparameters"] = hyperparameters.normal(content["hyperparameters"])
    _check_resources(content["resources"], slots, notes)
    content["bind_mounts"] = storage.complete_mounts(content["bind_mounts"])
    mounts = [storage.mount(entry["host_path"], entry["container_path"]) for entry in content["bind_mounts"]]
    content["checkpoint_storage"] = storage.complete(content["checkpoint_storage"], own, mounts)
    if content["reproducibility"]["experiment_seed"] is None:
        content["reproducibility"]["experiment_seed"] = int(time.time())
    made = sections.config(content, notes)
    storage.check_sources(made, own)
    return made


def merge(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `defaults`, mappings merged at every level (but for periods, which have one key); null means unset."""
    merged = copy.deepcopy(dict(defaults))
    for key, value in given.items():
        if value is None:
            continue
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and not key.endswith("_period"):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _check_period(key: str, period: Mapping[str, Any]) -> None:
    if len(period) != 1 or next(iter(period)) not in searcher_config.UNITS:
        raise refusal(key, f"one of {', '.join(searcher_config.UNITS)} with a number is expected, not {dict(period)!r}")
    check(key, period, {unit: Field(WHOLE, low=0) for unit in searcher_config.UNITS})


def environment_variables(content: Mapping[str, Any], kind: str = "cpu") -> dict[str, str]:
    """Return the variables that a config sets for its trials: a list of NAME=VALUE, or such lists by kind of slot (cpu, cuda, rocm).

    Raises:
        UserError: another form.
    """
    given = (content.get("environment") or {}).get("environment_variables") or []
    if isinstance(given, Mapping):
        given = given.get(kind) or []
    if not isinstance(given, list) or not all(isinstance(entry, str) and "=" in entry for entry in given):
        raise refusal("environment.environment_variables", "a list of NAME=VALUE is expected")
    return dict(entry.split("=", 1) for entry in given)


def _check_entrypoint(entry: Any) -> None:
    if isinstance(entry, list) and entry and all(isinstance(word, str) for word in entry):
        return
    if not isinstance(entry, str) or not entry.strip():
        raise refusal("entrypoint", "a command or module:Trial is required")


def check_scheduling(resources: Mapping[str, Any]) -> None:
    """Refuse what the scheduler cannot go by.

    Raises:
        UserError: naming the field and the reason.
    """
    check("resources", resources, SECTIONS["resources"])
    limit, slots = resources.get("max_slots") or math.inf, resources["slots_per_trial"]
    if slots > limit:
        raise refusal("resources.max_slots", f"{limit} is less than the {slots} slots of one trial")


def _check_resources(resources: dict[str, Any], offered: int, notes: list[str]) -> None:
    check_scheduling(resources)
    slots, pool = resources["slots_per_trial"], resources["resource_pool"]
    if slots > offered:
        raise refusal("resources.slots_per_trial", f"{slots} slots are asked for, this machine offers {offered}")
    if pool != "default":
        notes.append(f"resources.resource_pool: there is no pool {pool!r} on this machine; its own slots are used")
        resources["resource_pool"] = "default"


def redact(value: Any) -> Any:
    """Return a copy whose secrets (by the names of their keys) are masked."""
    if isinstance(value, Mapping):
        return {k: MASK if SECRET_KEY.search(str(k)) and isinstance(v, str) and v else redact(v) for k, v in value.items()}
    return [redact(entry) for entry in value] if isinstance(value, list) else value


def redact_text(text: str) -> str:
    """Return the user's own YAML with the values of secret keys masked."""
    return re.sub(
        r"(?im)^(\s*[\w.-]*(?:token|password|secret|access_key|api_key)[\w.-]*\s*:\s*)(?!['\"]{2}\s*$)\S.*$", rf"\1'{MASK}'", text
    )


def secrets_of(value: Any) -> Iterator[str]:
    """Give the secrets that a config holds."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if SECRET_KEY.search(str(key)) and isinstance(inner, str) and inner:
                yield inner
            else:
                yield from secrets_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from secrets_of(inner)
