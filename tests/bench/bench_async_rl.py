"""The asynchronous loop beside the synchronous one, in an environment that takes 100 ms a step.

    python -m tests.bench.bench_async_rl [--rounds N] [--out FILE]

Each run trains tiny-adder on the embedded engine, as a process of its own in local mode, until its
held-out accuracy is at the target. 16 groups run at once, so that a step of 64 waits for its
environments several times over. Seconds are those until the evaluation that reaches the target;
seeds differ by round, and are the same for both loops.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.slow_adder import STEP_S
from tests.e2e import command

TARGET = 0.90
LOOPS: dict[str, tuple[str, ...]] = {
    "synchronous": (),
    "asynchronous, max_staleness 1": ("--set", "max_staleness=1"),
}
MEASURES = ("seconds", "steps", "accuracy_after", "staleness_max")


def measure(settings: tuple[str, ...], seed: int, *more: str) -> dict[str, float]:
    """Train once and read what the run wrote down."""
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        command.run(
            *command.CLI,
            *("train", "--mode", "local", "--seed", str(seed)),
            *("--environment", "tests.bench.slow_adder:dataset"),
            *("--target-accuracy", str(TARGET), "--steps", "60"),
            *("--set", "groups_per_worker=8", "--set", "eval_every=3"),
            *("--set", "checkpoint_every=60", *settings, *more),
            cwd=cwd,
        )
        summary = command.summary(cwd)
        run = cwd / "runs" / "latest"
        manifest = json.loads((run / "manifest.json").read_text())
        ages = json.loads((run / "staleness.json").read_text())
        if settings and max(map(int, ages)) == 0:
            raise RuntimeError(f"{settings} had no effect: no group was ever stale")
    return {
        "seconds": manifest["seconds"],
        "steps": summary["steps"],
        "accuracy_after": summary["accuracy_after"],
        "staleness_max": max(map(int, ages)),
    }


def run(*, rounds: int, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Measure both loops, taking turns."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in LOOPS}
    for seed in range(rounds):
        for name, settings in LOOPS.items():
            results[name].append(measure(settings, seed, *more))
            print(f"{name}, seed {seed}: {results[name][-1]}", flush=True)  # noqa: T201
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "environment_ms": 1000 * STEP_S,
        "target": TARGET,
        "runs": results,
        "median": {
            name: {key: statistics.median(run[key] for run in runs) for key in MEASURES}
            for name, runs in results.items()
        },
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = run(rounds=options.rounds)
    print(f"| loop | {' | '.join(MEASURES)} |")  # noqa: T201
    for name, medians in result["median"].items():
        cells = " | ".join(f"{medians[key]:.3g}" for key in MEASURES)
        print(f"| {name} | {cells} |")  # noqa: T201
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
