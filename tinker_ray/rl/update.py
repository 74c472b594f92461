"""One batch of groups into new weights: data, forward_backward, optimizer steps, a new sampler.

Knows a training client, nothing of where groups come from. What is far is left there: the training
client is given references and advantages. Invariants: operations are sent in the
order of the substeps and all of a step before any of them is waited for; losses are sums, so that
the minibatches of a substep add up to what one call would give.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field

from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.training import TrainingClient
from tinker_ray.core.far_operation import FarOutput
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.outcome import FinishedGroup
from tinker_ray.rl.reference_kl import ReferencePenalty
from tinker_ray.rollouts import Advantages, RolloutFailedError, center
from tinker_ray.rollouts.datum import from_groups
from tinker_ray.rollouts.far_datum import Agreement, agreement, far_data
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import span
from tinker_ray.types import AdamParams, Datum, ForwardBackwardOutput, OptimStepResponse


@dataclass(slots=True)
class Update:
    """What the training of one batch did.

    Attributes:
        groups: The batch, in the order of their numbers.
        lost: Groups whose trajectories were lost on their way: the batch is without them.
        sampler: Samples from the new weights; None if nothing was learned.
        optim_steps: Optimizer steps.
        loss: Of the batch, added up, each part before its substep.
        kl_sample_train: Between the sampler and the trainer, on the batch.
        kl_reference: Between the sampler and the reference; None without one.
        num_constant_groups: Groups that taught nothing.
        gathered_s: When the last group was there, on the monotonic clock.
    """

    groups: list[FinishedGroup] = field(default_factory=list)
    lost: list[FinishedGroup] = field(default_factory=list)
    sampler: SamplingClient | None = None
    optim_steps: int = 0
    loss: float = 0.0
    kl_sample_train: float = 0.0
    kl_reference: float | None = None
    num_constant_groups: int = 0
    gathered_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a minibatch came to."""

    loss: float
    agreement: Agreement
    lost: list[FinishedGroup] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _SentData:
    """A minibatch that was sent as it is."""

    data: list[Datum]
    output: Awaitable[ForwardBackwardOutput]

    async def trained(self) -> _Trained:
        output = await self.output
        return _Trained(output.metrics.get("loss:sum", 0.0), agreement(self.data, output))


@dataclass(frozen=True, slots=True)
class _SentReferences:
    """A minibatch of which it was sent where it is."""

    groups: Sequence[FinishedGroup]
    output: Awaitable[FarOutput]

    async def trained(self) -> _Trained:
        output = await self.output
        lost = [self.groups[place] for place in sorted(output.lost)]
        return _Trained(output.metrics.get("loss:sum", 0.0), output.agreement, lost)


@dataclass(slots=True)
class _Sent:
    """What is on its way to the service."""

    num_parts: int = 0
    outputs: list[_SentData | _SentReferences] = field(default_factory=list)
    steps: list[Awaitable[OptimStepResponse]] = field(default_factory=list)
    has_gradients: bool = False
    lost: list[FinishedGroup] = field(default_factory=list)
    num_constant_groups: int = 0
    log_ratio: float = 0.0
    num_tokens: int = 0


