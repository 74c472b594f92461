"""What the public clients stand on, without a service: ports that record and answer on command."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tinker_ray.core.far_operation import FarForwardBackward, FarOutput
from tinker_ray.core.flags import ServerFlags
from tinker_ray.core.operation import (
    ForwardBackward,
    OptimStep,
    SaveExternal,
    SaveForSampler,
    SaveState,
)
from tinker_ray.core.session import ModelHandle
from tinker_ray.core.traffic import ORDINARY, Traffic
from tinker_ray.types import (
    ForwardBackwardOutput,
    GetServerCapabilitiesResponse,
    LoadWeightsResponse,
    OptimStepResponse,
    SampledSequence,
    SampleResponse,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResponse,
    SaveWeightsForSamplerResponseInternal,
    SaveWeightsResponse,
    TensorData,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.config import Secret
    from tinker_ray.core.operation import Operation, OperationResult
    from tinker_ray.core.port import NumberKind
    from tinker_ray.limits import Spend
    from tinker_ray.types import LoraConfig, OptimizerConfig, RetryConfig, TelemetryEvent
    from tinker_ray.wire.request import SampleRequest


@dataclass
class FakeTrainingPort:
    """Keeps every operation; one whose number is in ``failures`` fails, ``gates`` hold others."""

    ran: list[Operation] = field(default_factory=list)
    floors: list[int] = field(default_factory=list)
    failures: dict[int, Exception] = field(default_factory=dict)
    gates: dict[int, asyncio.Event] = field(default_factory=dict)
    num_cancelled: int = 0

    async def run(
        self,
        operation: Operation,
        floor: int = 0,
        carrier: Mapping[str, str] | None = None,  # noqa: ARG002 - part of the protocol
    ) -> OperationResult | FarOutput:
        """Answer with a result that tells the number of the operation."""
        self.ran.append(operation)
        self.floors.append(floor)
        try:
            await self.gates.get(operation.seq, _OPEN).wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        if operation.seq in self.failures:
            raise self.failures[operation.seq]
        return _result(operation)

    async def aclose(self) -> None:
        """Do nothing."""


_OPEN = asyncio.Event()
_OPEN.set()


def _result(operation: Operation) -> OperationResult | FarOutput:  # noqa: PLR0911 - a result for each
    if isinstance(operation, FarForwardBackward):
        return FarOutput({"loss:sum": float(len(operation.data))}, num_data=len(operation.data))
    if isinstance(operation, ForwardBackward):
        outputs = [
            {
                "logprobs": TensorData(
                    [float(token) for token in datum.model_input.to_ints()], "float32"
                )
            }
            for datum in operation.data
        ]
        metrics = {"loss:sum": float(len(outputs)), "seq:max": float(operation.seq)}
        return ForwardBackwardOutput("TorchLossReturn", outputs, metrics)
    if isinstance(operation, OptimStep):
        return OptimStepResponse(metrics={"seq:sum": float(operation.seq)})
    if isinstance(operation, SaveState):
        return SaveWeightsResponse(path=f"tinker://m/weights/{operation.name}")
    if isinstance(operation, SaveForSampler):
        if operation.name is None:
            number = operation.sampling_session_seq_id
            session_id = f"S1:sample:{number}"
            return SaveWeightsForSamplerResponseInternal(sampling_session_id=session_id)
        return SaveWeightsForSamplerResponse(path=f"tinker://m/sampler_weights/{operation.name}")
    if isinstance(operation, SaveExternal):
        path = f"tinker://m/external_weights/{operation.name}"
        return SaveWeightsExternalResponse(path=path, size_bytes=operation.seq)
    return LoadWeightsResponse(path=operation.path)


@dataclass
class FakeReporter:
    """Keeps the events that it was told of; ``flushes`` says which calls were to send them."""

    told: list[TelemetryEvent] = field(default_factory=list)
    flushes: list[bool] = field(default_factory=list)
    failure: Exception | None = None
    gate: asyncio.Event | None = None

    async def tell(self, told: Sequence[TelemetryEvent], *, flush: bool = False) -> bool:
        """Keep them."""
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.told.extend(told)
        self.flushes.append(flush)
        return True


@dataclass
class FakeRuntime:
    """A runtime whose parts are itself; what was called is in ``calls``, in order."""

    session_id: str = "S1"
    flags: ServerFlags = field(default_factory=ServerFlags)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    trainings: list[FakeTrainingPort] = field(default_factory=list)
    samples: list[SampleRequest] = field(default_factory=list)
    retries: list[RetryConfig | None] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    registry_answers: dict[str, Any] = field(default_factory=dict)
    optimizer_configs: list[OptimizerConfig | None] = field(default_factory=list)
    overrides: list[tuple[str | None, Secret | None]] = field(default_factory=list)
    sample_gate: asyncio.Event | None = None
    num_cancelled: int = 0
    cluster: dict[str, Any] | None = None
    numbers: defaultdict[str, itertools.count[int]] = field(
        default_factory=lambda: defaultdict(itertools.count)
    )

    @property
    def session(self) -> FakeRuntime:
        """The same object."""
        return self

    sampling = registry = session
    reporter: FakeReporter | None = None

    async def number(self, kind: NumberKind) -> int:
        """Count."""
        return next(self.numbers[kind])

    def reference(self, *, creates: bool) -> dict[str, Any] | None:
        """Tell what was set, and remember the question."""
        self.calls.append(("reference", creates))
        return self.cluster

    async def raise_budget(self, limit: Spend) -> None:
        """Remember it."""
        self.calls.append(("raise_budget", limit))

    async def open_training(self, model: ModelHandle) -> FakeTrainingPort:
        """Make a port."""
        self.calls.append(("open_training", model))
        self.trainings.append(FakeTrainingPort())
        return self.trainings[-1]

    async def aclose(self, reason: str, detail: str | None) -> None:
        """Remember the reason."""
        self.calls.append(("aclose", reason, detail))

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Offer nothing."""
        return GetServerCapabilitiesResponse(supported_models=[])

    async def create_model(
        self,
        model_seq_id: int,
        base_model: str,
        lora: LoraConfig,
        user_metadata: Mapping[str, str] | None = None,
        optimizer_config: OptimizerConfig | None = None,
    ) -> ModelHandle:
        """Make a model."""
        self.calls.append(("create_model", model_seq_id, base_model, lora, user_metadata))
        self.optimizer_configs.append(optimizer_config)
        return ModelHandle(f"S1:train:{model_seq_id}")

    async def create_model_from_state(
        self,
        model_seq_id: int,
        path: str,
        *,
        optimizer: bool,
        user_metadata: Mapping[str, str] | None = None,
        base_model: str | None = None,
        weights_access_token: Secret | None = None,
        optimizer_config: OptimizerConfig | None = None,
    ) -> ModelHandle:
        """Make a model whose first number is taken."""
        self.overrides.append((base_model, weights_access_token))
        self.optimizer_configs.append(optimizer_config)
        self.calls.append(("create_model_from_state", model_seq_id, path, optimizer, user_metadata))
        return ModelHandle(f"S1:train:{model_seq_id}", first_seq=2)

    async def create_sampling_session(
        self, seq_id: int, *, base_model: str | None = None, model_path: str | None = None
    ) -> str:
        """Name the session by its number."""
        self.calls.append(("create_sampling_session", seq_id, base_model, model_path))
        return f"S1:sample:{seq_id}"

    async def join_sampling_session(self, sampling_session_id: str) -> int:
        """Be the first to join."""
        self.calls.append(("join_sampling_session", sampling_session_id))
        return 1

    async def create_custom_loss(
        self,
        custom_loss_seq_id: int,
        name: str,
        inputs: Sequence[Mapping[str, Any]],
        graph: Mapping[str, Any],
    ) -> str:
        """Name the loss by its number."""
        self.calls.append(("create_custom_loss", custom_loss_seq_id, name, inputs, graph))
        return f"S1:loss:{custom_loss_seq_id}"

    async def sample(
        self,
        request: SampleRequest,
        retry: RetryConfig | None = None,
        carrier: Mapping[str, str] | None = None,  # noqa: ARG002 - part of the protocol
        traffic: Traffic = ORDINARY,
    ) -> SampleResponse:
        """Draw a token per sample; the prompt's logprobs are none and its length."""
        self.samples.append(request)
        self.retries.append(retry)
        self.traffic.append(traffic)
        if self.sample_gate is not None:
            try:
                await self.sample_gate.wait()
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
        tokens = np.array([7], dtype=np.int32)
        sequences = [SampledSequence("stop", tokens_np=tokens) for _ in range(request.num_samples)]
        logprobs = np.array([np.nan, -request.prompt.length], dtype=np.float32)
        return SampleResponse(sequences, logprobs if request.prompt_logprobs else None)

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Answer as was told; an answer that is a function is given the arguments."""
        self.calls.append((name, arguments))
        told = self.registry_answers.get(name)
        return told(arguments) if callable(told) else told
