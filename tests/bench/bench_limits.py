"""What limits cost at a service that is full, in one interleaved run against the stub service.

    python -m tests.bench.bench_limits [--rounds N] [--samples N] [--processes 1,2,4,8] [--out FILE]

The service holds 200 samples at a time, each for a second, and says 429 to more. The load comes
from several processes: of the upstream SDK, which know nothing of each other, or our samplers on
one cluster. All of it is asked for at once and nothing is known of the service before. The service
itself counts. Medians over the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from typing import Any

from tests.bench.load_process import start_load
from tests.bench.result import machine, parser, publish
from tests.bench.stub import ask, stub_service
from tests.fakes.upstream import upstream_python

CAPACITY = 200
LATENCY_S = 1.0
ACCEPT_S = 0.01
PAUSE_S = 1.0
ON_THE_WIRE_S = 0.1
"""What arrives so soon after a 429 had been sent before anybody could know of it."""


def load(client: str, url: str, samples: int, **more: Any) -> subprocess.Popen[str]:  # noqa: ANN401
    """Start a process that asks for so many samples at once when it is told to, and is warm."""
    arguments = ("--client", client, "--samples", samples, "--width", samples, "--warm-up", 1)
    sizes = ("--prompt-tokens", 64, "--max-tokens", 16)
    return start_load("sample_load", url, *arguments, *sizes, "--barrier", **more)


def measure(contender: str, num_processes: int, samples: int) -> dict[str, Any]:
    """Run one load to its end."""
    options = ("--latency", LATENCY_S, "--capacity", CAPACITY, "--accept-latency", ACCEPT_S)
    with stub_service(*map(str, options)) as url:
        if contender == "upstream 0.38.0":
            python, share = upstream_python("0.38.0"), samples // num_processes
            running = [load("upstream", url, share, python=python) for _ in range(num_processes)]
        else:
            number = str(num_processes)
            fixed = {"TINKER_RAY_MIN_SAMPLERS": number, "TINKER_RAY_MAX_SAMPLERS": number}
            running = [load("cluster", url, samples, **fixed)]
        try:
            outputs = [process.stdout for process in running]
            assert all(output and "ready" in output.readline() for output in outputs)
            ask(url, "reset")
            for process in running:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            reports = [json.loads(output.readlines()[-1]) for output in outputs if output]
        finally:
            for process in running:
                process.terminate()
                process.wait()
        stats = ask(url, "stats")
    asked = [at for at in stats["arrivals"] if at > 0]
    seconds = max(report["seconds"] for report in reports)
    return {
        "samples": stats["admitted"],
        "rejected": stats["rejected"],
        "seconds": seconds,
        "of_the_ideal": stats["admitted"] * LATENCY_S / CAPACITY / seconds,
        "most_dispatches": stats["most_dispatches"],
        "sent_in_pauses": sent_in_pauses(asked, stats["rejections"]),
        "messages_per_sample": sum(r.get("messages", 0) for r in reports) / stats["admitted"],
    }


def sent_in_pauses(arrivals: list[float], rejections: list[float]) -> int:
    """Count the requests that came in the second after a 429, less those that were on their way."""
    return sum(
        any(at + ON_THE_WIRE_S < arrival < at + PAUSE_S for at in rejections)
        for arrival in arrivals
    )


def run(rounds: int, samples: int, sizes: list[int]) -> dict[str, Any]:
    """Measure everybody in turns."""
    reports: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for size in sizes:
            for contender in ("upstream 0.38.0", "this package"):
                report = measure(contender, size, samples)
                reports.setdefault(f"{contender}, {size}", []).append(report)
    return {
        "what": f"{samples} samples at a service that holds {CAPACITY} for {LATENCY_S:g} s",
        "machine": machine(),
        "load_average": os.getloadavg(),
        "rounds": rounds,
        "results": {
            name: {key: round(statistics.median(one[key] for one in items), 4) for key in items[0]}
            for name, items in reports.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    """Show the medians as Markdown."""
    columns = {
        "429s": "rejected",
        "of the ideal throughput": "of_the_ideal",
        "most POSTs at once": "most_dispatches",
        "POSTs in pauses": "sent_in_pauses",
        "messages per sample": "messages_per_sample",
    }
    lines = [f"| processes | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for name, report in result["results"].items():
        cells = [f"{report[key]:.3g}" for key in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table and write JSON."""
    command_line = parser(__doc__)
    command_line.add_argument("--rounds", type=int, default=1)
    command_line.add_argument("--samples", type=int, default=1600)
    command_line.add_argument("--processes", default="1,2,4,8")
    options = command_line.parse_args()
    sizes = [int(size) for size in options.processes.split(",")]
    result = run(options.rounds, options.samples, sizes)
    publish(result, options.out, table(result))


if __name__ == "__main__":
    main()
