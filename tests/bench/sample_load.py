"""Draws samples from a service with one client and says what that cost: a process of its own.

    PYTHON -m tests.bench.sample_load BASE_URL --client NAME [--samples N] [--width W] …

``upstream`` is what ``import tinker`` gives under the interpreter, ``local`` and ``cluster`` are
this package in its two modes, ``bare`` is the same two requests a sample in a loop on aiohttp: the
floor. So many samples are in flight at a time. CPU time is that of this process, and of all our
actors on a cluster; what came before (imports, opening, a warm-up) does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import json
import os
import resource
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP = 400
BASE_MODEL = "stub/model"


def cpu_seconds(pids: set[int]) -> float:
    """CPU time of this process and of others."""
    total = time.process_time()
    for pid in pids - {os.getpid()}:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total


def actor_pids() -> set[int]:
    """The processes of our actors: those of Ray's workers that run one."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        title = " ".join(process.cmdline()[:1])
        if title.startswith("ray::") and "IDLE" not in title:
            found.add(process.pid)
    return found


def messages() -> int:
    """The messages about limits that the session's actor was sent."""
    overview = importlib.import_module("actors.overview").overview()
    return sum(session.inventory["messages"] for session in overview.sessions)


def are_all_warm(num_samplers: int) -> bool:
    """Whether so many samplers have drawn something."""
    overview = importlib.import_module("actors.overview").overview()
    states = [state for session in overview.sessions for state in session.samplers.values()]
    num_warm = sum(bool(state and state.drawn) for state in states)
    return num_warm >= num_samplers


class Bare:
    """The two requests of a sample and nothing else."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._numbers = itertools.count()
        self._http: Any = None

    async def sample_async(self, prompt: Any, num_samples: int, params: Any) -> Any:  # noqa: ANN401
        """Draw as every client does."""
        if self._http is None:
            aiohttp = importlib.import_module("aiohttp")
            connector = aiohttp.TCPConnector(limit=0)
            self._http = aiohttp.ClientSession(connector=connector)
        body = {
            "sampling_session_id": "s",
            "seq_id": next(self._numbers),
            "num_samples": num_samples,
            "prompt": {"chunks": [{"tokens": prompt, "type": "encoded_text"}]},
            "sampling_params": {"max_tokens": params},
        }
        async with self._http.post(f"{self._base_url}/api/v1/asample", json=body) as answer:
            promise = await answer.json()
        async with self._http.post(
            f"{self._base_url}/api/v1/retrieve_future",
            json={"request_id": promise["request_id"]},
            headers={"Accept": "application/x-protobuf"},
        ) as answer:
            proto = importlib.import_module("tinker_ray.wire.proto_sample")
            return proto.decode_sample_response(await answer.read(), ())


async def draw(
    sampler: Any,  # noqa: ANN401
    prompts: list[Any],
    params: Any,  # noqa: ANN401
    width: int,
) -> list[float]:
    """Draw from all prompts, so many at a time; return each one's latency in seconds."""
    places = asyncio.Semaphore(width)

    async def one(prompt: Any) -> float:  # noqa: ANN401
        async with places:
            start = time.perf_counter()
            response = await sampler.sample_async(prompt, 1, params)
            assert len(_tokens(response)) > 0
            return time.perf_counter() - start

    return await asyncio.gather(*(one(prompt) for prompt in prompts))


def _tokens(response: Any) -> Any:  # noqa: ANN401
    """Take the tokens as the client has them."""
    sequence = response.sequences[0]
    return sequence.tokens_np if hasattr(sequence, "tokens_np") else sequence.tokens


def _client(name: str, base_url: str, max_tokens: int) -> tuple[Any, Any, Callable[..., Any]]:
    """Open a client; return it, its parameters and what makes its prompts."""
    if name == "bare":
        return Bare(base_url), max_tokens, list
    os.environ["TINKER_RAY_MODE"] = "cluster" if name == "cluster" else "local"
    tinker = importlib.import_module("tinker" if name == "upstream" else "tinker_ray")
    if name == "cluster":
        tinker.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    service = tinker.ServiceClient(base_url=base_url)
    created = service.create_sampling_client(base_model=BASE_MODEL)
    sampler = created.result() if hasattr(created, "result") else created
    return sampler, tinker.SamplingParams(max_tokens=max_tokens), tinker.ModelInput.from_ints


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url")
    parser.add_argument("--samples", type=int, default=1600)
    parser.add_argument("--width", type=int, default=400, help="samples in flight")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    parser.add_argument(
        "--client", choices=("upstream", "local", "cluster", "bare"), default="local"
    )
    parser.add_argument("--barrier", action="store_true", help="wait for a line before the load")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["TINKER_API_KEY"] = "tml-bench"
    os.environ.setdefault("TINKER_TELEMETRY", "0")
    sampler, params, make = _client(options.client, options.base_url, options.max_tokens)
    prompts = [
        make([(number + index) % 50_000 for index in range(options.prompt_tokens)])
        for number in range(64)
    ]
    many = [prompts[number % len(prompts)] for number in range(options.samples)]
    loop = asyncio.new_event_loop()
    is_cluster = options.client == "cluster"
    num_samplers = int(os.environ.get("TINKER_RAY_MIN_SAMPLERS", "1"))
    loop.run_until_complete(draw(sampler, many[: options.warm_up], params, options.width))
    while is_cluster and not are_all_warm(num_samplers):
        loop.run_until_complete(draw(sampler, many[:num_samplers], params, options.width))
    told = messages() if is_cluster else 0
    pids = actor_pids() if is_cluster else set()
    if options.barrier:
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, start = cpu_seconds(pids), time.perf_counter()
    latencies = sorted(loop.run_until_complete(draw(sampler, many, params, options.width)))
    seconds, used = time.perf_counter() - start, cpu_seconds(pids) - cpu
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    report = {
        "samples": len(many),
        "seconds": seconds,
        "samples_per_s": len(many) / seconds,
        "cpu_ms_per_sample": 1e3 * used / len(many),
        "p50_s": latencies[len(many) // 2],
        "p99_s": latencies[int(len(many) * 0.99)],
        "max_rss_growth_kb_per_sample": grown / len(many),
        "num_processes": 1 + len(pids),
    }
    if options.client == "cluster":
        report["messages"] = messages() - told
    print(json.dumps(report), flush=True)  # noqa: T201
    if options.client == "cluster":
        importlib.import_module("tinker_ray").shutdown()
    sys.stdout.flush()
    os._exit(0)  # upstream's threads keep the process alive


if __name__ == "__main__":
    main()
