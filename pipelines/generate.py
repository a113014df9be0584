"""Write the pipelines' specs from pipelines.jsonnet: ``make pipelines``; with ``--check`` say which differ."""

import json
import sys
from pathlib import Path

import _jsonnet

HERE = Path(__file__).parent
# target → folder below the example's, and what stands where the user's own values belong
TARGETS = {
    "local": (".", {}),
    "on-prem": ("on-prem", {"registry": "REGISTRY"}),
    "aws": ("aws", {"registry": "REGISTRY", "bucket": "NAME-repo-models"}),
    "gcp": ("gcp", {"registry": "REGISTRY", "bucket": "NAME-repo-models"}),
}
NAMES = ("training-pipeline.json", "deployment-pipeline.json")
# as people read
ORDER = ("pipeline", "description", "input", "transform", "image", "cmd", "stdin", "env", "secrets", "name", "key", "env_var")
WIDE = 110  # columns that an object or list may take on one line


def ordered(value):
    """The keys of objects in the order in which people read them."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value, key=lambda key: (ORDER.index(key) if key in ORDER else len(ORDER), key))}
    return [ordered(entry) for entry in value] if isinstance(value, list) else value


def text(value, indent=""):
    """JSON with what fits on a line on one line."""
    short = json.dumps(value)
    if (len(indent) + len(short) <= WIDE and indent) or not value or not isinstance(value, dict | list):
        return short
    deeper = indent + "  "
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{deeper}{json.dumps(key)}: {text(entry, deeper)}" for key, entry in value.items()) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + text(entry, deeper) for entry in value) + f"\n{indent}]"


def specs():
    """Path → content of every file."""
    source = str(HERE / "pipelines.jsonnet")
    found = {}
    for example in sorted(path.name for path in (HERE.parent / "experiments").iterdir() if path.is_dir()):
        for target, (folder, values) in TARGETS.items():
            rendered = json.loads(_jsonnet.evaluate_file(source, tla_vars={"example": example, "target": target, **values}))
            for name, spec in zip(NAMES, rendered, strict=True):
                found[HERE / example / folder / name] = text(ordered(spec)) + "\n"
    return found


def main():
    """Write, or check."""
    if "--check" in sys.argv:
        differ = [str(path) for path, content in specs().items() if not path.exists() or path.read_text() != content]
        sys.exit(f"not as pipelines.jsonnet has it: {', '.join(differ)}; run `make pipelines`" if differ else 0)
    for path, content in specs().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
