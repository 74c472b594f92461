"""Ten thousand samples in flight from one driver: memory of ours, and whether the heartbeat stays.

    python -m tests.bench.bench_in_flight [--samples N] [--latency S] [--out FILE]

The driver asks for all samples at once, as tasks of one event loop, and keeps what it gets. Memory
is the proportional set size of the driver and of all our actors, those that are started for the
load included: the most of it during the load beyond what it was before, by the sample. The
heartbeats are taken from the service: how much later than their usual distance the latest one came.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.load_process import run_load
from tests.bench.result import machine, parser, publish
from tests.bench.sample_load import BASE_MODEL, actor_pids
from tests.bench.stub import ask, stub_service
from tinker_ray.core.heartbeat import HEARTBEAT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = ("local", "cluster")
EVERY_S = 0.5
FLAGS = {"sample_max_concurrent_requests": 20_000, "sample_dispatch_bytes_semaphore_size": 1 << 30}
"""The service allows all of them at once."""


def pss_kib(pid: int) -> int:
    """Read a process's proportional set size: its own memory, and its part of what is shared."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def ours() -> set[int]:
    """This process and those of our actors."""
    return {os.getpid()} | actor_pids()


class MemoryWatch:
    """Adds up the memory of all our processes, again and again, in a thread."""

    def __init__(self) -> None:
        self.most_kib = 0
        self.num_processes = 0
        self.of_driver_kib = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for as long as the block runs, and once more at its end."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
            self.look()

    def look(self) -> int:
        """Add up once."""
        sizes = {pid: pss_kib(pid) for pid in ours()}
        total = sum(sizes.values())
        if total > self.most_kib:
            self.most_kib, self.num_processes = total, len(sizes)
            self.of_driver_kib = sizes[os.getpid()]
        return total

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self.look()


async def draw_all(sampler: Any, prompts: list[Any], params: Any) -> tuple[int, float]:  # noqa: ANN401
    """Ask for one sample of each prompt at once; return how many came and the longest pause.

    The pause is that of the driver's own event loop, in which other work of the user would wait.
    """
    tasks = [asyncio.create_task(sampler.sample_async(prompt, 1, params)) for prompt in prompts]
    pulse = asyncio.create_task(_longest_pause(tasks))
    responses = await asyncio.gather(*tasks)
    return sum(
        len(response.sequences[0].tokens_np) == params.max_tokens for response in responses
    ), await pulse


async def _longest_pause(tasks: list[asyncio.Task[Any]]) -> float:
    longest, last = 0.0, time.monotonic()
    while not tasks[-1].done():
        await asyncio.sleep(0.05)
        now = time.monotonic()
        longest, last = max(longest, now - last - 0.05), now
    return longest


def load(base_url: str, mode: str, samples: int, tokens: int) -> dict[str, Any]:
    """Draw, in this process."""
    os.environ |= {"TINKER_RAY_MODE": mode, "TINKER_API_KEY": "tml-bench", "TINKER_TELEMETRY": "0"}
    import tinker_ray

    if mode == "cluster":
        tinker_ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    sampler = tinker_ray.ServiceClient(base_url=base_url).create_sampling_client(
        base_model=BASE_MODEL
    )
    params = tinker_ray.SamplingParams(max_tokens=tokens)
    prompts = [
        tinker_ray.ModelInput.from_ints([(number + index) % 50_000 for index in range(tokens)])
        for number in range(64)
    ]
    loop = asyncio.new_event_loop()
    loop.run_until_complete(draw_all(sampler, prompts, params))
    ask(base_url, "reset")
    watch = MemoryWatch()
    before, start = watch.look(), time.monotonic()
    driver_before = watch.of_driver_kib
    many = [prompts[number % len(prompts)] for number in range(samples)]
    with watch.watching():
        returned, pause_s = loop.run_until_complete(draw_all(sampler, many, params))
    stats = ask(base_url, "stats")
    gaps = [later - sooner for sooner, later in itertools.pairwise([0, *stats["beats"]])]
    ended = time.monotonic() - start
    if mode == "cluster":
        tinker_ray.shutdown()
    return {
        "returned": returned,
        "most_at_work": stats["most_at_work"],
        "refused": stats["rejected"],
        "seconds": round(ended, 1),
        "kib_per_sample": round((watch.most_kib - before) / samples, 2),
        "kib_per_sample_of_the_driver": round((watch.of_driver_kib - driver_before) / samples, 2),
        "num_processes": watch.num_processes,
        "heartbeats": len(gaps),
        "heartbeat_late_s": round(max([gap - HEARTBEAT_S for gap in gaps], default=0.0), 3),
        "pause_of_the_drivers_loop_s": round(pause_s, 3),
    }


def measure(mode: str, samples: int, tokens: int, latency_s: float) -> dict[str, Any]:
    """Draw in a process of its own, from a service of its own."""
    with stub_service("--latency", str(latency_s), "--flags", json.dumps(FLAGS)) as base_url:
        options = ("--modes", mode, "--samples", samples, "--tokens", tokens)
        return run_load("bench_in_flight", "--load", base_url, *options)


def table(result: dict[str, Any]) -> str:
    """Show what was measured as Markdown."""
    lines = [
        "| | returned | at work at once | KB per sample | heartbeat late by s | seconds |",
        "|---|" + "---|" * 5,
    ]
    for mode, found in result["results"].items():
        cells = [
            f"{found['returned']}",
            f"{found['most_at_work']}",
            f"{found['kib_per_sample'] * 1.024:.1f}",
            f"{found['heartbeat_late_s']:.2f}",
            f"{found['seconds']:.0f}",
        ]
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table and write JSON."""
    command_line = parser(__doc__)
    command_line.add_argument("--samples", type=int, default=10_000)
    command_line.add_argument("--tokens", type=int, default=256, help="in, and out")
    command_line.add_argument("--latency", type=float, default=10.0)
    command_line.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    command_line.add_argument("--load", metavar="URL", help="draw from a service, in this process")
    options = command_line.parse_args()
    if options.load is not None:
        report = load(options.load, options.modes[0], options.samples, options.tokens)
        print(json.dumps(report), flush=True)  # noqa: T201 - a script
        return
    result = {
        "what": f"{options.samples} samples at once, {options.tokens} tokens in and out, "
        f"{options.latency:g} s at the service",
        "machine": machine(),
        "load_average": os.getloadavg(),
        "results": {
            mode: measure(mode, options.samples, options.tokens, options.latency)
            for mode in options.modes
        },
    }
    publish(result, options.out, f"{table(result)}\nload {os.getloadavg()}")


if __name__ == "__main__":
    main()
