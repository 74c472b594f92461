"""What a training batch costs each client, in one interleaved run against the stub service.

    python -m tests.bench.bench_training_clients [--rounds N] [--batches N] [--out FILE]

The contenders take turns in fresh processes, so that a busy machine is busy for all: the upstream
SDK of both generations, this package in one process and on a cluster, and the two requests written
by hand. Each trains at a service that wants batches plain and at one that wants them compressed;
what is on the wire is what the service received. Medians over the rounds; the spread is the least
and the most.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.stub import stub_service
from tests.fakes.upstream import upstream_python

REPOSITORY = Path(__file__).parents[2]
MEASURES = ("cpu_ms_per_batch", "cpu_ms_of_the_caller", "s_per_batch", "bytes_per_batch")
FORMS = ("plain", "zstd")
CONFIG_FLAG = "proto_compress_fwdbwd"


@dataclass(frozen=True)
class Contender:
    """A client under an interpreter, and the forms in which it can send a batch."""

    client: str
    python: Path
    forms: tuple[str, ...] = FORMS


def contenders() -> dict[str, Contender]:
    """Everybody who takes part; the older generation knows JSON only."""
    own = Path(sys.executable)
    return {
        "upstream 0.38.0": Contender("upstream", upstream_python("0.38.0")),
        "local": Contender("local", own),
        "cluster": Contender("cluster", own),
        "bare requests": Contender("bare", own),
        "upstream 0.6.3": Contender("upstream", upstream_python("0.6.3"), ("plain",)),
    }


def measure(contender: Contender, url: str, options: dict[str, int]) -> dict[str, Any]:
    """Run one load in a process of its own."""
    command = [str(contender.python), "-m", "tests.bench.train_load", url]
    command += ["--client", contender.client]
    command += [str(part) for pair in options.items() for part in pair]
    outcome = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if outcome.returncode:
        message = f"{contender.client} failed:\n{outcome.stderr[-2000:]}"
        raise RuntimeError(message)
    report: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return report


def run(rounds: int, names: list[str], options: dict[str, int]) -> dict[str, Any]:
    """Measure all contenders in turns."""
    everybody = contenders()
    reports: dict[str, dict[str, list[dict[str, Any]]]] = {form: {} for form in FORMS}
    start, load = time.monotonic(), [os.getloadavg()]
    compressing = json.dumps({CONFIG_FLAG: True})
    plain = json.dumps({CONFIG_FLAG: False})
    with (
        stub_service("--flags", plain) as plain_url,
        stub_service("--flags", compressing) as zstd_url,
    ):
        for _ in range(rounds):
            for form, url in {"plain": plain_url, "zstd": zstd_url}.items():
                for name in [name for name in names if form in everybody[name].forms]:
                    report = measure(everybody[name], url, options)
                    reports[form].setdefault(name, []).append(report)
            load.append(os.getloadavg())
    return {
        "what": f"forward_backward of 64 x 2 048 tokens, {rounds} rounds in turns",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "load_averages": load,
        "seconds": round(time.monotonic() - start, 1),
        "results": {
            form: {name: _summary(items) for name, items in by_name.items()}
            for form, by_name in reports.items()
        },
    }


def _summary(reports: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    summary = {}
    for measure_ in MEASURES:
        values = [report[measure_] for report in reports]
        summary[measure_] = {
            "median": round(statistics.median(values), 4),
            "least": round(min(values), 4),
            "most": round(max(values), 4),
        }
    return summary


def table(result: dict[str, Any]) -> str:
    """Show the medians as Markdown."""
    lines = []
    for form, by_name in result["results"].items():
        lines += [
            f"| {form} | CPU ms | least to most | of it the caller's | s | bytes on the wire |",
            "|---|" + "---|" * 5,
        ]
        for name, summary in by_name.items():
            cpu = summary["cpu_ms_per_batch"]
            cells = [
                f"{cpu['median']:.1f}",
                f"{cpu['least']:.1f} to {cpu['most']:.1f}",
                f"{summary['cpu_ms_of_the_caller']['median']:.1f}",
                f"{summary['s_per_batch']['median']:.3f}",
                f"{summary['bytes_per_batch']['median']:,.0f}".replace(",", " "),
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--contenders", nargs="+", default=list(contenders()))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = run(options.rounds, options.contenders, {"--batches": options.batches})
    print(table(result))  # noqa: T201 - a script
    print(f"load {result['load_averages'][-1]}, {result['seconds']} s")  # noqa: T201
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
