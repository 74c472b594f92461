"""Where the names of the upstream SDK's modules are found in this package.

One entry per upstream module that scripts import by its path, over both generations: those of the
two released wheels that have a counterpart here. A name is given as ``module:attribute``; one that
is not listed is looked up in the modules of :data:`SOURCES`. Knows nothing of how modules are made.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from tinker_ray.version import SDK_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPATIBLE_VERSION = SDK_VERSION
"""The newest upstream release whose interface this is; ``tinker.__version__`` under install()."""

_CLIENTS = "tinker_ray.clients"
_FUTURE = {
    "APIFuture": f"{_CLIENTS}.api_future:APIFuture",
    "AwaitableConcurrentFuture": f"{_CLIENTS}.api_future:APIFuture",
}
_RETRY = {"RetryConfig": "tinker_ray.types:RetryConfig"}
_QUEUE = {
    "QueueState": "tinker_ray.types:QueueState",
    "QueueStateObserver": f"{_CLIENTS}.holder:QueueStateObserver",
}
_POOLS = {"ClientConnectionPoolType": f"{_CLIENTS}.holder:ClientConnectionPoolType"}
_TELEMETRY = {"TelemetryProvider": f"{_CLIENTS}.holder:TelemetryProvider"}
_LOSS = {
    "LossHandle": f"{_CLIENTS}.loss_handle:LossHandle",
    "PerDatumLossFn": f"{_CLIENTS}.loss_handle:PerDatumLossFn",
}
_VERSION = {
    "__version__": f"{_CLIENTS}.upstream_modules:COMPATIBLE_VERSION",
    "__title__": f"{_CLIENTS}.upstream_modules:TITLE",
}
TITLE = "tinker"

_TYPES = """
    _tensor_container audit_log_entry audit_log_response auth_token_response
    billing_usage_request billing_usage_response checkpoint checkpoint_archive_url_response
    checkpoints_list_response client_config_request client_config_response
    client_dynamic_config_response copy_weights_request copy_weights_response
    create_custom_loss_request create_custom_loss_response create_model_request
    create_model_response create_sampling_session_request create_sampling_session_response
    create_session_request create_session_response current_checkpoint_storage_usage_request
    current_checkpoint_storage_usage_response cursor custom_loss_graph custom_loss_input datum
    dmel_chunk encoded_text_chunk event_type external_weights_urls_response
    forward_backward_input forward_backward_output forward_backward_request forward_request
    future_completion future_retrieve_request future_retrieve_response futures_retrieve_request
    futures_retrieve_response generic_event get_info_request get_info_response
    get_sampler_response get_server_capabilities_response get_session_response health_response
    image_asset_pointer_chunk image_chunk join_sampling_session_request
    join_sampling_session_response list_sessions_response load_weights_request
    load_weights_response lora_config loss_fn_inputs loss_fn_output loss_fn_type model_id
    model_input model_input_chunk optim_step_request optim_step_response optimizer
    prompt_alt_tokens provenance_spans request_error_category request_failed_response request_id
    sample_request sample_response sampled_sequence sampling_client_kind sampling_params
    save_weights_external_request save_weights_external_response
    save_weights_for_sampler_request save_weights_for_sampler_response save_weights_request
    save_weights_response search_owner session_end_event session_heartbeat_request
    session_heartbeat_response session_search_cursor session_search_request
    session_search_response session_start_event session_status session_status_query
    session_summary severity shared shared.untyped_api_future stop_reason telemetry_batch
    telemetry_event telemetry_response telemetry_send_request tensor_data tensor_dtype
    topk_logprobs training_run training_runs_response try_again_response
    unhandled_exception_event unload_model_request unload_model_response weights_info_response
    whoami_response
