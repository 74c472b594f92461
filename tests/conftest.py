"""What every test gets: a private environment, a mark by folder, a leak check, and Ray on request.

The environment is set before any test module is imported and reaches the processes that tests
start: no network, no usage statistics, a home and a Ray token of this run alone.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TESTS = Path(__file__).parent
SCRATCH = Path(tempfile.mkdtemp(prefix="tinker-ray-tests-"))
RUN_ID = secrets.token_hex(8)
RUN_ID_VARIABLE = "TINKER_RAY_TEST_RUN"

TIMEOUT_BY_FOLDER_S = {"e2e": 240, "chaos": 300}
FOLDERS = ("architecture", "unit", "contract", "e2e", "chaos")
"""Also the order of a run: what is cheap first, and no Ray in the process before e2e."""


def pytest_configure() -> None:
    """Give this run, and every process that it starts, an environment of its own."""
    # How long an example takes says something of the machine alone.
    settings.register_profile("any-machine", settings.default, deadline=None)
    settings.load_profile("any-machine")
    token = SCRATCH / "auth_token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    for name in ("RAY_ADDRESS", "TINKER_API_KEY", "TINKER_BASE_URL", "TINKER_RAY_MODE"):
        os.environ.pop(name, None)
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Ray 2.x warns about a default that will change; the new one is what we want.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TINKER_RAY_HOME": str(SCRATCH / "home"),
        RUN_ID_VARIABLE: RUN_ID,
    }


def pytest_unconfigure() -> None:
    """Remove what this run wrote outside the repository."""
    shutil.rmtree(SCRATCH, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, give slow folders their time, and put them in order."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        item.add_marker(folder)
        if folder in TIMEOUT_BY_FOLDER_S and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_BY_FOLDER_S[folder]))
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[int, bool]:
    """Order by folder, what needs no lent Ray first: its agent takes the port of others."""
    folder = item.path.relative_to(TESTS).parts[0]
    return FOLDERS.index(folder), "ray_cluster" in getattr(item, "fixturenames", ())


# ------------------------------------------------------------------------------------------ leaks


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread, an asyncio task or a child process behind.

    What fixtures of a wider scope own is older than the test and not its fault. A test that must
    leave something says so: ``@pytest.mark.leaks("reason")``.
    """
    if request.node.get_closest_marker("leaks") is not None:
        yield
        return
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("task_leak_check")
    threads = set(threading.enumerate())
    children = _children()
    yield
    leaked = [*_surviving_threads(threads), *_surviving_children(children)]
    if leaked:
        pytest.fail(f"left behind: {', '.join(leaked)}")


@pytest.fixture
async def task_leak_check() -> AsyncIterator[None]:
    """Fail an async test whose event loop still has tasks at its end."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=1)
    if left:
        pytest.fail(f"left behind: {', '.join(map(str, left))}")


def _surviving_threads(before: set[threading.Thread]) -> list[str]:
    """Name the new threads that would keep the process alive, after a moment to end."""
    new = [thread for thread in set(threading.enumerate()) - before if not thread.daemon]
    for thread in new:
        thread.join(timeout=2)
    return [f"thread {thread.name!r}" for thread in new if thread.is_alive()]


def _surviving_children(before: set[int]) -> list[str]:
    new = []
    for pid in _children() - before:
        with suppress(psutil.NoSuchProcess):
            new.append(psutil.Process(pid))
    _, alive = psutil.wait_procs(new, timeout=5)
    return [_described(process) for process in alive if _runs(process)]


def _children() -> set[int]:
    """Tell the child processes, from a few small files where the kernel has them.

    To find them among all processes takes longer than most tests do.
    """
    try:
        listed = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:  # a thread ended just now
        listed = []
    if not listed:
        return {process.pid for process in psutil.Process().children()}
    return {int(pid) for pids in listed for pid in pids.split()}


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _described(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} ({' '.join(process.cmdline())[:120]})"
    except psutil.Error:
        return f"process {process.pid}"


@pytest.fixture(scope="session", autouse=True)
def run_leak_check() -> Iterator[None]:
    """End the processes that the run leaves behind, detached ones included, and fail it."""
    yield
    mine = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
    started = [process for process in psutil.process_iter() if _is_of_this_run(process)]
    candidates = [process for process in started if process.pid not in mine]
    _, alive = psutil.wait_procs(candidates, timeout=10)
    leaked = [process for process in alive if _runs(process)]
    descriptions = [_described(process) for process in leaked]
    for process in leaked:
        process.kill()
    if leaked:
        pytest.fail(f"the test run left behind: {', '.join(descriptions)}")


def _is_of_this_run(process: psutil.Process) -> bool:
    try:
        return bool(process.environ().get(RUN_ID_VARIABLE) == RUN_ID)
    except psutil.Error:
        return False


# ------------------------------------------------------------------------------------------ Ray


@pytest.fixture(scope="session")
def ray_cluster(run_leak_check: None) -> Iterator[str]:
    """One Ray of four logical CPUs for all tests that ask for it; yields its namespace."""
    import ray

    namespace = f"tests-{RUN_ID}"
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        namespace=namespace,
        log_to_driver=False,
        configure_logging=False,
    )
    try:
        yield namespace
    finally:
        ray.shutdown()
