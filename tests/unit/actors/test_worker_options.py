from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors.worker_options import WorkerOptions, run_setup, run_setup_once
from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.worker import LocalWorker

if TYPE_CHECKING:
    from collections.abc import Mapping


def test_what_is_not_said_is_left_to_ray() -> None:
    assert {"num_cpus": 0.1} == WorkerOptions().ray_options(num_cpus=0.1)


def test_resources_and_environment_reach_ray() -> None:
    options = WorkerOptions(
        num_cpus=2,
        num_gpus=0.5,
        memory_bytes=10,
        resources={"browser": 1},
        runtime_env={"pip": ["x"], "env_vars": {"A": "1"}},
    )
    assert {
        "num_cpus": 2,
        "num_gpus": 0.5,
        "memory": 10,
        "resources": {"browser": 1},
        "runtime_env": {"pip": ["x"], "env_vars": {"A": "1"}},
    } == options.ray_options(num_cpus=0.1)


def test_what_this_process_tells_of_itself_is_told_on_but_does_not_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKER_LOG", "debug")
    plain = WorkerOptions().ray_options(num_cpus=1)
    own = WorkerOptions(runtime_env={"env_vars": {"TINKER_LOG": "info"}}).ray_options(num_cpus=1)
    assert ["debug", "info"] == [
        options["runtime_env"]["env_vars"]["TINKER_LOG"] for options in (plain, own)
    ]


@pytest.mark.parametrize(
    "variables",
    [
        {"TINKER_API_KEY": "x"},
        {"TINKER_CREDENTIAL_CMD": "cat key"},
        {"CLOUDFLARE_ACCESS_CLIENT_SECRET": "x"},
        {"MY_KEY": "tml-0123456789abcdef0123"},
        {"HEADER": "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0"},
    ],
)
def test_a_credential_must_not_travel_where_everybody_sees_it(
    variables: Mapping[str, str],
) -> None:
    [name] = variables
    with pytest.raises(ConfigurationError, match=f"env_vars must not have {name}") as caught:
        WorkerOptions(runtime_env={"env_vars": variables})
    assert variables[name] not in str(caught.value) or len(variables[name]) == 1


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"num_cpus": -1}, "num_cpus=-1 must not be negative"),
        ({"resources": {"browser": -2}}, "browser=-2 must not be negative"),
        ({"threads": 0}, "threads=0"),
        ({"setup": "import this"}, "setup='import this' is no function"),
    ],
)
def test_what_cannot_work_is_refused_early(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        WorkerOptions(**wrong)


def test_a_setup_hook_may_be_a_coroutine_function_and_an_event_loop_may_be_running() -> None:
    done = []

    async def setup() -> None:
        await asyncio.sleep(0)
        done.append("async")

    async def caller() -> None:
        run_setup(setup, "here")

    run_setup(setup, "here")
    asyncio.run(caller())
    assert ["async", "async"] == done


@pytest.mark.parametrize("is_async", [False, True])
def test_a_setup_hook_that_raises_is_named_with_its_error(*, is_async: bool) -> None:
    def broken() -> None:
        raise FileNotFoundError("no vocabulary")

    async def broken_too() -> None:
        broken()

    hook = broken_too if is_async else broken
    with pytest.raises(
        ConfigurationError, match=r"broken\w* failed in worker 3: FileNotFoundError: no vocabulary"
    ):
        run_setup(hook, "worker 3")


def test_workers_of_one_process_share_one_setup() -> None:
    runs = []

    def setup() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise OSError("not yet")

    with pytest.raises(ConfigurationError, match="not yet"):
        run_setup_once(setup, "this process")
    for _ in range(3):
        LocalWorker(WorkerOptions(setup=setup))
    assert 2 == len(runs)
