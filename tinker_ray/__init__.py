"""The Tinker SDK as a distributed runtime on Ray: ``import tinker_ray as tinker``.

Importing this loads neither Ray nor torch, and the clients only when they are first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tinker_ray import auth, types
from tinker_ray.budget import Budget, Price
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
    ExperimentalWarning,
    InternalServerError,
    ModelLostError,
    NotFoundError,
    PermissionDeniedError,
    PoisonedClientError,
    RateLimitError,
    RequestFailedError,
    RetryableError,
    StaleHandleError,
    TinkerError,
    UnfulfilledError,
    UnprocessableEntityError,
    WireFormatError,
)
from tinker_ray.types import (
    AdamOptimizerConfig,
    AdamParams,
    Checkpoint,
    CheckpointType,
    Datum,
    DimuonOptimizerConfig,
    DimuonParams,
    DmelChunk,
    EncodedTextChunk,
    ForwardBackwardOutput,
    LoraConfig,
    ModelID,
    ModelInput,
    ModelInputChunk,
    OptimParams,
    OptimStepRequest,
    OptimStepResponse,
    ParsedCheckpointTinkerPath,
    PromptProvenanceSpan,
    RetryConfig,
    SampledProvenanceSpan,
    SampledSequence,
    SampleRequest,
    SampleResponse,
    SamplingParams,
    StopReason,
    TensorData,
    TensorDtype,
    TrainingRun,
)
from tinker_ray.version import __version__

if TYPE_CHECKING:
    from tinker_ray.clients.admin import AdminClient
    from tinker_ray.clients.api_future import APIFuture
    from tinker_ray.clients.install import install
    from tinker_ray.clients.loss_handle import LossHandle, PerDatumLossFn
    from tinker_ray.clients.mode import init, shutdown
    from tinker_ray.clients.options import RequestOptions
    from tinker_ray.clients.rest import RestClient
    from tinker_ray.clients.sampling import SamplingClient
    from tinker_ray.clients.sampling import SamplingClient as BackcompatSamplingClientFuture
    from tinker_ray.clients.service import ServiceClient
    from tinker_ray.clients.training import TrainingClient
    from tinker_ray.clients.training import TrainingClient as BackcompatTrainingClientFuture
    from tinker_ray.core.download import Downloaded
    from tinker_ray.rl.executor import RayExecutor
    from tinker_ray.rl.policy import LivePolicy
    from tinker_ray.rl.pool import RolloutPool
    from tinker_ray.rollouts.pacing import Pacing
    from tinker_ray.rollouts.retry import RetryBudget
    from tinker_ray.rollouts.worker import Timeouts
    from tinker_ray.transport.timeout import Timeout

__title__ = "tinker_ray"

_CLIENTS = "tinker_ray.clients"
_LAZY = {
    "APIFuture": f"{_CLIENTS}.api_future:APIFuture",
    "AdminClient": f"{_CLIENTS}.admin:AdminClient",
    "BackcompatSamplingClientFuture": f"{_CLIENTS}.sampling:SamplingClient",
    "BackcompatTrainingClientFuture": f"{_CLIENTS}.training:TrainingClient",
    "Downloaded": "tinker_ray.core.download:Downloaded",
    "LivePolicy": "tinker_ray.rl.policy:LivePolicy",
    "LossHandle": f"{_CLIENTS}.loss_handle:LossHandle",
    "Pacing": "tinker_ray.rollouts.pacing:Pacing",
    "PerDatumLossFn": f"{_CLIENTS}.loss_handle:PerDatumLossFn",
    "RequestOptions": f"{_CLIENTS}.options:RequestOptions",
    "RayExecutor": "tinker_ray.rl.executor:RayExecutor",
    "RestClient": f"{_CLIENTS}.rest:RestClient",
    "RetryBudget": "tinker_ray.rollouts.retry:RetryBudget",
    "RolloutPool": "tinker_ray.rl.pool:RolloutPool",
    "SamplingClient": f"{_CLIENTS}.sampling:SamplingClient",
    "ServiceClient": f"{_CLIENTS}.service:ServiceClient",
    "Timeouts": "tinker_ray.rollouts.worker:Timeouts",
    "Timeout": "tinker_ray.transport.timeout:Timeout",
    "TrainingClient": f"{_CLIENTS}.training:TrainingClient",
    "init": f"{_CLIENTS}.mode:init",
    "install": f"{_CLIENTS}.install:install",
    "shutdown": f"{_CLIENTS}.mode:shutdown",
}

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIFuture",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "ActorLostError",
    "AdamOptimizerConfig",
    "AdamParams",
    "AdminClient",
    "AuthenticationError",
    "BackcompatSamplingClientFuture",
    "BackcompatTrainingClientFuture",
    "BadRequestError",
    "BillingError",
    "Budget",
    "BudgetExceededError",
    "Checkpoint",
    "CheckpointType",
    "ConfigurationError",
    "ConflictError",
    "Datum",
    "DimuonOptimizerConfig",
    "DimuonParams",
    "DmelChunk",
    "Downloaded",
    "EncodedTextChunk",
    "EngineError",
    "EngineStartError",
    "ExperimentalWarning",
    "ForwardBackwardOutput",
    "InternalServerError",
    "LivePolicy",
    "LoraConfig",
    "LossHandle",
    "ModelID",
    "ModelInput",
    "ModelInputChunk",
    "ModelLostError",
    "NotFoundError",
    "OptimParams",
    "OptimStepRequest",
    "OptimStepResponse",
    "Pacing",
    "ParsedCheckpointTinkerPath",
    "PerDatumLossFn",
    "PermissionDeniedError",
    "PoisonedClientError",
    "Price",
    "PromptProvenanceSpan",
    "RateLimitError",
    "RayExecutor",
    "RequestFailedError",
    "RequestOptions",
    "RestClient",
    "RetryBudget",
    "RetryConfig",
    "RetryableError",
    "RolloutPool",
    "SampleRequest",
    "SampleResponse",
    "SampledProvenanceSpan",
    "SampledSequence",
    "SamplingClient",
    "SamplingParams",
    "ServiceClient",
    "StaleHandleError",
    "StopReason",
    "TensorData",
    "TensorDtype",
    "Timeout",
    "Timeouts",
    "TinkerError",
    "TrainingClient",
    "TrainingRun",
    "UnfulfilledError",
    "UnprocessableEntityError",
    "WireFormatError",
    "__title__",
    "__version__",
    "auth",
    "init",
    "install",
    "shutdown",
    "types",
]


def __getattr__(name: str) -> object:
    """Load a client, the pool or an entry point when it is first named."""
    place = _LAZY.get(name)
    if place is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    module, _, attribute = place.partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the lazy names too."""
    return sorted(__all__)
