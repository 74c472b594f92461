"""One tiny base model for all tests of the engine's API, and an engine for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import engine as fakes
from tests.fakes.engine import MODEL, EngineClient
from tests.fakes.running_engine import Running
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.settings import HostSettings


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return BaseModel.load(MODEL, fakes.write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
async def running(base: BaseModel, tmp_path: Path) -> AsyncIterator[Running]:
    engine = Running(base, tmp_path / "data", HostSettings(gap_timeout_s=20))
    yield engine
    await engine.stop()
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.fixture
async def hasty(running: Running) -> EngineClient:
    """A client of an engine that waits for missing operations for a moment only."""
    running.settings = HostSettings(gap_timeout_s=0.2)
    return await running.start()


@pytest.fixture
async def client(running: Running) -> EngineClient:
    return await running.start()
