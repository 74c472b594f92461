"""Samples that are waited for, and the attempts to draw them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.sampler import SampleItem

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Sequence

    from actors.handles.remote import RemoteActor
    from actors.pool_choice import Member
    from tinker_ray.core.traffic import Traffic
    from tinker_ray.telemetry.carrier import Carrier
    from tinker_ray.types import RetryConfig, SampleResponse
    from tinker_ray.wire.request import SampleRequest

FIRST_PART = 32
LARGEST_PART = 256


@dataclass(eq=False, slots=True)
class Sample:
    """A sample that somebody waits for.

    Attributes:
        key: Names it among all of this process.
        asked_at: When, by the event loop's clock.
        num_attempts: How often it was given to a sampler.
        losses: How many samplers died over it.
        attempts: Those that may still be answered.
    """

    key: str
    request: SampleRequest
    retry: RetryConfig | None
    carrier: Carrier
    traffic: Traffic
    answer: asyncio.Future[SampleResponse]
    asked_at: float
    num_attempts: int = 0
    losses: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def fail(self, error: Exception) -> None:
        """Give the one who waits an error, if there is no answer yet."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False, slots=True)
class Sampler:
    """A sampler and what it was given by this process.

    Attributes:
        remote: Its actor.
        member: What is known of it for the choice.
        open: Its attempts that may still be answered; an answer to any other comes too late.
        is_located: Somebody is waiting for its next sign of life.
    """

    remote: RemoteActor
    member: Member
    open: dict[str, Attempt] = field(default_factory=dict)
    is_located: bool = False


@dataclass(eq=False, slots=True)
class Attempt:
    """A sample in the hands of a sampler."""

    key: str
    sample: Sample
    sampler: Sampler

    def item(self, *, is_hedge: bool) -> SampleItem:
        """Put it into the words of the sampler."""
        sample = self.sample
        return SampleItem(
            sample.request,
            sample.retry,
            sample.carrier,
            self.key,
            sample.traffic,
            sample.num_attempts,
            is_hedge,
        )

    def close(self) -> bool:
        """Take no answer of this attempt from now on; tell whether one would have been taken."""
        if self.sampler.open.pop(self.key, None) is None:
            return False
        self.sampler.member.own -= 1
        self.sample.attempts.remove(self)
        return True


def attempt(sample: Sample, sampler: Sampler) -> Attempt:
    """Begin a new attempt at a sample."""
    sample.num_attempts += 1
    begun = Attempt(f"{sample.key}.{sample.num_attempts}", sample, sampler)
    sample.attempts.append(begun)
    sampler.open[begun.key] = begun
    sampler.member.own += 1
    return begun


def parts(batch: Sequence[Attempt]) -> Iterator[Sequence[Attempt]]:
    """Cut what a sampler is given at once into calls, a small one first.

    It begins with the first while the others are packed, and no call keeps its event loop for long.
    """
    start, size = 0, FIRST_PART
    while start < len(batch):
        yield batch[start : start + size]
        start, size = start + size, min(2 * size, LARGEST_PART)


def is_repeatable(request: SampleRequest) -> bool:
    """Tell whether a second draw gives the same: one with a seed, without chance, or of scores.

    Of two draws that differ the shorter one would be answered first, and be chosen too often.
    """
    params = request.sampling_params
    only_scores = request.prompt_logprobs and params.max_tokens == 1
    return params.seed is not None or params.temperature == 0 or only_scores
