"""The executor on real Ray: processes of its own, many tasks in each, and their deaths."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ray.util
from opentelemetry import metrics

from tests.fakes.environment import CountingGroup
from tests.fakes.toy_service import ToyServer, ToyService
from tinker_ray import RayExecutor, ServiceClient
from tinker_ray.clients.mode import init, shutdown
from tinker_ray.config import EMBEDDED_API_KEY
from tinker_ray.errors import ActorLostError, ConfigurationError
from tinker_ray.rollouts import RolloutParams, SamplerPolicy, run_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.measured import Measured
    from tinker_ray import SamplingClient
    from tinker_ray.rollouts import TrajectoryGroup

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def executor() -> Iterator[RayExecutor]:
    with RayExecutor(2, setup=set_mark, retries=1, log_level=logging.INFO) as executor:
        yield executor


def set_mark() -> None:
    os.environ["EXECUTOR_TEST_MARK"] = "set"
    logging.getLogger("users.setup").info("marked")


def look() -> tuple[int, str | None]:
    logging.getLogger("users.task").info("looking")
    return os.getpid(), os.environ.get("EXECUTOR_TEST_MARK")


def meet(path: str, number: int, count: int) -> int:
    """Return when so many of these run at once."""
    Path(path, str(number)).touch()
    while len(list(Path(path).iterdir())) < count:
        pass
    return number


def die_once(path: str) -> str:
    mark = Path(path, "died")
    if mark.exists():
        return "alive"
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


async def hang(begun: str, stopped: str) -> None:
    os.mkdir(begun)  # noqa: PTH102 - ruff sees a blocking call in pathlib's alone
    try:
        await asyncio.Event().wait()
    finally:
        os.mkdir(stopped)  # noqa: PTH102


def measure(number: int) -> None:
    meter = metrics.get_meter("users")
    meter.create_counter("tasks").add(1, {"odd": number % 2 == 1})
    meter.create_histogram("numbers").record(number)


async def measure_and_hang(begun: str) -> None:
    metrics.get_meter("users").create_counter("begun").add(1)
    os.mkdir(begun)  # noqa: PTH102 - ruff sees a blocking call in pathlib's alone
    await asyncio.Event().wait()


class OddError(Exception):
    """Only this module knows it."""


def raise_oddly() -> None:
    logging.getLogger("users.odd").warning("about to raise")
    raise OddError("so it is")


async def until_it_exists(path: str) -> None:
    while not os.path.exists(path):  # noqa: PTH110, ASYNC110, ASYNC240 - all there is
        await asyncio.sleep(0.01)


def test_tasks_run_in_other_processes_after_the_setup_with_logs_and_types_shipped_back(
    executor: RayExecutor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    together = [executor.submit(meet, str(tmp_path), number, 6) for number in range(6)]
    assert list(range(6)) == [future.result() for future in together]
    places = {executor.submit(look).result() for _ in range(4)}
    assert os.getpid() not in {pid for pid, _ in places}
    assert {"set"} == {mark for _, mark in places}
    assert "looking" in [item.message for item in caplog.records if item.name == "users.task"]
    assert {"marked"} == {item.message for item in caplog.records if item.name == "users.setup"}
    with pytest.raises(OddError, match="so it is") as caught:
        executor.submit(raise_oddly).result()
    assert "raise OddError" in str(caught.value.__cause__)
    offset = 10
    added = executor.map(lambda number: number + offset, range(5), chunksize=2)  # a closure travels
    assert [10, 11, 12, 13, 14] == list(added)
    with pytest.raises(TypeError, match="cannot be sent to a worker"):
        executor.submit(list, (number for number in range(3)))


def test_a_worker_that_dies_costs_a_repetition_or_a_typed_error(
    executor: RayExecutor, tmp_path: Path
) -> None:
    assert "alive" == executor.submit(die_once, str(tmp_path)).result()
    with pytest.raises(ActorLostError):
        executor.submit(os.abort).result()
    assert executor.account.workers_lost >= 3


def test_what_tasks_measure_is_in_this_process_s_instruments_when_they_have_ended(
    executor: RayExecutor, measured: Measured
) -> None:
    for future in [executor.submit(measure, number) for number in range(20)]:
        future.result()
    counted = {point.attributes["odd"]: point.value for point in measured.points("tasks")}
    assert {False: 10, True: 10} == counted
    assert [(20, 190)] == [(point.count, point.sum) for point in measured.points("numbers")]


def test_what_a_cancelled_task_measured_has_come_when_the_executor_has_ended(
    executor: RayExecutor, measured: Measured, tmp_path: Path
) -> None:
    running = executor.submit(measure_and_hang, str(tmp_path / "begun"))
    asyncio.run(until_it_exists(str(tmp_path / "begun")))
    running.cancel()
    executor.shutdown()
    assert [1] == [point.value for point in measured.points("begun")]


async def test_asyncio_awaits_it_and_cancels_what_runs(
    executor: RayExecutor, tmp_path: Path
) -> None:
    begun, stopped = str(tmp_path / "begun"), str(tmp_path / "stopped")
    running = asyncio.get_running_loop().run_in_executor(executor, hang, begun, stopped)
    await until_it_exists(begun)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await until_it_exists(stopped)
    assert 1 == executor.account.cancelled


def test_a_setup_that_fails_fails_the_tasks_and_shutdown_takes_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    executor = RayExecutor(1, setup=raise_oddly)
    with pytest.raises(ConfigurationError, match=r"raise_oddly failed in executor-.*so it is"):
        executor.submit(look).result()
    assert "about to raise" in {item.message for item in caplog.records}
    executor.shutdown(cancel_futures=True)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(look)
    names = {str(actor["name"]) for actor in ray.util.list_named_actors(all_namespaces=True)}
    assert set() == {name for name in names if name.startswith("executor-")}


def roll_out(sampler: SamplingClient, builder: CountingGroup) -> TrajectoryGroup:
    """What the cookbook's executor is given: a client and a builder, and a loop of its own."""
    policy = SamplerPolicy(sampler, RolloutParams(max_tokens=3, seed=5))
    return asyncio.run(run_group(builder, policy))


def test_rollouts_with_a_sampling_client_give_what_they_give_in_this_process(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINKER_API_KEY", EMBEDDED_API_KEY)
    init()
    with ToyServer(ToyService()) as server, ServiceClient(base_url=server.url) as service:
        sampler = service.create_sampling_client(base_model="toy")
        builders = [CountingGroup([1, 2, number], size=2, num_turns=2) for number in range(4)]
        futures = [executor.submit(roll_out, sampler, builder) for builder in builders]
        done = [future.result() for future in concurrent.futures.as_completed(futures)]
        here = [roll_out(sampler, builder) for builder in builders]
        assert sorted(group.get_total_rewards() for group in here) == sorted(
            group.get_total_rewards() for group in done
        )
    shutdown()
