"""A training client without a model: its sampler gets better with each optimizer step."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from tests.fakes.sampler import sequence
from tinker_ray.rollouts import derive_seed
from tinker_ray.types import (
    AdamParams,
    Datum,
    ForwardBackwardOutput,
    ModelInput,
    OptimStepResponse,
    SampleResponse,
    SamplingParams,
    SaveWeightsResponse,
)

T = TypeVar("T")


@dataclass(frozen=True)
class ImprovingSampler:
    """Answers ``1`` with a probability that grows with the version, else ``0``."""

    version: int

    def with_label(self, label: str, weight: float) -> ImprovingSampler:
        del label, weight
        return self

    async def sample_async(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> SampleResponse:
        rng = Random(derive_seed(sampling_params.seed or 0, *prompt.to_ints()))
        skill = min(1.0, 0.3 + 0.1 * self.version)
        answers = [int(rng.random() < skill) for _ in range(num_samples)]
        return SampleResponse([sequence([answer]) for answer in answers])


@dataclass
class FakeTraining:
    """Counts what is done to it; ``fail_at`` raises at that forward_backward."""

    takes_far_data = False

    version: int = 0
    fail_at: int | None = None
    error: Exception = field(default_factory=lambda: ConnectionError("the driver is gone"))
    batches: list[list[list[int]]] = field(default_factory=list)
    batches_before: list[int] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)

    def forward_backward(
        self,
        data: Sequence[Datum],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None = None,
    ) -> Awaitable[ForwardBackwardOutput]:
        del loss_fn, loss_fn_config
        if self.version == self.fail_at:
            raise self.error
        self.batches.append([datum.model_input.to_ints() for datum in data])
        outputs = [{"logprobs": datum.loss_fn_inputs["logprobs"]} for datum in data]
        return _done(ForwardBackwardOutput("fake", outputs, {"loss:sum": float(len(data))}))

    def optim_step(self, adam_params: AdamParams) -> Awaitable[OptimStepResponse]:
        del adam_params
        self.version += 1
        self.batches_before.append(len(self.batches))
        return _done(OptimStepResponse())

    def steps(self) -> list[list[list[int]]]:
        """Return what each optimizer step was made of."""
        begins = [0, *self.batches_before]
        return [
            [datum for batch in self.batches[begin:end] for datum in batch]
            for begin, end in zip(begins, self.batches_before, strict=False)
        ]

    def save_state(self, name: str) -> Awaitable[SaveWeightsResponse]:
        self.saved.append(name)
        return _done(SaveWeightsResponse(path=f"tinker://fake/weights/{name}"))

    async def save_weights_and_get_sampling_client_async(self) -> ImprovingSampler:
        return ImprovingSampler(self.version)


async def _done(value: T) -> T:
    return value
