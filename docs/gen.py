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


def settings() -> str:
    """Every field of the settings' dataclasses with default and reason."""
    import pdk.settings as module

    source = (ROOT / "src/pdk/settings.py").read_text()
    lines: list[str] = []
    for name, kind in vars(module).items():
        if is_dataclass(kind) and kind.__module__ == module.__name__:
            lines.append(f"### {name}\n\n{kind.__doc__.splitlines()[0]}\n")
            for entry in fields(kind):
                match = re.search(rf"^    {entry.name}: [^\n=]*(?:= ([^\n#]*?))?\s*(?:#\s*([^\n]*))?$", source, re.MULTILINE)
                default, reason = (match[1] or "required", match[2] or "") if match else ("", "")
                lines.append(f"- `{entry.name}` (default `{default.strip()}`){': ' + reason if reason else ''}")
            lines.append("")
    return "\n".join(lines)
