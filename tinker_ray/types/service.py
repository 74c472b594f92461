"""The service itself: its health, its models, its settings for clients, and who is asking."""

from __future__ import annotations

from typing import Literal

from tinker_ray.types.model import Record, Strict


class HealthResponse(Record):
    """The service is there."""

    status: Literal["ok"]


class SupportedModel(Record):
    """A base model that the service offers; lengths are in tokens."""

    model_name: str | None = None
    max_context_length: int | None = None
    trainable: bool | None = None
    sampleable: bool | None = None


class GetServerCapabilitiesResponse(Record):
    """What the service offers."""

    supported_models: list[SupportedModel]


class ClientConfigRequest(Strict):
    """Asks for the settings of a client version."""

    sdk_version: str


class ClientConfigResponse(Record):
    """Settings for a client's whole life; sizes are in bytes."""

    pjwt_auth_enabled: bool = False
    credential_default_source: str = "api_key"
    sample_dispatch_bytes_semaphore_size: int = 10 * 1024 * 1024
    inflight_response_bytes_semaphore_size: int = 50 * 1024 * 1024
    parallel_fwdbwd_chunks: bool = True
    proto_compress_fwdbwd: bool = False
    fwdbwd_max_chunk_len: int = 1024
    fwdbwd_max_chunk_bytes_count: int = 5_000_000
    fwdbwd_dispatch_bytes_semaphore_size: int = 50_000_000
    billing_exception_max_pause_duration_sec: int = 3600
    sample_no_retries: bool = False
    sample_enable_stuck_detection: bool = True
    sample_max_concurrent_requests: int = 2000
    use_pyqwest_transport: bool = True
    sample_use_retrieve_futures: bool = False
    custom_loss_server_side: bool = False
    sample_join_sampling_session: bool = False


class ClientDynamicConfigResponse(Record):
    """Settings that are asked for again every ``refresh_interval_sec`` seconds."""

    refresh_interval_sec: int = 300
    sample_cancel_enabled: bool = False
    sample_cancel_max_batch_size: int = 64


class AuthTokenResponse(Record):
    """A token to be used instead of the credential that it was given for."""

    jwt: str

    def __repr__(self) -> str:
        """Keep the token out of logs."""
        return "AuthTokenResponse(jwt='***')"


class WhoamiResponse(Record):
    """Whom the credential stands for."""

    user_urn: str
    org_urn: str
    email: str | None = None


class ApiKeyOrgDetails(Record):
    """The organization that a key belongs to."""

    name: str


class ApiKeyUserDetails(Record):
    """The user that a key belongs to."""

    email: str


class ApiKeyDetails(Record):
    """Whose a key is."""

    org_details: ApiKeyOrgDetails
    user_details: ApiKeyUserDetails


class SelfApiKeyResponse(Record):
    """What the service knows of the key that asks."""

    key_id: int
    name: str
    note: str
    details: ApiKeyDetails
