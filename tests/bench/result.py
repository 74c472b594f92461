"""What a benchmark makes of its reports: a summary over the rounds, a table and a JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def parser(documentation: str) -> argparse.ArgumentParser:
    """Make a command line with ``--out``, described by a module's first line."""
    made = argparse.ArgumentParser(description=documentation.splitlines()[0])
    made.add_argument("--out", type=Path)
    return made


def machine() -> dict[str, Any]:
    """Say where it was measured."""
    return {"cpus": os.cpu_count(), "python": platform.python_version()}


def spread(
    reports: Sequence[Mapping[str, float]], measures: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Summarize the rounds: the median of each measure, the least and the most."""
    summary = {}
    for measure in measures:
        values = [report[measure] for report in reports]
        summary[measure] = {
            "median": round(statistics.median(values), 4),
            "least": round(min(values), 4),
            "most": round(max(values), 4),
        }
    return summary


def publish(result: object, out: Path | None, shown: str | None = None) -> None:
    """Print the table, or else the result, and write the result to a file if one was named."""
    text = json.dumps(result, indent=2)
    print(text if shown is None else shown)  # noqa: T201 - for scripts
    if out is not None:
        out.write_text(text + "\n")
