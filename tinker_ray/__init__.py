"""The Tinker SDK as a distributed runtime on Ray: ``import tinker_ray as tinker``.

Importing this loads neither Ray nor torch, and the clients only when they are first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tinker_ray import types
from tinker_ray.errors import (
    ActorLostError,
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BillingError,
    BudgetExceededError,
    ConfigurationError,
    ConflictError,
    EngineError,
    EngineStartError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestFailedError,
    RetryableError,
    StaleHandleError,
    TinkerError,
    UnprocessableEntityError,
    WireFormatError,
)
from tinker_ray.types import (
    AdamParams,
    Checkpoint,
    CheckpointType,
    Datum,
    EncodedTextChunk,
    ForwardBackwardOutput,
    LoraConfig,
    ModelInput,
    ModelInputChunk,
    OptimStepResponse,
    ParsedCheckpointTinkerPath,
    RetryConfig,
    SampledSequence,
    SampleResponse,
    SamplingParams,
    StopReason,
    TensorData,
    TensorDtype,
    TrainingRun,
)
from tinker_ray.version import __version__

if TYPE_CHECKING:
    from tinker_ray.clients.api_future import APIFuture
    from tinker_ray.clients.mode import init, shutdown
    from tinker_ray.clients.rest import RestClient
    from tinker_ray.clients.sampling import SamplingClient
    from tinker_ray.clients.service import ServiceClient
    from tinker_ray.clients.training import TrainingClient
    from tinker_ray.rl.pool import RolloutPool

_LAZY = {
    "APIFuture": "tinker_ray.clients.api_future",
    "RestClient": "tinker_ray.clients.rest",
    "RolloutPool": "tinker_ray.rl.pool",
    "SamplingClient": "tinker_ray.clients.sampling",
    "ServiceClient": "tinker_ray.clients.service",
    "TrainingClient": "tinker_ray.clients.training",
    "init": "tinker_ray.clients.mode",
    "shutdown": "tinker_ray.clients.mode",
}

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIFuture",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "ActorLostError",
    "AdamParams",
    "AuthenticationError",
    "BadRequestError",
    "BillingError",
    "BudgetExceededError",
    "Checkpoint",
    "CheckpointType",
    "ConfigurationError",
    "ConflictError",
    "Datum",
    "EncodedTextChunk",
    "EngineError",
    "EngineStartError",
    "ForwardBackwardOutput",
    "InternalServerError",
    "LoraConfig",
    "ModelInput",
    "ModelInputChunk",
    "NotFoundError",
    "OptimStepResponse",
    "ParsedCheckpointTinkerPath",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestFailedError",
    "RestClient",
    "RetryConfig",
    "RetryableError",
    "RolloutPool",
    "SampleResponse",
    "SampledSequence",
    "SamplingClient",
    "SamplingParams",
    "ServiceClient",
    "StaleHandleError",
    "StopReason",
    "TensorData",
    "TensorDtype",
    "TinkerError",
    "TrainingClient",
    "TrainingRun",
    "UnprocessableEntityError",
    "WireFormatError",
    "__version__",
    "init",
    "shutdown",
    "types",
]


def __getattr__(name: str) -> object:
    """Load a client, the pool or an entry point when it is first named."""
    module = _LAZY.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the lazy names too."""
    return sorted(__all__)
