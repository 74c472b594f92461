"""Which generation of the service to be like, for those who test clients against an old or new one.

An old service (``json``) knows none of the endpoints, keys and encodings that came after SDK 0.6; a
new one (``protobuf``) has dropped what its clients no longer use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.engine.serving.rejection import RequestRejected, not_found
from tinker_ray.wire import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinker_ray.engine.settings import Wire

_ONLY_OLD = frozenset({"forward", "archive_url", "unload_model"})
_ONLY_NEW = frozenset(
    {
        "audit_log",
        "billing_usage",
        "cancel_future",
        "checkpoint_storage",
        "client_config",
        "client_dynamic_config",
        "copy_weights",
        "create_custom_loss",
        "delete_api_key",
        "describe_api_key",
        "external_weights_urls",
        "finish_session",
        "issue_token",
        "join_sampling_session",
        "move_session",
        "retrieve_futures",
        "save_weights_external",
        "search_sessions",
        "set_checkpoint_ttl",
        "trace_export",
    }
)
_NEW_KEYS = frozenset(
    {
        "display_name",
        "expires_at",
        "max_context_length",
        "optimizer_config",
        "sample_sequence_ids",
        "sampleable",
        "train_attn",
        "train_mlp",
        "train_unembed",
        "trainable",
    }
)
"""Keys of answers that came after SDK 0.6."""

_FIRST_WITH_EXPORTS = (0, 27)
_UNSUPPORTED_MEDIA_TYPE = 415
_NOT_ACCEPTABLE = 406


def has_endpoint(wire: Wire, name: str) -> bool:
    """Whether a service has an endpoint, by the name of its function."""
    return not (
        (wire == "json" and name in _ONLY_NEW) or (wire == "protobuf" and name in _ONLY_OLD)
    )


def answer_keys(wire: Wire, value: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of an answer what the generation does not say."""
    if wire != "json":
        return dict(value)
    return {key: _old(item) for key, item in value.items() if key not in _NEW_KEYS}


def _old(value: object) -> object:
    if isinstance(value, dict):
        return answer_keys("json", value)
    if isinstance(value, list):
        return [_old(item) for item in value]
    return value


def check_batch_encoding(wire: Wire, content_type: str) -> None:
    """Refuse a training batch in an encoding that the generation does not read.

    Raises:
        RequestRejected: It is in the other one.
    """
    if wire != "both" and codec.is_protobuf(content_type) != (wire == "protobuf"):
        expected = codec.PROTOBUF if wire == "protobuf" else codec.JSON
        message = f"is {content_type!r}, and this engine was told to read only {expected}"
        raise RequestRejected(message, field="Content-Type", status_code=_UNSUPPORTED_MEDIA_TYPE)


def result_encoding(wire: Wire, accept: str) -> str:
    """Choose the encoding of an array result.

    Raises:
        RequestRejected: The client does not accept the only one.
    """
    if wire == "json":
        return codec.JSON
    if codec.is_protobuf(accept):
        return codec.PROTOBUF
    if wire == "protobuf":
        message = f"is {accept!r}, and this engine was told to send only {codec.PROTOBUF}"
        raise RequestRejected(message, field="Accept", status_code=_NOT_ACCEPTABLE)
    return codec.JSON


def check_create_from(wire: Wire) -> None:
    """Refuse to make a model out of a checkpoint in one request, which old services cannot.

    Raises:
        RequestRejected: The engine is like an old service.
    """
    if wire == "json":
        raise not_found("there is no model '' (session_id is not read)", "model_id")


def lists_exports(sdk_version: str) -> bool:
    """Whether a client reads lists with exported checkpoints; SDKs before 0.27 cannot."""
    major, _, rest = sdk_version.partition(".")
    minor = rest.partition(".")[0]
    if not (major.isdecimal() and minor.isdecimal()):
        return True
    return (int(major), int(minor)) >= _FIRST_WITH_EXPORTS
