"""Seconds and resident memory of ``import tinker_ray``, beside upstream's ``import tinker``.

    python tests/bench/bench_import.py [--upstream PYTHON] [--rounds N] [--out FILE]

PYTHON is an interpreter that has the upstream package. Each round starts one fresh process per
contender, in turn. Our clients are loaded when they are first named, so that they are measured too;
an interpreter that imports nothing gives the floor, which all others contain.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

CLIENTS = "ServiceClient, TrainingClient, SamplingClient, RestClient, APIFuture"
PROBE = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def measure(python: str, statement: str) -> tuple[float, float]:
    """Run one process; return its seconds and its megabytes at most."""
    start = time.perf_counter()
    run = subprocess.run(
        [python, "-c", f"{statement}; {PROBE}"], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - start, int(run.stdout) / 1024


def version(python: str, module: str) -> str:
    """Ask an interpreter which version of a module it has."""
    script = f"import {module}; print({module}.__version__)"
    run = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def run(rounds: int, upstream: str | None) -> dict[str, object]:
    """Measure; return the medians."""
    contenders = {
        "interpreter": (sys.executable, "pass"),
        "tinker_ray": (sys.executable, "import tinker_ray"),
        "tinker_ray_clients": (sys.executable, f"from tinker_ray import {CLIENTS}"),
    }
    versions = {
        "python": platform.python_version(),
        "tinker_ray": version(sys.executable, "tinker_ray"),
    }
    if upstream is not None:
        contenders["upstream"] = (upstream, "import tinker")
        versions["upstream"] = version(upstream, "tinker")
    for contender in contenders.values():
        measure(*contender)  # fills the caches of byte code and of the disk
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seen[name].append(measure(*contender))
    return {
        "what": f"{rounds} fresh processes each, in turn",
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "versions": versions,
        "median": {
            name: {
                "seconds": round(statistics.median(seconds for seconds, _ in runs), 3),
                "megabytes": round(statistics.median(megabytes for _, megabytes in runs), 1),
            }
            for name, runs in seen.items()
        },
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", help="an interpreter that has the package `tinker`")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="where to write the JSON besides the terminal")
    arguments = parser.parse_args()
    result = json.dumps(run(arguments.rounds, arguments.upstream), indent=2)
    print(result)  # noqa: T201 - a script
    if arguments.out is not None:
        arguments.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
