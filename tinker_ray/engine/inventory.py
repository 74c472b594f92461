"""The embedded engines that are recorded on this machine, for people who look.

Reads what the launcher writes; takes none of its locks, so that looking changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tinker_ray.engine.launcher import STATE_FILE, runs


@dataclass(frozen=True, slots=True)
class RecordedEngine:
    """An engine that was ready once.

    Attributes:
        name: Of its folder: its models, and a digest of their places.
        url: Where it listens.
        pid: Its process.
        runs: Whether there is such a process.
        folder: Its log and its data.
    """

    name: str
    url: str
    pid: int
    runs: bool
    folder: Path


def recorded(home: Path) -> list[RecordedEngine]:
    """List the engines under a home, by name; files that cannot be read are left out.

    Args:
        home: As it was given to :func:`tinker_ray.engine.launcher.embedded`.
    """
    states = sorted((home.absolute() / "embedded").glob(f"*/{STATE_FILE}"))
    return [engine for state in states if (engine := _read(state)) is not None]


def _read(state: Path) -> RecordedEngine | None:
    try:
        content = json.loads(state.read_text())
        url, pid = str(content["url"]), int(content["pid"])
    except (OSError, ValueError, KeyError, TypeError):  # an engine that starts or ends just now
        return None
    return RecordedEngine(state.parent.name, url, pid, runs(pid), state.parent)
