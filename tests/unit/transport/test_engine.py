from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tinker_ray.config import EngineProcess
from tinker_ray.errors import APIConnectionError, EngineError
from tinker_ray.transport import watch
from tinker_ray.transport.engine import EngineTransport
from tinker_ray.transport.message import Request, Response, Stream
from tinker_ray.transport.watch import ProcessWatch
from tinker_ray.wire.endpoint import GET_SERVER_CAPABILITIES

REQUEST = Request(GET_SERVER_CAPABILITIES, GET_SERVER_CAPABILITIES.path)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its input ends."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as cat:
        yield cat


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()


class Connections:
    """Stands for the connections to an engine, which break when it ends."""

    def __init__(self) -> None:
        self.broken = asyncio.Event()
        self.closed = False

    async def attempt(self, request: Request, headers: Any) -> Response:  # noqa: ANN401, ARG002
        await self.broken.wait()
        raise APIConnectionError

    def stream(self, url: str, headers: Any) -> AbstractAsyncContextManager[Stream]:  # noqa: ANN401
        raise APIConnectionError(f"{url} {headers}")

    async def aclose(self) -> None:
        self.closed = True


def over(
    connections: Any,  # noqa: ANN401 - stands for an HTTP transport
    process: subprocess.Popen[bytes],
    folder: Path,
) -> EngineTransport:
    return EngineTransport(connections, EngineProcess(process.pid, folder))


async def test_a_process_that_ends_is_noticed(process: subprocess.Popen[bytes]) -> None:
    ended = asyncio.Event()
    watching = ProcessWatch(process.pid, ended.set)
    await asyncio.sleep(0)
    assert not ended.is_set()
    end(process)
    async with asyncio.timeout(5):
        await ended.wait()
    watching.close()
    watching.close()


async def test_a_process_is_noticed_without_the_systems_help(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.pidfd_open", raising=False)
    monkeypatch.setattr(watch, "POLL_S", 0.001)
    ended = asyncio.Event()
    ProcessWatch(process.pid, ended.set)
    await asyncio.sleep(0)
    assert not ended.is_set()
    end(process)
    process.wait()
    async with asyncio.timeout(5):
        await ended.wait()


@pytest.mark.parametrize("with_help", [True, False])
async def test_a_process_that_is_not_there_has_ended(
    process: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    with_help: bool,  # noqa: FBT001
) -> None:
    end(process)
    process.wait()
    if not with_help:
        monkeypatch.delattr("os.pidfd_open", raising=False)
    ended = asyncio.Event()
    ProcessWatch(process.pid, ended.set)
    async with asyncio.timeout(5):
        await ended.wait()


async def test_an_attempt_that_the_engines_end_broke_says_so_with_its_last_words(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (tmp_path / "engine.log").write_text("\n".join(f"line {number}" for number in range(100)))
    connections = Connections()
    transport = over(connections, process, tmp_path)
    attempt = asyncio.create_task(transport.attempt(REQUEST, {}))
    await asyncio.sleep(0)
    connections.broken.set()
    end(process)
    with pytest.raises(
        EngineError, match=r"(?s)has ended.*make a new.*line 88\n.*line 99$"
    ) as told:
        await attempt
    assert "server" == told.value.category
    with pytest.raises(EngineError):
        await transport.attempt(REQUEST, {})
    with pytest.raises(EngineError):
        async with transport.stream("http://engine/file", {}):
            pass
    await transport.aclose()
    assert connections.closed
    assert "has ended" in repr(transport)


async def test_an_attempt_that_breaks_while_the_engine_lives_is_repeated_by_others(
    process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinker_ray.transport.engine.NEWS_S", 0.001)
    connections = Connections()
    connections.broken.set()
    transport = over(connections, process, tmp_path)
    with pytest.raises(APIConnectionError):
        await transport.attempt(REQUEST, {})
    with pytest.raises(APIConnectionError):
        async with transport.stream("http://engine/file", {}):
            pass
    assert f"pid {process.pid}" in repr(transport)
    await transport.aclose()


async def test_an_engine_without_a_log_has_ended_without_words(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    transport = over(Connections(), process, tmp_path / "gone")
    end(process)
    ended: Callable[[], bool] = lambda: "has ended" in repr(transport)  # noqa: E731
    async with asyncio.timeout(5):
        while not ended():  # noqa: ASYNC110 - the system tells when
            await asyncio.sleep(0.001)
    with pytest.raises(EngineError, match=r"load one$"):
        await transport.attempt(REQUEST, {})
    await transport.aclose()
