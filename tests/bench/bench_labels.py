"""What labels get by their weights at a service that is full, through the clients.

    python -m tests.bench.bench_labels [--samples N] [--out FILE]

Evaluation of weight 1 and training of weight 3 ask for so many samples each at once; what is
counted is who is answered among the first so many answers, after the start in which the service's
capacity is learnt.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import tinker_ray
from tests.bench.result import parser, publish
from tests.bench.sample_load import are_all_warm
from tests.bench.stub import stub_service
from tinker_ray.types import ModelInput, SamplingParams

CAPACITY = 50
LATENCY_S = 0.2
WEIGHTS = {"train": 3.0, "eval": 1.0}
SAMPLERS = 4
SKIPPED = 500
"""Answers while the capacity is learnt, which happens with 10 dispatches at once."""


async def shares(sampler: Any, samples: int) -> dict[str, float]:  # noqa: ANN401 - a client
    """Ask for everything at once; return the part of each label in the first answers."""
    answered: list[str] = []
    enough = asyncio.Event()
    prompt, params = ModelInput.from_ints([1, 2, 3]), SamplingParams(max_tokens=4)

    async def one(client: Any, label: str) -> None:  # noqa: ANN401 - a client
        await client.sample_async(prompt, 1, params)
        answered.append(label)
        if len(answered) == SKIPPED + samples:
            enough.set()

    clients = {label: sampler.with_label(label, weight) for label, weight in WEIGHTS.items()}
    tasks = [
        asyncio.ensure_future(one(client, label))
        for _ in range(samples)
        for label, client in clients.items()
    ]
    await enough.wait()
    counted = answered[SKIPPED : SKIPPED + samples]
    await asyncio.gather(*tasks)
    return {label: counted.count(label) / len(counted) for label in WEIGHTS}


def measure(mode: Any, samples: int) -> dict[str, float]:  # noqa: ANN401 - a literal
    """Measure in one mode."""
    with stub_service("--latency", str(LATENCY_S), "--capacity", str(CAPACITY)) as url:
        cluster: dict[str, Any] = {"num_cpus": 4, "min_samplers": SAMPLERS}
        options = {} if mode == "local" else cluster
        tinker_ray.init(mode=mode, **options)
        try:
            with tinker_ray.ServiceClient(base_url=url) as service:
                sampler = service.create_sampling_client(base_model="stub/model")
                while mode == "cluster" and not are_all_warm(SAMPLERS):
                    params, prompt = SamplingParams(max_tokens=4), ModelInput.from_ints([1])
                    for one in [sampler.sample(prompt, 1, params) for _ in range(SAMPLERS)]:
                        one.result()
                return asyncio.run(shares(sampler, samples))
        finally:
            tinker_ray.shutdown()


def main() -> None:
    """Measure, print and write JSON."""
    command_line = parser(__doc__)
    command_line.add_argument("--samples", type=int, default=2000)
    options = command_line.parse_args()
    if options.samples < 3 * SKIPPED:  # else training has no more while evaluation still waits
        command_line.error(f"--samples {options.samples}: at least {3 * SKIPPED} are needed")
    os.environ["TINKER_API_KEY"] = "tml-bench"
    os.environ["TINKER_TELEMETRY"] = "0"
    result = {mode: measure(mode, options.samples) for mode in ("local", "cluster")}
    publish(result, options.out)


if __name__ == "__main__":
    main()
