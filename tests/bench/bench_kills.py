"""How well permits are used while samplers and the session's actor are killed, on a real cluster.

    python -m tests.bench.bench_kills [--samplers 1,4,8] [--seconds S] [--out FILE]

24 permits at a service that takes 0.25 s to accept a sample, which is saturated all the time. It
counts how many requests it has to accept at once. A killed sampler's permits are lost for one TTL
at most; a killed session grants nothing for one TTL, but takes over what is in use.
"""

from __future__ import annotations

import asyncio
import math
import os
from random import Random
from typing import Any

import ray

from tests.bench.result import machine, parser, publish
from tests.fakes.under_kills import UnderKills, run_under_kills
from tinker_ray.limits.permit import TTL_S

PERMITS = 24
DISPATCH_S = 0.25
START_S = 8.0
"""The limits are not used up in the first moments: samplers begin with caution."""


def summary(seen: UnderKills) -> dict[str, Any]:
    """Tell how well permits were used outside the time that a kill may cost, and within it."""
    end = max(at for at, count in seen.looks if count >= seen.permits * 0.5)
    calm: list[float] = []
    last = START_S
    for at, _ in [*seen.kills, (end, "end")]:
        calm += [seen.use(last, at)] if at - last > 1.0 else []
        last = at + TTL_S
    back = []
    for at, kind in seen.kills:
        times = [when for when, count in seen.looks if when > at + 0.5 and count >= 0.95 * PERMITS]
        back.append(
            {"killed": kind, "full_again_after_s": round(min(times, default=math.inf) - at, 2)}
        )
    return {
        "most_dispatches": seen.most_dispatches,
        "use_between": round(sum(calm) / len(calm), 4) if calm else None,
        "use_overall": round(seen.use(START_S, end), 4),
        "kills": back,
        "wrong": seen.wrong,
    }


async def measure(samplers: int, seconds: float) -> dict[str, Any]:
    """Run one load with a sampler and the session killed in it."""
    samples = int(PERMITS / DISPATCH_S * (seconds - START_S / 2))
    seen = await run_under_kills(
        permits=PERMITS,
        samplers=samplers,
        samples=samples,
        kinds=["sampler", "session"],
        random=Random(samplers),
        dispatch_s=DISPATCH_S,
        at=[0.3, 0.6],
    )
    return summary(seen)


def main() -> None:
    """Measure, print and write JSON."""
    command_line = parser(__doc__)
    command_line.add_argument("--samplers", default="1,4,8")
    command_line.add_argument("--seconds", type=float, default=45.0)
    options = command_line.parse_args()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        results = {
            number: asyncio.run(measure(int(number), options.seconds))
            for number in options.samplers.split(",")
        }
    finally:
        ray.shutdown()
    result = {
        "what": f"{PERMITS} permits, {DISPATCH_S:g} s to accept a sample, killed: one of each",
        "machine": machine(),
        "load_average": os.getloadavg(),
        "samplers": results,
    }
    publish(result, options.out)


if __name__ == "__main__":
    main()