class Updater:
    """Trains a model, batch by batch.

    Args:
        config: Loss, learning rate, substeps and minibatches.
        training: The model.
        penalty: Holds it to a reference; None does not.
    """

    def __init__(
        self, config: RunConfig, training: TrainingClient, penalty: ReferencePenalty | None = None
    ) -> None:
        self._config = config
        self._training = training
        self._penalty = penalty

    async def train(
        self, step: int, arriving: AsyncIterator[FinishedGroup], expected: int
    ) -> Update:
        """Train on groups as they come.

        Args:
            step: Counted from 0.
            arriving: The groups of the batch.
            expected: How many; fewer are fine.
        """
        update, sent, waiting = Update(), _Sent(), list[FinishedGroup]()
        ends = self._part_ends(expected)
        async for group in arriving:
            update.groups.append(group)
            waiting.append(group)
            end = ends[sent.num_parts]
            if self._config.minibatches > 1 and len(update.groups) == end < expected:
                await self._send(step, waiting, sent)
                waiting = []
        update.gathered_s = time.monotonic()
        links = [group.carrier for group in update.groups if group.carrier]
        with span(names.TRAIN_STEP, attributes={names.STEP: step + 1}, links=links):
            for part in self._rest(waiting, update, sent):
                await self._send(step, part, sent)
            self._apply(step, sent)
            await self._settle(update, sent)
        lost = {group.index for group in update.lost}
        update.groups = [group for group in update.groups if group.index not in lost]
        update.groups.sort(key=_number)
        return update

    def _part_ends(self, count: int) -> list[int]:
        """Say after how many groups each forward_backward is sent."""
        parts = self._config.substeps * self._config.minibatches
        return [count * part // parts for part in range(1, parts + 1)]

    def _rest(
        self, waiting: list[FinishedGroup], update: Update, sent: _Sent
    ) -> list[list[FinishedGroup]]:
        """Divide what was not sent yet, in the order of the numbers, so that sums do not vary."""
        waiting = sorted(waiting, key=_number)
        begin = len(update.groups) - len(waiting)
        parts = list[list[FinishedGroup]]()
        for end in self._part_ends(len(update.groups))[sent.num_parts :]:
            size = max(0, end - begin)
            parts.append(waiting[:size])
            waiting, begin = waiting[size:], begin + size
        return parts

    async def _send(self, step: int, groups: Sequence[FinishedGroup], sent: _Sent) -> None:
        """Send a minibatch, and the optimizer step if its substep is complete with it."""
        if self._penalty is not None or not self._training.takes_far_data:
            groups = await _fetched(groups, sent)
        advantages = center(groups)
        sent.num_constant_groups += advantages.num_constant_groups
        output: _SentData | _SentReferences | None
        if self._penalty is not None:
            penalized = await self._penalty.data(groups, advantages)
            output = self._by_value(penalized.data)
            sent.log_ratio += penalized.log_ratio
            sent.num_tokens += penalized.num_tokens
        elif any(group.is_far for group in groups):
            output = self._by_reference(groups, advantages)
        else:
            output = self._by_value(from_groups(groups, advantages))
        if output is not None:
            sent.outputs.append(output)
            sent.has_gradients = True
        sent.num_parts += 1
        if sent.num_parts % self._config.minibatches == 0:
            self._apply(step, sent)

    def _by_value(self, data: list[Datum]) -> _SentData | None:
        """Send data; None if there are none."""
        if not data:
            return None
        settings = self._config.loss_fn_config or None
        output = self._training.forward_backward(data, self._config.loss_fn, settings)
        return _SentData(data, output)

    def _by_reference(
        self, groups: Sequence[FinishedGroup], advantages: Advantages
    ) -> _SentReferences | None:
        """Send where data are and what they weigh; None if there are none."""
        data = far_data(groups, advantages)
        if not data:
            return None
        settings = self._config.loss_fn_config or None
        output = self._training.forward_backward_far(data, self._config.loss_fn, settings)
        return _SentReferences(groups, output)

    def _apply(self, step: int, sent: _Sent) -> None:
        if sent.has_gradients:
            rate = self._config.learning_rate_at(step)
            sent.steps.append(self._training.optim_step(AdamParams(learning_rate=rate)))
            sent.has_gradients = False

    async def _settle(self, update: Update, sent: _Sent) -> None:
        update.num_constant_groups = sent.num_constant_groups
        update.lost = sent.lost
        if self._penalty is not None:
            update.kl_reference = sent.log_ratio / max(1, sent.num_tokens)
        if not sent.steps:
            return
        outputs, _, update.sampler = await asyncio.gather(
            asyncio.gather(*(output.trained() for output in sent.outputs)),
            asyncio.gather(*sent.steps),
            self._training.save_weights_and_get_sampling_client_async(),
        )
        update.optim_steps = len(sent.steps)
        update.loss = sum(output.loss for output in outputs)
        total = sum(output.agreement.num_tokens for output in outputs)
        log_ratio = sum(output.agreement.log_ratio for output in outputs)
        update.kl_sample_train = log_ratio / max(1, total)
        update.lost += [group for output in outputs for group in output.lost]


async def _fetched(groups: Sequence[FinishedGroup], sent: _Sent) -> list[FinishedGroup]:
    """Fetch what is far, and do without what is lost."""
    there = []
    for group in groups:
        try:
            await group.fetch()
        except RolloutFailedError:
            sent.lost.append(group)
        else:
            there.append(group)
    return there


def _number(group: FinishedGroup) -> int:
    return group.index
