"""What a training batch costs each client, in one interleaved run against the stub service.

    python -m tests.bench.bench_training_clients [--rounds N] [--batches N] [--out FILE]

The contenders take turns in fresh processes, so that a busy machine is busy for all: the upstream
SDK of both generations, this package in one process and on a cluster, and the two requests written
by hand. Each trains at a service that wants batches plain and at one that wants them compressed;
what is on the wire is what the service received. Medians over the rounds; the spread is the least
and the most.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load_process import OWN, run_load
from tests.bench.result import machine, parser, publish, spread
from tests.bench.stub import stub_service
from tests.fakes.upstream import upstream_python

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
    return {
        "upstream 0.38.0": Contender("upstream", upstream_python("0.38.0")),
        "local": Contender("local", OWN),
        "cluster": Contender("cluster", OWN),
        "bare requests": Contender("bare", OWN),
        "upstream 0.6.3": Contender("upstream", upstream_python("0.6.3"), ("plain",)),
    }


def measure(contender: Contender, url: str, options: dict[str, int]) -> dict[str, Any]:
    """Run one load in a process of its own."""
    arguments = ("--client", contender.client, *itertools.chain(*options.items()))
    return run_load("train_load", url, *arguments, python=contender.python)


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
        "machine": machine(),
        "load_averages": load,
        "seconds": round(time.monotonic() - start, 1),
        "results": {
            form: {name: spread(items, MEASURES) for name, items in by_name.items()}
            for form, by_name in reports.items()
        },
    }


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
    command_line = parser(__doc__)
    command_line.add_argument("--rounds", type=int, default=3)
    command_line.add_argument("--batches", type=int, default=12)
    command_line.add_argument("--contenders", nargs="+", default=list(contenders()))
    options = command_line.parse_args()
    result = run(options.rounds, options.contenders, {"--batches": options.batches})
    took = f"load {result['load_averages'][-1]}, {result['seconds']} s"
    publish(result, options.out, f"{table(result)}\n{took}")


if __name__ == "__main__":
    main()
