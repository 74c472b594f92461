"""How long a training run misses an actor of each kind that is killed in the middle of it.

    python -m tests.bench.bench_training_kills [--rounds N] [--out FILE]

The demo's run, in both loops, on Ray and the embedded engine of this machine: at each of the first
steps an actor is killed with SIGKILL, all kinds in random order. Seconds are those from the kill
until something that needs the actor was done: for ``training`` the next step, for the others a call
or, for ``rollout``, the first sign of life of the worker that takes its place.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import ray

from tests.fakes.training_under_kills import (
    KINDS,
    Survived,
    strikes,
    train_under_kills,
    whole_run,
)

SECONDS = 800.0
LOOPS: dict[str, int | None] = {"synchronous": None, "asynchronous, max_staleness 1": 1}


def summary(survived: Survived) -> dict[str, Any]:
    """Tell what a run came to and how long each kind was missed."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for strike in survived.strikes:
        if strike.recovery_s is not None:
            seconds[strike.kind].append(round(strike.recovery_s, 2))
    return {
        "steps": survived.summary.steps,
        "optim_steps_applied": survived.applied,
        "kills": len(survived.strikes),
        "accuracy_after": survived.summary.accuracy_after,
        "median_step_s": round(statistics.median(step.step_s for step in survived.steps), 2),
        "longest_step_s": round(max(step.step_s for step in survived.steps), 2),
        "recovery_s": seconds,
    }


def measure(max_staleness: int | None, rounds: int) -> dict[str, Any]:
    """Train once with kills."""
    config = whole_run(2, max_staleness)
    planned = strikes(KINDS, seed=2, rounds=rounds)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TINKER_RAY_HOME"] = folder
        return summary(
            asyncio.run(train_under_kills(config, Path(folder), planned, seconds=SECONDS))
        )


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, namespace="kills")
    try:
        loops = {name: measure(staleness, options.rounds) for name, staleness in LOOPS.items()}
    finally:
        ray.shutdown()
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "load_average": os.getloadavg(),
        "loops": loops,
    }
    print(json.dumps(result, indent=1))  # noqa: T201 - a script
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
