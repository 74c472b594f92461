"""An engine is killed with SIGKILL under load, and started again on what it left."""

from __future__ import annotations

import asyncio
import signal
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.fakes import engine as fakes
from tests.fakes.engine import MODEL
from tests.fakes.served import Served
from tests.fakes.witness import Witness, Worker, check

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 4
KILLS = 3
SHORT_SEED = 7
SOAK_SEEDS = range(100, 110)


@pytest.fixture(
    params=[SHORT_SEED, *(pytest.param(number, marks=pytest.mark.soak) for number in SOAK_SEEDS)]
)
def seed(request: pytest.FixtureRequest) -> int:
    """One seed in the default run, ten more in the long one."""
    number: int = request.param
    return number


async def work_until_killed(
    served: Served, witness: Witness, chance: Random, num_answers: int
) -> None:
    """Let workers work, and kill the engine when so many more requests were answered."""
    workers = [
        asyncio.create_task(Worker(served.url, witness, Random(chance.random())).run())
        for _ in range(WORKERS)
    ]
    end = witness.num_acknowledged + num_answers
    while witness.num_acknowledged < end:
        assert not any(worker.done() for worker in workers), [w.exception() for w in workers]
        await asyncio.sleep(0.001)
    served.process.send_signal(signal.SIGKILL)
    await asyncio.gather(*workers)


async def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    folder = fakes.write_model(tmp_path / "model")
    arguments = (f"--model={MODEL}={folder}", "--data", str(tmp_path / "data"))
    chance, witness = Random(seed), Witness()
    for _ in range(KILLS):
        num_answers = chance.randint(5, 150)
        print(f"seed {seed}: kill after {num_answers} more answers")  # noqa: T201 - the story
        with Served(*arguments) as served:
            if witness.num_acknowledged:
                await check(served.url, witness)
            await work_until_killed(served, witness, chance, num_answers)
    with Served(*arguments) as served:
        await check(served.url, witness)
        assert served.end(signal.SIGTERM) == 0
    assert len(witness.results) > KILLS
