"""What a sample costs each client, in one interleaved run against the stub service.

    python -m tests.bench.bench_sampling_clients [--rounds N] [--samples N] [--out FILE]

The contenders take turns, so that a busy machine is busy for all: the upstream SDK of both
generations, this package in one process and on a cluster, and the two bare requests. Medians over
the rounds; the spread is the least and the most.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load_process import OWN, run_load
from tests.bench.result import machine, parser, publish, spread
from tests.bench.stub import stub_service
from tests.fakes.upstream import upstream_python

MEASURES = ("cpu_ms_per_sample", "samples_per_s", "p50_s", "p99_s")


@dataclass(frozen=True)
class Contender:
    """A client under an interpreter."""

    client: str
    python: Path


@dataclass(frozen=True)
class Setting:
    """What is sampled."""

    prompt_tokens: int
    max_tokens: int
    samples: int


def contenders() -> dict[str, Contender]:
    """Everybody who takes part."""
    return {
        "upstream 0.38.0": Contender("upstream", upstream_python("0.38.0")),
        "upstream 0.6.3": Contender("upstream", upstream_python("0.6.3")),
        "local": Contender("local", OWN),
        "cluster": Contender("cluster", OWN),
        "bare requests": Contender("bare", OWN),
    }


def measure(contender: Contender, url: str, setting: Setting) -> dict[str, Any]:
    """Run one load in a process of its own."""
    arguments = {
        "--client": contender.client,
        "--samples": setting.samples,
        "--prompt-tokens": setting.prompt_tokens,
        "--max-tokens": setting.max_tokens,
        "--warm-up": min(400, setting.samples),
    }
    options = itertools.chain(*arguments.items())
    return run_load("sample_load", url, *options, python=contender.python)


def run(
    rounds: int, settings: dict[str, Setting], names: list[str], latency_s: float
) -> dict[str, Any]:
    """Measure all contenders in turns."""
    everybody = contenders()
    reports: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with stub_service("--latency", str(latency_s)) as url:
        for _ in range(rounds):
            for title, setting in settings.items():
                for name in names:
                    report = measure(everybody[name], url, setting)
                    reports.setdefault(title, {}).setdefault(name, []).append(report)
    return {
        "what": f"400 samples in flight, {latency_s:g} s at the service, {rounds} rounds in turns",
        "machine": machine(),
        "load_average": os.getloadavg(),
        "settings": {title: vars(setting) for title, setting in settings.items()},
        "results": {
            title: {name: spread(items, MEASURES) for name, items in by_name.items()}
            for title, by_name in reports.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    """Show the medians as Markdown."""
    lines = []
    for title, by_name in result["results"].items():
        lines += [
            f"{title}:",
            "",
            "| | CPU ms/sample | samples/s | p50 s | p99 s |",
            "|---|" + "---|" * 4,
        ]
        for name, summary in by_name.items():
            cells = [f"{summary[measure_]['median']:.3g}" for measure_ in MEASURES]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table and write JSON."""
    command_line = parser(__doc__)
    command_line.add_argument("--rounds", type=int, default=3)
    command_line.add_argument("--samples", type=int, default=4000)
    command_line.add_argument("--latency", type=float, default=0.2)
    options = command_line.parse_args()
    settings = {
        "256 tokens in, 256 out": Setting(256, 256, options.samples),
        "32 768 tokens in, 16 out": Setting(32_768, 16, max(options.samples // 10, 1)),
    }
    result = run(options.rounds, settings, list(contenders()), options.latency)
    publish(result, options.out, table(result))


if __name__ == "__main__":
    main()
