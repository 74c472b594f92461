"""Drive a service with whatever ``import tinker`` gives, and report each step as JSON.

    PYTHON -m tests.contract.drive BASE_URL --out FILE [--install [--generations G,…]]

Under the interpreter of an upstream SDK it drives with that; with ``--install`` it drives with this
package under upstream's name, and makes the calls of both generations, or of the one that the
service knows.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import warnings
from pathlib import Path
from typing import Any

from tests.contract.drive import plan

STEPS = ("training", "sampling", "registry")


def _module(*, install: bool) -> tuple[Any, frozenset[str]]:
    if install:
        importlib.import_module("tinker_ray").install()
        return importlib.import_module("tinker"), frozenset({plan.OLD, plan.NEW})
    version = importlib.metadata.version("tinker")
    generation = plan.OLD if version.startswith("0.6.") else plan.NEW
    return importlib.import_module("tinker"), frozenset({generation})


def main() -> None:
    """Drive, and write the outcomes to the file named by ``--out``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base_url")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--generations", type=lambda text: frozenset(text.split(",")))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # deprecations of the newer generation
    os.environ["TINKER_API_KEY"] = "tml-drive"
    os.environ["TINKER_BASE_URL"] = arguments.base_url
    tinker, generations = _module(install=arguments.install)
    if arguments.generations:
        generations &= arguments.generations
    for name in STEPS:
        importlib.import_module(f"tests.contract.drive.{name}")
    drive = plan.Drive(tinker, generations, arguments.base_url)
    drive.service = tinker.ServiceClient(user_metadata={"drive": "contract"})
    outcomes = plan.run(drive)
    arguments.out.write_text(json.dumps(outcomes, indent=2))
    os._exit(0)  # one generation's threads keep the process alive


if __name__ == "__main__":
    main()
