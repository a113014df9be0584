"""The words of PDK's own that one part writes and another reads: annotations, and forms of its own on the wire.

Annotations of an InferenceService (the deploy step and `pdk rollout` write them, on any KServe):

========================== ================================================================= ==========================================
``pdk/archive-digest``     the digest of what the archive is made from (SHA-256 in hex)      the deploy step, to find what serves
``pdk/model-version``      the name of the version that serves                               `pdk rollout`, `pdk trace`, the page
``pdk/previous``           what served before, to go back to: predictor, digest and version  `pdk rollout back`
                           as JSON
``pdk/keep-previous-s``    seconds for which the version before goes on running              the local KServe
``pdk/request-log-sample`` share of the requests whose bodies are logged, 0 to 1             the local KServe
========================== ================================================================= ==========================================

Annotations of Endpoints (the local KServe alone writes them; its next start and the gateway read them):

================== =======================================================================
``pdk/stable``     the predictor of the revision that was rolled out last, as JSON
``pdk/previous``   that of the one before
``pdk/pods``       pod to revision, as JSON
``pdk/weights``    address to its share of the requests, as JSON
``pdk/relied-on``  the addresses to which a request goes that another one dropped, as JSON
``pdk/wakes``      ``true`` where a request that finds no address had better wait for one
================== =======================================================================

Labels of an experiment (the train step writes them, with the data repo, the job's ID and its pipeline): `label_of` names its job, so that
the job finds it again, and the catalogue too; ``pdk:code@SHA`` names the commit of its code.

Files that a step leaves in its job's output: `MODEL_INFO` (name, version and provenance of what was trained; read by the deploy step and
the catalogue) and `DEPLOY_INFO` (service, version, URI, digest, and when it was archived; read by the catalogue).
"""

from __future__ import annotations

import struct

ARCHIVE_DIGEST = "pdk/archive-digest"
MODEL_VERSION = "pdk/model-version"
PREVIOUS_SERVED = "pdk/previous"
KEEP_PREVIOUS_S = "pdk/keep-previous-s"
REQUEST_LOG_SAMPLE = "pdk/request-log-sample"

STABLE = "pdk/stable"
PREVIOUS = "pdk/previous"
PODS = "pdk/pods"
WEIGHTS = "pdk/weights"
RELIED_ON = "pdk/relied-on"
WAKES = "pdk/wakes"

FILE_HEAD = struct.Struct(">HQ")  # before each file of a ``POST /-/put``: bytes of its path and of its content, which follow
OPEN_REQUESTS = "/pdk/v1/open-requests"  # of the local Kubernetes API: the gateway posts {"NAMESPACE/NAME": open requests}

MODEL_INFO, DEPLOY_INFO = "model-info.yaml", "deploy-info.yaml"
CODE_LABEL = "pdk:code@"


def label_of(project: str, pipeline: str, job: str) -> str:
    """Return the label of the experiment that a job made; no other experiment's has it."""
    return f"pdk:{project}/{pipeline}@{job}"
