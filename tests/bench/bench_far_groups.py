"""What a group costs the driver by value and by reference, from its rollout to its training.

    python -m tests.bench.bench_far_groups [--rounds N] [--out FILE]

Groups of 8 episodes of 512 to 8192 tokens (64 KiB to 1 MiB of tokens and logprobs, the prompts
included) are run on two workers against the stub service and trained on in batches of 8, on a
cluster of its own on this machine. By reference all are far, however small.
"""

from __future__ import annotations

from typing import Any

from tests.bench.load_process import run_load
from tests.bench.result import machine, parser, publish, spread
from tests.bench.stub import stub_service

MEASURES = ("driver_cpu_ms", "all_cpu_ms", "seconds_per_group")
TOKENS = (1024, 2048, 4096, 8192)
WAYS = {"by value": -1, "by reference": 1}


def run(rounds: int, groups: int) -> dict[str, Any]:
    """Measure both ways in turns."""
    reports: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with stub_service("--latency", "0.05") as url:
        for _ in range(rounds):
            for tokens in TOKENS:
                for way, far_bytes in WAYS.items():
                    report = run_load(
                        "far_load",
                        *(url, "--tokens", tokens, "--far-bytes", far_bytes, "--groups", groups),
                        RAY_worker_niceness="0",
                    )
                    by_way = reports.setdefault(f"8 x {tokens} tokens", {})
                    by_way.setdefault(way, []).append(report)
    results = {
        title: {way: spread(items, MEASURES) for way, items in by_way.items()}
        for title, by_way in reports.items()
    }
    return {"machine": machine(), "rounds": rounds, "groups": groups, "results": results}


def table(result: dict[str, Any]) -> str:
    """Lay the result out, a line a way."""
    lines = ["| group | way | driver CPU/group | CPU/group in all | seconds/group |"]
    lines.append("|---|---|---|---|---|")
    for title, by_way in result["results"].items():
        for way, found in by_way.items():
            driver, everything, seconds = (found[measure]["median"] for measure in MEASURES)
            lines.append(
                f"| {title} | {way} | {driver:.1f} ms | {everything:.1f} ms | {seconds:.3f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table, write JSON."""
    command_line = parser(__doc__)
    command_line.add_argument("--rounds", type=int, default=3)
    command_line.add_argument("--groups", type=int, default=48)
    options = command_line.parse_args()
    result = run(options.rounds, options.groups)
    publish(result, options.out, table(result))


if __name__ == "__main__":
    main()
