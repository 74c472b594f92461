"""The asynchronous loop beside the synchronous one, in an environment that takes 100 ms a step.

    python -m tests.bench.bench_async_rl [--rounds N] [--steps N] [--out FILE]

Each run trains tiny-adder on the embedded engine, as a process of its own in local mode, for a
fixed number of steps, so that the levels at the end are of equal training. 16 groups run at once,
so that a step of 64 waits for its environments several times over. The loops take turns; seeds
differ by round, and are the same for both. ``seconds`` and ``steps`` are those until the first
evaluation at the target, by the end of that evaluation; ``waiting_s`` and ``training_s`` are what
the steps until then waited for groups and spent on training. A run that never gets there counts
with all of its time: its ``reached`` is false, and the table says how many there were.
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
MAX_STALENESS = 1
LOOPS: dict[str, tuple[str, ...]] = {
    "synchronous": (),
    "asynchronous, max_staleness 1": ("--set", f"max_staleness={MAX_STALENESS}"),
}
MEASURES = ("seconds", "steps", "waiting_s", "training_s", "accuracy_after", "staleness_max")


def measure(settings: tuple[str, ...], seed: int, steps: int, *more: str) -> dict[str, Any]:
    """Train once and read what the run wrote down.

    Raises:
        RuntimeError: A group was staler than its loop allows, or none was ever stale.
    """
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        command.run(
            *command.CLI,
            *("train", "--mode", "local", "--seed", str(seed)),
            *("--environment", "tests.bench.slow_adder:dataset"),
            *("--target-accuracy", "1", "--steps", str(steps)),
            *("--set", "groups_per_worker=8", "--set", "eval_every=3"),
            *("--set", f"checkpoint_every={steps}", *settings, *more),
            cwd=cwd,
            timeout_s=600,
        )
        summary = command.summary(cwd)
        run = cwd / "runs" / "latest"
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        staleness = json.loads((run / "staleness.json").read_text())
    stalest = max(map(int, staleness))
    if stalest > (MAX_STALENESS if settings else 0):
        raise RuntimeError(f"{settings}, seed {seed}: a group was stale by {stalest} steps")
    if settings and stalest == 0:
        raise RuntimeError(f"{settings} had no effect: no group was ever stale")
    return {
        **until_target(lines),
        "accuracy_after": summary["accuracy_after"],
        "staleness_max": stalest,
        "staleness": staleness,
    }


def until_target(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Return what a run took until the first evaluation at the target, or in all without one."""
    at_target = [line for line in lines if (line["eval_accuracy"] or 0.0) >= TARGET]
    last = at_target[0] if at_target else lines[-1]
    return {
        "reached": bool(at_target),
        "seconds": last["eval_elapsed_s"] if at_target else last["elapsed_s"],
        "steps": last["step"],
        "waiting_s": sum(line["rollout_s"] for line in lines if line["step"] <= last["step"]),
        "training_s": sum(line["train_s"] for line in lines if line["step"] <= last["step"]),
    }


def run(*, rounds: int, steps: int, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Measure both loops, taking turns."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in LOOPS}
    for seed in range(rounds):
        turns = list(LOOPS.items())
        for name, settings in turns if seed % 2 == 0 else reversed(turns):
            results[name].append(measure(settings, seed, steps, *more))
            print(f"{name}, seed {seed}: {results[name][-1]}", flush=True)  # noqa: T201
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "environment_ms": 1000 * STEP_S,
        "target": TARGET,
        "steps": steps,
        "runs": results,
        "median": {
            name: {key: statistics.median(run[key] for run in runs) for key in MEASURES}
            for name, runs in results.items()
        },
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = run(rounds=options.rounds, steps=options.steps)
    print(f"| loop | {' | '.join(MEASURES)} |")  # noqa: T201
    for name, medians in result["median"].items():
        cells = " | ".join(f"{medians[key]:.3g}" for key in MEASURES)
        print(f"| {name} | {cells} |")  # noqa: T201
    short = sum(not one["reached"] for runs in result["runs"].values() for one in runs)
    if short:
        print(f"{short} runs did not reach {TARGET}: their seconds are lower bounds")  # noqa: T201
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
