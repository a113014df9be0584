"""Experiment configs: checked, completed with the engine's defaults, older forms translated with a note of what changed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pdk.errors import UserError
from pdk.local.determined.service import searcher_config, storage
from pdk.local.kit.logs import MASK

LEGACY_ENTRYPOINT = re.compile(r"[a-zA-Z0-9_.]+:[a-zA-Z0-9_]+")
SECRET_KEY = re.compile(r"token|password|secret|access_key|api_key", re.IGNORECASE)
ENVIRONMENT_LIMIT = 100_000  # characters: the config travels in one variable, which the kernel limits to 128 KiB

DEFAULTS: dict[str, Any] = {
    "checkpoint_policy": "best",
    "data": {},
    "debug": False,
    "description": "",
    "hyperparameters": {},
    "labels": [],
    "max_restarts": 5,
    "min_checkpoint_period": {"batches": 0},
    "min_validation_period": {"batches": 0},
    "optimizations": {
        "aggregation_frequency": 1,
        "average_aggregated_gradients": True,
        "average_training_metrics": True,
        "gradient_compression": False,
        "mixed_precision": "O0",
    },
    "perform_initial_validation": False,
    "profiling": {"enabled": False},
    "reproducibility": {"experiment_seed": 0},
    "resources": {"slots_per_trial": 1},
    "scheduling_unit": 100,
    "searcher": {},
}
KNOWN = frozenset(DEFAULTS) | {
    "bind_mounts", "checkpoint_storage", "entrypoint", "environment", "hyperparameter_sets", "integrations", "internal",
    "log_policies", "name", "pachyderm", "pbs", "preemption_timeout", "project", "records_per_epoch", "retention_policy", "slurm",
    "tensorboard_storage", "workspace",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """A complete config, and notes for the user on what was changed."""

    content: dict[str, Any]
    notes: tuple[str, ...]


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
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"invalid experiment configuration: it is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise UserError(f"invalid experiment configuration: a mapping is expected, not {type(raw).__name__}")
    if len(text) > ENVIRONMENT_LIMIT:
        raise UserError(f"invalid experiment configuration: it has {len(text):,} characters, more than {ENVIRONMENT_LIMIT:,}")
    raw = merge(template or {}, raw)
    unknown = sorted(set(map(str, raw)) - KNOWN)
    if unknown:
        raise UserError(f"invalid experiment configuration: unknown field {unknown[0]!r}")
    _check_types(raw)
    content = merge(DEFAULTS, raw)
    notes: list[str] = []
    _check_entrypoint(content)
    content["searcher"] = searcher_config.complete(content["searcher"], content["hyperparameters"], notes)
    _check_resources(content, slots, notes)
    content["checkpoint_storage"] = storage.complete(content.get("checkpoint_storage") or {}, own, storage.bind_mounts(content))
    content.setdefault("name", "experiment")
    return Config(content, tuple(notes))


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


MAPPINGS = (
    "data",
    "hyperparameters",
    "optimizations",
    "resources",
    "searcher",
    "environment",
    "reproducibility",
    "profiling",
    "checkpoint_storage",
)
COUNTS = ("max_restarts", "scheduling_unit")


def _check_types(raw: Mapping[str, Any]) -> None:
    for key in MAPPINGS:
        if raw.get(key) is not None and not isinstance(raw[key], Mapping):
            raise UserError(f"invalid experiment configuration: {key}: a mapping is expected, not {raw[key]!r}")
    for key in COUNTS:
        value = raw.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise UserError(f"invalid experiment configuration: {key}: a whole number is expected, not {value!r}")
    seed = (raw.get("reproducibility") or {}).get("experiment_seed")
    if seed is not None and not isinstance(seed, int):
        raise UserError(f"invalid experiment configuration: reproducibility.experiment_seed: a whole number is expected, not {seed!r}")
    labels = raw.get("labels")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
        raise UserError(f"invalid experiment configuration: labels: a list of texts is expected, not {labels!r}")
    environment_variables(raw)


def environment_variables(content: Mapping[str, Any], kind: str = "cpu") -> dict[str, str]:
    """The variables that a config sets for its trials: a list of NAME=VALUE, or such lists by kind of slot (cpu, cuda, rocm).

    Raises:
        UserError: another form.
    """
    given = (content.get("environment") or {}).get("environment_variables") or []
    if isinstance(given, Mapping):
        given = given.get(kind) or []
    if not isinstance(given, list) or not all(isinstance(entry, str) and "=" in entry for entry in given):
        raise UserError("invalid experiment configuration: environment.environment_variables: a list of NAME=VALUE is expected")
    return dict(entry.split("=", 1) for entry in given)


def _check_entrypoint(content: dict[str, Any]) -> None:
    entry = content.get("entrypoint")
    if isinstance(entry, list) and entry and all(isinstance(word, str) for word in entry):
        return
    if not isinstance(entry, str) or not entry.strip():
        raise UserError("invalid experiment configuration: entrypoint: a command or module:Trial is required")


def check_scheduling(resources: Mapping[str, Any]) -> None:
    """Refuse what the scheduler cannot go by.

    Raises:
        UserError: naming the field and the reason.
    """
    for key, low, high in (("priority", 1, 99), ("max_slots", 1, 1 << 30)):
        value = resources.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
            raise UserError(f"invalid experiment configuration: resources.{key}: a whole number from {low} on is expected, not {value!r}")
    weight = resources.get("weight")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0):
        raise UserError(f"invalid experiment configuration: resources.weight: a positive number is expected, not {weight!r}")
    if resources.get("max_slots") is not None and resources["slots_per_trial"] > resources["max_slots"]:
        limit, slots = resources["max_slots"], resources["slots_per_trial"]
        raise UserError(f"invalid experiment configuration: resources.max_slots: {limit} is less than the {slots} slots of one trial")


def _check_resources(content: dict[str, Any], offered: int, notes: list[str]) -> None:
    resources = content["resources"]
    slots = resources.get("slots_per_trial")
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 0:
        raise UserError(f"invalid experiment configuration: resources.slots_per_trial: a whole number is expected, not {slots!r}")
    if slots > offered:
        raise UserError(
            f"invalid experiment configuration: resources.slots_per_trial: {slots} slots are asked for, this machine offers {offered}"
        )
    check_scheduling(resources)
    pool = resources.get("resource_pool")
    if pool and pool != "default":
        notes.append(f"resources.resource_pool: there is no pool {pool!r} on this machine; its own slots are used")
        resources["resource_pool"] = "default"


def redact(value: Any) -> Any:
    """A copy whose secrets (by the names of their keys) are masked."""
    if isinstance(value, Mapping):
        return {k: MASK if SECRET_KEY.search(str(k)) and isinstance(v, str) and v else redact(v) for k, v in value.items()}
    return [redact(entry) for entry in value] if isinstance(value, list) else value


def redact_text(text: str) -> str:
    """The user's own YAML with the values of secret keys masked."""
    return re.sub(
        r"(?im)^(\s*[\w.-]*(?:token|password|secret|access_key|api_key)[\w.-]*\s*:\s*)(?!['\"]{2}\s*$)\S.*$", rf"\1'{MASK}'", text
    )


def secrets_of(value: Any) -> Iterator[str]:
    """The secrets that a config holds."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if SECRET_KEY.search(str(key)) and isinstance(inner, str) and inner:
                yield inner
            else:
                yield from secrets_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from secrets_of(inner)
