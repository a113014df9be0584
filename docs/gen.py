"""What the generated parts of the docs are made of; run by cog."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import typer

ROOT = Path(__file__).parents[1]


def commands() -> str:
    """Every command of `pdk` with its arguments and options."""
    from pdk.cli.main import app

    lines: list[str] = []

    def walk(command, words):
        children = getattr(command, "commands", None)
        if children:
            for name, child in children.items():
                walk(child, [*words, name])
            return
        lines.append(f"### {' '.join(words)}\n\n{(command.help or '').strip()}\n")
        rows = []
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                rows.append((parameter.name.upper(), getattr(parameter, "help", None) or ""))
            else:
                rows.append((", ".join(f"`{option}`" for option in parameter.opts), parameter.help or ""))
        lines.extend(f"- {name}: {help_}" if help_ else f"- {name}" for name, help_ in rows)
        lines.append("")

    walk(typer.main.get_command(app), ["pdk"])
    return "\n".join(lines)


def exit_codes() -> str:
    """The exit codes and what they stand for."""
    from pdk.cli.common import EXIT_CODES

    return "\n".join(["- 0: it went well", *(f"- {code}: {kind.__name__}: {kind.__doc__.splitlines()[0]}" for kind, code in EXIT_CODES)])


def variables() -> str:
    """Every variable that is read, by whom, and what it says."""
    from pdk.environment import PASSED_ON, VARIABLES

    rows = [f"| `{name}` | {reader} | {what} |" for name, (reader, what) in VARIABLES.items()]
    passed = ", ".join(f"`{name}…`" if name.endswith("_") else f"`{name}`" for name in PASSED_ON)
    head = ["| variable | read by | what it says |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows, "", f"Passed on to startup hooks and git: {passed}."])


def settings() -> str:
    """Every field of the settings' dataclasses with default and reason."""
    from pdk import environment, installation
    from pdk import settings as runtime

    lines: list[str] = []
    for module in (installation, environment, runtime):
        source = Path(module.__file__).read_text()
        for name, kind in vars(module).items():
            if is_dataclass(kind) and kind.__module__ == module.__name__:
                lines.append(f"### {name}\n\n{kind.__doc__.splitlines()[0]}\n")
                for entry in fields(kind):
                    match = re.search(rf"^    {entry.name}: [^\n=]*(?:= ([^\n#]*?))?\s*(?:#\s*([^\n]*))?$", source, re.MULTILINE)
                    default, reason = (match[1], match[2] or "") if match else (None, "")
                    stands = "required" if default is None else f"default `{default.strip()}`"
                    stands = "see above" if "default_factory" in stands else stands
                    lines.append(f"- `{entry.name}` ({stands}){': ' + reason if reason else ''}")
                lines.append("")
    return "\n".join(lines)


LIMIT = re.compile(r"^([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) = ([\d][^#\n]*?)[ ]*# (.*)$", re.MULTILINE)


def limits() -> str:
    """Every number that stands in a module with a comment: times, sizes and counts; those without are the numbers of a protocol."""
    rows = []
    for path in sorted((ROOT / "src/pdk").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT / "src/pdk").with_suffix("").parts)
        for names, value, reason in LIMIT.findall(path.read_text()):
            rows.append(f"| `{names}` | `{value}` | {reason} | {module} |")
    return "\n".join(["| name | value | what it is | module of `pdk` |", "| --- | --- | --- | --- |", *rows])
