"""What the public clients stand on: the same operations, in this process or through actors.

The cores of this package are one implementation, the handles of :mod:`actors` the other. Arguments
and results are plain values, and every method may be called from the one event loop that owns the
runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from tinker_ray.core.traffic import ORDINARY

NumberKind: TypeAlias = Literal["model", "sampling_session", "custom_loss"]
"""What a session makes and numbers."""

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.config import Secret
    from tinker_ray.core.flags import ServerFlags
    from tinker_ray.core.operation import Operation
    from tinker_ray.core.session import ModelHandle
    from tinker_ray.core.traffic import Traffic
    from tinker_ray.limits import Spend
    from tinker_ray.types import (
        GetServerCapabilitiesResponse,
        LoraConfig,
        OptimizerConfig,
        RetryConfig,
        SampleResponse,
        TelemetryEvent,
    )
    from tinker_ray.wire.request import SampleRequest


class SessionPort(Protocol):
    """An open session."""

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Ask which base models the service offers."""
        ...

    async def create_model(
        self,
        model_seq_id: int,
        base_model: str,
        lora: LoraConfig,
        user_metadata: Mapping[str, str] | None = None,
        optimizer_config: OptimizerConfig | None = None,
    ) -> ModelHandle:
        """Make a new model to train."""
        ...

    async def create_model_from_state(  # noqa: PLR0913 - what upstream offers
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
        """Make a new model and load a checkpoint into it."""
        ...

    async def create_sampling_session(
        self, seq_id: int, *, base_model: str | None = None, model_path: str | None = None
    ) -> str:
        """Open a sampling session and return its id."""
        ...

    async def join_sampling_session(self, sampling_session_id: str) -> int:
        """Have the service number a further client of a sampling session."""
        ...

    async def create_custom_loss(
        self,
        custom_loss_seq_id: int,
        name: str,
        inputs: Sequence[Mapping[str, Any]],
        graph: Mapping[str, Any],
    ) -> str:
        """Upload a traced loss and return the id to use it by."""
        ...


class TrainingPort(Protocol):
    """One model's training operations."""

    async def run(
        self, operation: Operation, floor: int = 0, carrier: Mapping[str, str] | None = None
    ) -> Any:  # noqa: ANN401 - each kind of operation has its own result
        """Execute an operation in its turn and return its result."""
        ...

    async def aclose(self) -> None:
        """Release what it holds; idempotent."""
        ...


class SamplingPort(Protocol):
    """Draws samples from any sampling session."""

    async def sample(
        self,
        request: SampleRequest,
        retry: RetryConfig | None = None,
        carrier: Mapping[str, str] | None = None,
        traffic: Traffic = ORDINARY,
    ) -> SampleResponse:
        """Draw samples."""
        ...


class RegistryPort(Protocol):
    """The REST calls, by the names of :class:`tinker_ray.core.registry.RegistryCore`."""

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call one of them."""
        ...


class ReporterPort(Protocol):
    """Tells the service of events."""

    async def tell(self, told: Sequence[TelemetryEvent], *, flush: bool = False) -> bool:
        """Take in events, send them now if asked to, and say whether there was room for them."""
        ...


class Runtime(Protocol):
    """Everything behind one ``ServiceClient``."""

    @property
    def session_id(self) -> str:
        """The open session."""
        ...

    @property
    def flags(self) -> ServerFlags:
        """What the service can do and wants."""
        ...

    @property
    def session(self) -> SessionPort:
        """What makes models and sampling sessions."""
        ...

    @property
    def sampling(self) -> SamplingPort:
        """What draws samples."""
        ...

    @property
    def registry(self) -> RegistryPort:
        """What answers the REST calls."""
        ...

    @property
    def reporter(self) -> ReporterPort | None:
        """What tells the service of events; None if it is not to be told."""
        ...

    async def number(self, kind: NumberKind) -> int:
        """Issue the next number of a kind of things; no two processes get the same one."""
        ...

    async def raise_budget(self, limit: Spend) -> None:
        """Allow the samples of the session to cost more, in all."""
        ...

    async def open_training(self, model: ModelHandle) -> TrainingPort:
        """Make the one owner of a model's operations."""
        ...

    def reference(self, *, creates: bool) -> dict[str, Any] | None:
        """Describe how other processes reach this very runtime, as JSON; None if they cannot.

        Called when a client is pickled, in any thread: from now on the runtime is shared.

        Args:
            creates: The others will make things in the session, too, and have to number them.
        """
        ...

    async def aclose(self, reason: str, detail: str | None) -> None:
        """Finish the session and release everything, last opened first; idempotent."""
        ...