"""

SOURCES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "tinker": ("tinker_ray",),
        "tinker._exceptions": ("tinker_ray.errors",),
        "tinker.auth": ("tinker_ray.auth",),
        "tinker.types": ("tinker_ray.types",),
        "tinker.lib.console_urls": (f"{_CLIENTS}.console",),
        "tinker.lib.public_interfaces": ("tinker_ray",),
        "tinker.lib.public_interfaces.service_client": ("tinker_ray",),
        "tinker.lib.public_interfaces.training_client": ("tinker_ray",),
        "tinker.lib.public_interfaces.sampling_client": ("tinker_ray",),
        "tinker.lib.public_interfaces.rest_client": ("tinker_ray",),
        "tinker.lib.public_interfaces.admin_client": ("tinker_ray",),
    }
)
"""Modules in which a name of an upstream module is looked up if it is not listed below."""

NAMES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "tinker": {**_VERSION},
        "tinker._version": {**_VERSION},
        "tinker._exceptions": {},
        "tinker._types": {
            "NOT_GIVEN": f"{_CLIENTS}.options:NOT_GIVEN",
            "NotGiven": f"{_CLIENTS}.options:NotGiven",
            "Omit": f"{_CLIENTS}.options:Omit",
            "NoneType": "types:NoneType",
            "RequestOptions": f"{_CLIENTS}.options:RequestOptions",
            "Timeout": "tinker_ray.transport.timeout:Timeout",
        },
        "tinker._models": {
            "BaseModel": "pydantic:BaseModel",
            "StrictBase": "pydantic:BaseModel",
        },
        "tinker._constants": {"DEFAULT_TIMEOUT": "tinker_ray.transport.timeout:DEFAULT_TIMEOUT"},
        "tinker._client": {
            "RequestOptions": f"{_CLIENTS}.options:RequestOptions",
            "Timeout": "tinker_ray.transport.timeout:Timeout",
        },
        "tinker.auth": {},
        "tinker.lib": {},
        "tinker.lib.api_future_impl": {
            **_QUEUE,
            **_FUTURE,
            "_APIFuture": f"{_CLIENTS}.api_future:APIFuture",
        },
        "tinker.lib.async_tinker_provider": {
            "AsyncTinkerProvider": f"{_CLIENTS}.holder:Holder",
        },
        "tinker.lib.base_url": {
            "DEFAULT_BASE_URL": "tinker_ray.config:DEFAULT_BASE_URL",
            "resolve_base_url": f"{_CLIENTS}.options:resolve_base_url",
        },
        "tinker.lib.chunked_fwdbwd_helpers": {},
        "tinker.lib.client_connection_pool_type": {**_POOLS},
        "tinker.lib.console_urls": {},
        "tinker.lib.experimental": {
            "ExperimentalWarning": "tinker_ray.errors:ExperimentalWarning",
        },
        "tinker.lib.internal_client_holder": {
            **_POOLS,
            "InternalClientHolder": f"{_CLIENTS}.holder:Holder",
        },
        "tinker.lib.public_interfaces": {**_FUTURE, **_LOSS},
        "tinker.lib.public_interfaces.admin_client": {},
        "tinker.lib.public_interfaces.api_future": {**_FUTURE},
        "tinker.lib.public_interfaces.backcompat_client_future": {
            "BackcompatClientFuture": f"{_CLIENTS}.ready:Ready",
        },
        "tinker.lib.public_interfaces.backcompat_sampling_client_future": {
            "BackcompatSamplingClientFuture": f"{_CLIENTS}.sampling:SamplingClient",
        },
        "tinker.lib.public_interfaces.backcompat_training_client_future": {
            "BackcompatTrainingClientFuture": f"{_CLIENTS}.training:TrainingClient",
        },
        "tinker.lib.public_interfaces.custom_loss": {**_LOSS},
        "tinker.lib.public_interfaces.rest_client": {**_FUTURE},
        "tinker.lib.public_interfaces.sampling_client": {**_FUTURE, **_QUEUE, **_RETRY},
        "tinker.lib.public_interfaces.service_client": {**_FUTURE, **_LOSS, **_RETRY},
        "tinker.lib.public_interfaces.training_client": {**_FUTURE, **_LOSS, **_QUEUE, **_RETRY},
        "tinker.lib.retry_handler": {
            **_RETRY,
            "is_retryable_status_code": "tinker_ray.wire.status:is_retryable",
            "RetryableException": "tinker_ray.errors:RetryableError",
        },
        "tinker.lib.retryable_exception": {
            "RetryableException": "tinker_ray.errors:RetryableError"
        },
        "tinker.lib.sync_only": {"sync_only": f"{_CLIENTS}.options:sync_only"},
        "tinker.lib.telemetry": {
            **_TELEMETRY,
            "Telemetry": f"{_CLIENTS}.telemetry:Telemetry",
            "capture_exceptions": f"{_CLIENTS}.telemetry:capture_exceptions",
            "is_user_error": f"{_CLIENTS}.telemetry:is_user_error",
        },
        "tinker.lib.telemetry_provider": {**_TELEMETRY},
        "tinker.types": {},
    }
)
"""The upstream modules with a counterpart here, and those of their names that are not looked up."""

TYPES: tuple[str, ...] = tuple(_TYPES.split())
"""The modules of ``tinker.types``, one per type; their names are looked up in our ``types``."""
