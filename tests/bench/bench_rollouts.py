"""Rollouts of a pool on two cores beside a plain asyncio loop, in one interleaved run.

    python -m tests.bench.bench_rollouts [--rounds N] [--rollouts N] [--out FILE]

200 rollouts of 3 turns against the stub service, which answers after 0.2 s. An environment computes
for 0, 5 or 20 ms of CPU time a turn, or blocks for 100 ms as `time.sleep` does. The plain loop is
on the upstream SDK, one process, all rollouts at once; the pool is this package's, on a cluster of
its own on this machine. A turn's latency runs from its prompt to the end of its step.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from tests.bench.load_process import OWN, run_load
from tests.bench.result import machine, parser, publish, spread
from tests.bench.stub import stub_service
from tests.fakes.upstream import upstream_python

MEASURES = ("turns_per_s", "p50_s", "p99_s", "own_cpu_ms_per_turn")
LATENCY_S = 0.2
PLAIN, POOL = "plain loop on upstream 0.38.0", "RolloutPool, cluster"


@dataclass(frozen=True)
class Setting:
    """What a step does.

    Attributes:
        cpu_ms: Computing.
        blocked_ms: Waiting without giving way.
        once: One round is enough: it takes long, and hardly varies.
    """

    cpu_ms: float = 0.0
    blocked_ms: float = 0.0
    once: bool = False


SETTINGS = {
    "0 ms of CPU": Setting(),
    "5 ms of CPU": Setting(cpu_ms=5),
    "20 ms of CPU": Setting(cpu_ms=20),
    "100 ms blocked": Setting(blocked_ms=100, once=True),
}
BOUNDS = {  # at least so many times the turns/s, and at most so much of the median latency
    "0 ms of CPU": (0.8, None),
    "20 ms of CPU": (1.7, 0.5),
    "100 ms blocked": (10.0, None),
}


def measure(name: str, url: str, rollouts: int, setting: Setting) -> dict[str, Any]:
    """Run one load in a process of its own."""
    contenders = {PLAIN: "upstream", POOL: "pool", "RolloutPool, one process": "local"}
    arguments = ("--contender", contenders[name], "--rollouts", rollouts)
    return run_load(
        "rollout_load",
        *(url, *arguments, "--cpu-ms", setting.cpu_ms, "--blocked-ms", setting.blocked_ms),
        python=upstream_python("0.38.0") if name == PLAIN else OWN,
        # Ray's workers run at a lower priority by default, which would count against the pool.
        RAY_worker_niceness="0",
    )


def run(rounds: int, rollouts: int, names: list[str]) -> dict[str, Any]:
    """Measure all contenders in turns."""
    reports: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with stub_service("--latency", str(LATENCY_S)) as url:
        for number in range(rounds):
            for title, setting in SETTINGS.items():
                if setting.once and number:
                    continue
                for name in names:
                    report = measure(name, url, rollouts, setting)
                    reports.setdefault(title, {}).setdefault(name, []).append(report)
    results = {
        title: {name: spread(items, MEASURES) for name, items in by_name.items()}
        for title, by_name in reports.items()
    }
    return {
        "what": f"{rollouts} rollouts of 3 turns, {LATENCY_S:g} s at the service, {rounds} rounds",
        "machine": machine(),
        "load_average": os.getloadavg(),
        "results": results,
        "verdicts": _verdicts(results),
    }


def _verdicts(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Compare the pool with the plain loop."""
    verdicts = {}
    for title, by_name in results.items():
        pool, plain = by_name[POOL], by_name[PLAIN]
        speed, latency = (
            pool[measure_]["median"] / plain[measure_]["median"]
            for measure_ in ("turns_per_s", "p50_s")
        )
        at_least, at_most = BOUNDS.get(title, (0.0, None))
        verdicts[title] = {
            "times_the_turns": round(speed, 2),
            "of_the_latency": round(latency, 2),
            "holds": speed >= at_least and (at_most is None or latency <= at_most),
        }
    return verdicts


def table(result: dict[str, Any]) -> str:
    """Show the medians as Markdown."""
    lines = [
        "| a step takes | | turns/s | p50 s | p99 s | own CPU ms/turn |",
        "|---|---|---|---|---|---|",
    ]
    for title, by_name in result["results"].items():
        for name, summary in by_name.items():
            cells = [f"{summary[measure_]['median']:.3g}" for measure_ in MEASURES]
            lines.append(f"| {title} | {name} | {' | '.join(cells)} |")
    lines.append("")
    for title, verdict in result["verdicts"].items():
        words = "" if verdict["holds"] else " (BELOW THE BOUND)"
        lines.append(
            f"{title}: {verdict['times_the_turns']} times the turns/s, "
            f"{verdict['of_the_latency']} of the median latency{words}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table and write JSON."""
    command_line = parser(__doc__)
    command_line.add_argument("--rounds", type=int, default=2)
    command_line.add_argument("--rollouts", type=int, default=200)
    command_line.add_argument("--local", action="store_true", help="the pool in one process, too")
    options = command_line.parse_args()
    names = [PLAIN, POOL, *(["RolloutPool, one process"] if options.local else [])]
    result = run(options.rounds, options.rollouts, names)
    publish(result, options.out, table(result))


if __name__ == "__main__":
    main()
