"""`pdk archive`: model archives (.mar) made, looked into and tried out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pdk.cli.commands import Command
from pdk.cli.common import Output, show


def create(
    target: Annotated[Path, typer.Argument(help="The .mar to write.")],
    handler: Annotated[str, typer.Option(help="FILE.py, FILE.py:FUNCTION, or one of torchserve's own by name.")],
    name: Annotated[str | None, typer.Option("--name", help="The model's name (default: the file's).")] = None,
    version: Annotated[str, typer.Option("--version", help="The model's version.")] = "1.0",
    serialized_file: Annotated[Path | None, typer.Option(help="Weights: TorchScript (.pt), torch.export (.pt2), or a state dict.")] = None,
    model_file: Annotated[Path | None, typer.Option(help="Python file with the model's class, for a state dict.")] = None,
    extra_file: Annotated[list[Path] | None, typer.Option(help="A file, or a folder with its structure. May be repeated.")] = None,
    requirements: Annotated[Path | None, typer.Option(help="requirements.txt of the handler; it is locked with hashes.")] = None,
    lock: Annotated[bool, typer.Option(help="Lock the requirements (needs a package index).")] = True,
    config: Annotated[Path | None, typer.Option(help="model-config.yaml: batchSize, maxBatchDelay (ms), responseTimeout (s).")] = None,
) -> None:
    """Write an archive; the same inputs give the same bytes."""
    from pdk.mar.create import Parts
    from pdk.mar.create import create as make

    parts = Parts(handler, serialized_file, model_file, extra_file or (), requirements, config, lock)
    made = make(target, name or target.name.removesuffix(".mar"), version, parts)
    typer.echo(f"{target}: model {made.manifest.model_name}, {len(made.names) - 1} files, sha256 {made.digest()}")


def inspect(path: Annotated[Path, typer.Argument(help="A .mar.")], output: Output = "table") -> None:
    """Show what an archive says of itself, without running anything of it."""
    from pdk.mar.create import inspect as look

    found = look(path)
    if output == "json":
        typer.echo(json.dumps(found, indent=1))
        return
    for key in ("model", "version", "handler", "digest", "bytes"):
        typer.echo(f"{key + ':':12}{found[key]}")
    if found["provenance"]:
        typer.echo(f"provenance: {json.dumps(found['provenance'], sort_keys=True)}")
    show([{"file": name, "bytes": size} for name, size in sorted(found["files"].items())], output)


def check(
    path: Annotated[Path, typer.Argument(help="A .mar.")],
    example: Annotated[Path | None, typer.Option(help='A request that it must answer, {"instances": […]}.')] = None,
) -> None:
    """Import an archive's handler and have it answer an example, in a process of its own."""
    from pdk.serving.check import check as try_out

    predictions = try_out(path, example)
    typer.echo(f"{path}: the handler loads" + (f" and answers {json.dumps(predictions)}" if example else "; give an --example to ask it"))


COMMANDS = (
    Command("archive create", create),
    Command("archive inspect", inspect),
    Command("archive check", check),
)
