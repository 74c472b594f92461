"""A training run on a real cluster and engine while its actors are killed, and how each recovers.

Strikes follow the story that the run tells its `Progress`, so that they hit work: a step's
rollouts, its training, its checkpoint. How long an actor is missed is asked of the public clients,
whose calls go through the same handles as the run's.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import ray
from ray.util import list_named_actors
from rich.console import Console

from actors.handles.remote import RemoteActor
from tests.fakes.cluster_session import kill
from tinker_ray import ServiceClient
from tinker_ray.errors import ActorLostError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.run_directory import open_run
from tinker_ray.rl.train import find_dataset, train_on
from tinker_ray.types import ModelInput, SamplingParams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tinker_ray.rl.record import StepRecord, Summary

KINDS = ("session", "sampler", "training", "checkpoint", "rollout")
PHASES = {
    "session": ("rollouts", "training"),
    "sampler": ("rollouts", "training"),
    "training": ("training", "checkpoint"),
    "checkpoint": ("rollouts", "training", "checkpoint"),
    "rollout": ("rollouts",),
}
"""When an actor of a kind has work, or may be asked for some."""
TARGET = 0.90
LATEST_S = 0.2
LOOK_S = 0.02


@dataclass
class Strike:
    """A kill.

    Attributes:
        step: At which it is due, from 1; it waits for its phase.
        kind: Of actor.
        phase: Of the step.
        delay_s: From the beginning of the phase.
        recovery_s: From the kill until something that needs the actor was done; None before that.
    """

    step: int
    kind: str
    phase: str
    delay_s: float
    recovery_s: float | None = None

    def __str__(self) -> str:
        """Say it in a line."""
        after = "" if self.recovery_s is None else f", back after {self.recovery_s:.2f} s"
        return f"step {self.step}, {self.phase} + {self.delay_s:.2f} s: {self.kind}{after}"


def whole_run(seed: int, max_staleness: int | None) -> RunConfig:
    """Describe a run that learns its task while all kinds of actors have something to do.

    It asks a sampler for the reference's logprobs, and the checkpoint actor at each step. No step
    is taken back, as one that trains beside an evaluation may be: all count.
    """
    return RunConfig(
        seed=seed,
        steps=60,
        target_accuracy=TARGET,
        checkpoint_every=1,
        keep_checkpoints=1,
        kl_coefficient=1e-3,
        max_staleness=max_staleness,
        eval_beside=False,
    )


def strikes(kinds: Sequence[str], *, seed: int, rounds: int = 1) -> list[Strike]:
    """Plan a kill a step, the kinds in random order; the same for the same seed."""
    chance = Random(seed)
    order = [kind for _ in range(rounds) for kind in chance.sample(kinds, len(kinds))]
    return [
        Strike(step, kind, chance.choice(PHASES[kind]), chance.uniform(0, LATEST_S))
        for step, kind in enumerate(order, start=1)
    ]


@dataclass
class Survived:
    """What became of a run.

    Attributes:
        summary: Its own.
        steps: Its steps.
        trained: The groups that its steps were made of, by index.
        dropped: Why groups did not come to a step.
        strikes: What was killed.
        applied: Optimizer steps in the last checkpoint, as the engine's optimizer counted them.
        accepted: Optimizer steps of the model in the engine's ledger.
        story: What the run said.
    """

    summary: Summary
    steps: list[StepRecord]
    trained: list[int]
    dropped: set[str]
    strikes: list[Strike]
    applied: int
    accepted: int
    story: str


async def train_under_kills(
    config: RunConfig, home: Path, planned: Sequence[Strike], *, seconds: float
) -> Survived:
    """Train on the embedded engine of a home folder, and carry out what is planned.

    Args:
        config: Of the run.
        home: The ``TINKER_RAY_HOME`` of this process.
        planned: In the order of their steps.
        seconds: After which the run is held to hang.

    Raises:
        TimeoutError: It hung.
    """
    with closing(open_run(config, root=home / "runs")) as directory:
        async with ServiceClient(base_url=config.base_url) as service:
            striker = Striker(service, config, list(planned))
            make_dataset = find_dataset(config.environment)
            try:
                async with asyncio.timeout(seconds):
                    summary = await train_on(
                        service,
                        config,
                        directory,
                        progress=striker,
                        mode="cluster",
                        make_dataset=make_dataset,
                    )
            finally:
                await striker.end()
                print(striker.told)  # noqa: T201 - the story, if the test fails
        assert summary.checkpoint is not None
        model_id = summary.checkpoint.removeprefix("tinker://").partition("/")[0]
        groups = directory.groups()
        return Survived(
            summary,
            directory.steps(),
            [group.index for group in groups if group.dropped is None],
            {group.dropped for group in groups if group.dropped is not None},
            striker.struck,
            _applied(home, summary.checkpoint),
            _accepted(home, model_id),
            striker.told,
        )


class Striker(Progress):
    """Hears of a run's phases, and kills."""

    def __init__(self, service: ServiceClient, config: RunConfig, planned: list[Strike]) -> None:
        self._out = io.StringIO()
        super().__init__(Console(file=self._out, soft_wrap=True))
        self.struck: list[Strike] = []
        self._service = service
        self._config = config
        self._planned = planned
        self._steps_done = 0
        self._stepped = asyncio.Event()
        self._striking: set[asyncio.Task[None]] = set()

    @property
    def told(self) -> str:
        """The story so far."""
        return self._out.getvalue()

    def status(self, text: str) -> None:
        """Strike if this is what is waited for."""
        if self._planned and text.startswith("step "):
            due = self._planned[0]
            if self._steps_done + 1 >= due.step and due.phase in text:
                self._striking.add(asyncio.create_task(self._strike(self._planned.pop(0))))

    def step(self, record: StepRecord, steps: int) -> None:
        """Note that one is done."""
        super().step(record, steps)
        self._steps_done = record.step
        self._stepped.set()
        self._stepped = asyncio.Event()

    async def end(self) -> None:
        """Wait no longer for what is not back.

        Raises:
            TinkerError: An actor's work could not be done after it was killed.
        """
        for task in self._striking:
            task.cancel()
        for outcome in await asyncio.gather(*self._striking, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _strike(self, strike: Strike) -> None:
        await asyncio.sleep(strike.delay_s)
        before = await asyncio.to_thread(self._names, strike.kind)
        name = max(before)
        async with self._remote(name) as actor:
            await kill(actor)
        struck_at = time.monotonic()
        self.struck.append(strike)
        self.say(f"killed {name}: {strike}")
        await self._back(strike, before)
        strike.recovery_s = time.monotonic() - struck_at
        self.say(str(strike))

    async def _back(self, strike: Strike, before: set[str]) -> None:
        """Do something that the actor has to do."""
        if strike.kind == "session":
            await self._service.create_sampling_client_async(base_model=self._config.base_model)
        elif strike.kind == "checkpoint":
            rest = self._service.create_rest_client()
            await rest.get_session_async(self._service.holder.get_session_id())
        elif strike.kind == "sampler":
            sampler = await self._service.create_sampling_client_async(
                base_model=self._config.base_model
            )
            await sampler.sample_async(ModelInput.from_ints([5]), 1, SamplingParams(max_tokens=1))
        elif strike.kind == "training":
            await self._stepped.wait()
        else:
            await self._greet_newcomer(before)

    async def _greet_newcomer(self, before: set[str]) -> None:
        """Wait for a rollout actor that came instead, and that the run is not done with."""
        while True:
            async with self._remote(await self._newcomer(before)) as actor:
                with contextlib.suppress(ActorLostError):
                    await actor.ping()
                    return
            await asyncio.sleep(LOOK_S)

    async def _newcomer(self, before: set[str]) -> str:
        """Name the rollout actor that takes the place of a lost one, once there is one."""
        while True:
            new = await asyncio.to_thread(self._names, "rollout") - before
            if new:
                return new.pop()
            await asyncio.sleep(LOOK_S)

    @staticmethod
    @asynccontextmanager
    async def _remote(name: str) -> AsyncIterator[RemoteActor]:
        actor = RemoteActor(name, ray.get_runtime_context().namespace)
        try:
            yield actor
        finally:
            await actor.let_go()

    def _names(self, kind: str) -> set[str]:
        """Name the living actors of a kind."""
        prefix = f"{self._service.holder.get_session_id()}/{kind}"
        entries = list_named_actors(all_namespaces=True)
        return {entry["name"] for entry in entries if entry["name"].startswith(prefix)}


def _applied(home: Path, checkpoint: str) -> int:
    """Read how many steps the optimizer of a checkpoint has taken."""
    [(folder,)] = _rows(home, "SELECT directory FROM checkpoints WHERE tinker_path = ?", checkpoint)
    [state] = home.glob(f"embedded/*/data/{folder}/training_state.json")
    num_steps: int = json.loads(state.read_text())["num_steps"]
    return num_steps


def _accepted(home: Path, model_id: str) -> int:
    """Count the optimizer steps of a model in the engine's ledger."""
    query = "SELECT COUNT(*) FROM promises WHERE kind = 'optim_step' AND model_id = ?"
    [(count,)] = _rows(home, query, model_id)
    accepted: int = count
    return accepted


def _rows(home: Path, query: str, *values: str) -> list[tuple[Any]]:
    [ledger] = home.glob("embedded/*/data/ledger.sqlite")
    with closing(sqlite3.connect(ledger)) as connection:
        return connection.execute(query, values).fetchall()
