"""The benchmarks run and measure something; how fast it was is not judged here."""

from __future__ import annotations

from typing import Any

from tests.bench import bench_engine_sampling, bench_import, bench_latency
from tinker_ray.engine import tiny_adder


def test_the_sampling_benchmark_measures_all_contenders() -> None:
    result: Any = bench_engine_sampling.run(tiny_adder.directory(), rounds=1, num_prompts=4)
    assert {"engine", "generate_batched", "generate_one_by_one"} <= set(result["median"])
    assert all(value > 0 for value in result["median"].values())


def test_the_latency_benchmark_measures_all_calls(embedded_engine: str) -> None:
    result: Any = bench_latency.run(calls=3)
    assert set(result["median"]) == {"health_check", "sample_1_token", "forward_backward_1x16"}
    assert all(value > 0 for value in result["median"].values())


def test_the_import_benchmark_measures_all_contenders() -> None:
    result: Any = bench_import.run(rounds=1, upstream=None)
    assert set(result["median"]) == {"interpreter", "tinker_ray", "tinker_ray_clients"}
    assert all(value > 0 for medians in result["median"].values() for value in medians.values())
