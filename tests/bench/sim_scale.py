"""How the limits of a cluster scale, from 1 to 2 000 samplers, in simulated time.

    python -m tests.bench.sim_scale [--samplers 1,8,64] [--out FILE]

Real ledgers and holders, event by event; modelled are the service (how long it takes, how many
samples it holds), the way of messages (2 ms), and the process that divides the limits: it serves
one message at a time, 0.9 ms of CPU each as measured for an actor call, and the CPU that the
ledgers take, as measured here. Two services: one that takes everything, so that the 400 dispatches
at once are what is scarce, and one that holds 1 000 samples of 10 s at once and says 429 to more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fakes.permit_fleet import LISTEN_S, Fleet
from tests.fakes.permit_service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SAMPLERS = (1, 8, 64, 400, 1000, 2000)
SERVE_S = 0.0009
LABELS = (("train", 3.0), ("eval", 1.0))


def jain(counts: Sequence[int]) -> float:
    """Jain's index of fairness: 1 if all have the same, 1/n if one has everything."""
    total = sum(counts)
    return total**2 / (len(counts) * sum(count * count for count in counts)) if total else 0.0


def _labels(num_samplers: int) -> Callable[[int], Sequence[tuple[str, float]]]:
    """Of which label each sampler's samples are: of both for a single one, else of one each."""
    if num_samplers == 1:
        return lambda _: LABELS
    return lambda index: [LABELS[index % 2]]


def _measure(fleet: Fleet, seconds: float, scarce: float, gauge: str) -> dict[str, float]:
    """Run a fleet, and describe it."""
    fleet.reset()
    started = time.process_time()
    fleet.run(seconds)
    done = fleet.done
    num_listens = len(fleet.samplers) / LISTEN_S
    busy = fleet.busy_s / seconds + num_listens * SERVE_S
    used = getattr(fleet, gauge).mean(fleet.now)
    by_label = [
        [sampler.done.total() for sampler in fleet.samplers.values() if label in sampler.done]
        for label, _ in LABELS
    ]
    return {
        "utilisation": round(used / scarce, 4),
        "samples_per_s": round(done.total() / seconds, 1),
        "num_429": fleet.service.num_rejected,
        "train_to_eval": round(done["train"] / max(done["eval"], 1), 3),
        "jain": round(min(jain(counts) for counts in by_label), 3),
        "messages_per_s": round(fleet.messages / seconds + num_listens, 1),
        "messages_per_sample": round(fleet.messages / max(done.total(), 1), 4),
        "busy": round(busy, 3),
        "ledger_us_per_message": round(1e6 * fleet.ledger_cpu_s / max(fleet.messages, 1), 1),
        "longest_wait_s": round(fleet.longest_queue_s, 3),
        "most_dispatching": fleet.dispatching.most,
        "simulation_cpu_s": round(time.process_time() - started, 1),
    }


def _recover(fleet: Fleet, scarce: float, gauge: str) -> dict[str, float]:
    """Lose a tenth of the samplers; tell when what they held is used again."""
    for holder in list(fleet.samplers)[::10]:
        fleet.kill(holder)
    started = fleet.now
    lowest = 1.0
    while fleet.now < started + 120.0:
        fleet.reset()
        fleet.run(1.0)
        used = getattr(fleet, gauge).mean(fleet.now) / scarce
        lowest = min(lowest, used)
        if used >= 0.95 and fleet.now >= started + 2.0:
            break
    return {"recovery_s": round(fleet.now - started, 1), "lowest_utilisation": round(lowest, 3)}


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        seconds: Of simulated time that are measured.
        limit: Dispatches at once.
        capacity: Samples that the service holds, where it is what is scarce.
        ledger_s: What the ledgers take for a message; None to measure it.
    """

    seconds: float = 90.0
    limit: int = 400
    capacity: int = 1000
    ledger_s: float | None = None


def _fleet(num_samplers: int, setting: Setting, service: Service, backlog: int) -> Fleet:
    return Fleet(
        num_samplers,
        service,
        limit=setting.limit,
        backlog=backlog,
        labels=_labels(num_samplers),
        serve_s=SERVE_S,
        ledger_s=setting.ledger_s,
        seed=3,
    )


def dispatches(num_samplers: int, setting: Setting) -> dict[str, float]:
    """Let dispatches be what is scarce: POSTs of 0.2 s, samples of 1 s, no 429."""
    service = Service(None, 0.2, 1.0, random.Random(7))
    backlog = max(8, 15 * setting.limit // num_samplers)
    fleet = _fleet(num_samplers, setting, service, backlog)
    fleet.run(20.0)
    result = _measure(fleet, setting.seconds, setting.limit, "dispatching")
    return result | (_recover(fleet, setting.limit, "dispatching") if num_samplers > 1 else {})


def window(num_samplers: int, setting: Setting) -> dict[str, float]:
    """Let the service be what is scarce: it holds 1 000 samples of 10 s at once."""
    service = Service(setting.capacity, 0.1, 10.0, random.Random(7))
    backlog = max(4, 4 * setting.capacity // num_samplers)
    fleet = _fleet(num_samplers, setting, service, backlog)
    fleet.run(60.0)
    begin = {
        "num_429_at_first": service.num_rejected,
        "busy_at_first": round(fleet.busy_s / 60.0, 3),
    }
    result = begin | _measure(fleet, 2 * setting.seconds, setting.capacity, "at_work")
    return result | (_recover(fleet, setting.capacity, "at_work") if num_samplers > 1 else {})


def run(samplers: Iterable[int] = SAMPLERS, setting: Setting | None = None) -> dict[str, Any]:
    """Simulate each size; return what was measured."""
    setting = setting or Setting()
    return {
        "what": f"{setting.seconds:g} s of simulated time after a start (window: twice that)",
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "versions": {"python": platform.python_version()},
        "setting": asdict(setting) | {"serve_ms": SERVE_S * 1e3},
        "dispatches": {str(count): dispatches(count, setting) for count in samplers},
        "window": {str(count): window(count, setting) for count in samplers},
    }


def main() -> None:
    """Simulate and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", default=",".join(map(str, SAMPLERS)))
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--out", type=Path, help="where to write the JSON besides the terminal")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.samplers.split(",")]
    result = json.dumps(run(sizes, Setting(arguments.seconds)), indent=2)
    print(result)  # noqa: T201 - a script
    if arguments.out is not None:
        arguments.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
