"""Milliseconds per call on an idle embedded engine, over HTTP, through the clients.

    python tests/bench/bench_latency.py [--calls N] [--out FILE]

A sample of one token, and a forward_backward of one datum of 16 tokens, one after the other on
tiny-adder; each is two requests, the operation and its result. A health check on the same server
gives the floor that HTTP alone costs here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tinker_ray import Datum, ModelInput, SamplingParams, ServiceClient
from tinker_ray.config import Settings
from tinker_ray.engine import launcher
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

NUM_WARM_UP = 5


def milliseconds(call: Callable[[], object], count: int) -> list[float]:
    """Time a call again and again."""
    times = []
    for number in range(NUM_WARM_UP + count):
        start = time.perf_counter()
        call()
        if number >= NUM_WARM_UP:
            times.append(round((time.perf_counter() - start) * 1e3, 2))
    return times


def run(calls: int) -> dict[str, object]:
    """Measure; return the medians and 90th percentiles."""
    engine = launcher.embedded(NAME, Settings.from_env().home)
    try:
        with ServiceClient(base_url="embedded") as service, httpx.Client() as http:
            training = service.create_lora_training_client(NAME, rank=16)
            sampler = training.save_weights_and_get_sampling_client()
            tokens = list(range(10, 27))
            prompt = ModelInput.from_ints(tokens)
            datum = Datum(
                ModelInput.from_ints(tokens[:-1]),
                {"target_tokens": tokens[1:], "weights": [1.0] * 16},
            )
            one = SamplingParams(max_tokens=1)
            contenders: dict[str, Callable[[], object]] = {
                "health_check": lambda: http.get(f"{engine.url}/api/v1/healthz"),
                "sample_1_token": lambda: sampler.sample(prompt, 1, one).result(),
                "forward_backward_1x16": lambda: training.forward_backward(
                    [datum], "cross_entropy"
                ).result(),
            }
            times = {name: milliseconds(call, calls) for name, call in contenders.items()}
    finally:
        engine.close()
    return {
        "what": f"{calls} calls of each kind, one at a time, ms",
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "versions": {"python": platform.python_version()},
        "median": {name: statistics.median(items) for name, items in times.items()},
        "p90": {name: statistics.quantiles(items, n=10)[-1] for name, items in times.items()},
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--out", type=Path, help="where to write the JSON besides the terminal")
    arguments = parser.parse_args()
    result = json.dumps(run(arguments.calls), indent=2)
    print(result)  # noqa: T201 - a script
    if arguments.out is not None:
        arguments.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
