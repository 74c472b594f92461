"""Record the commands of the installed upstream SDK's command line, with their parameters.

Run it with an interpreter that has a release of the ``tinker`` package, once per generation::

    python tests/contract/record_cli.py tests/contract/golden/upstream_cli.json

Each run replaces the entry of its release in the file and leaves the others. Needs nothing but the
standard library and the SDK.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def commands(command: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - click's, in upstream's release
    """Describe a command, or all commands of a group, by full name."""
    found = {name or "tinker": parameters(command)}
    if hasattr(command, "list_commands"):
        for each in command.list_commands(None):
            found |= commands(command.get_command(None, each), f"{name} {each}".strip())
    return found


def parameters(command: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Describe the parameters of a command."""
    described = []
    for parameter in command.params:
        entry: dict[str, Any] = {"kind": parameter.param_type_name, "name": parameter.name}
        if parameter.param_type_name == "option":
            entry["options"] = sorted(parameter.opts)
            entry["flag"] = parameter.is_flag
        entry["many"] = bool(parameter.nargs == -1 or parameter.multiple)
        entry["required"] = parameter.required
        described.append(entry)
    return described


def main(path: Path) -> None:
    """Write the entry of the installed release into a file."""
    version = importlib.import_module("tinker").__version__
    root = importlib.import_module("tinker.cli.__main__").main_cli
    entries = json.loads(path.read_text()) if path.exists() else {}
    entries[version] = commands(root, "")
    path.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
