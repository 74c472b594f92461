"""What a service can do and wants, as it says itself.

Asked once per session, and handed to other processes as a value. Knows nothing of what the flags
are for. A service that does not know the question is an old one, which speaks JSON only.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tinker_ray.core.sdk_method import own_context
from tinker_ray.errors import NotFoundError, TinkerError
from tinker_ray.types import ClientConfigResponse, ClientDynamicConfigResponse
from tinker_ray.version import SDK_VERSION
from tinker_ray.wire import endpoint
from tinker_ray.wire.chunking import ChunkLimits

if TYPE_CHECKING:
    from tinker_ray.core.link import Link
    from tinker_ray.wire.endpoint import Endpoint

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
SHORTEST_REFRESH_S = 10.0
_REFRESH = replace(endpoint.CLIENT_DYNAMIC_CONFIG, budget_s=0.0)
"""Only the first question is repeated: the next one comes by itself."""


@dataclass(frozen=True, slots=True)
class DynamicFlags:
    """What the service may change its mind about while a session lives.

    Attributes:
        refresh_interval_sec: How often to ask again.
        sample_cancel_enabled: Abandoned samples are to be cancelled explicitly.
        sample_cancel_max_batch_size: Cancellations that may be under way to it at once.
    """

    refresh_interval_sec: float = 300
    sample_cancel_enabled: bool = False
    sample_cancel_max_batch_size: int = 64


@dataclass(frozen=True, slots=True)
class ServerFlags:
    """What the service can do and wants; the flags that begin a line have the service's names.

    Attributes:
        protobuf: It takes and gives protobuf; an older one speaks JSON only and has no
            ``client/config`` endpoint.
        chunks: The most that one training request carries.
        sample_bytes: Estimated bytes of prompts that may be under way to it at once.
        max_samples: Samples in flight per sampler.
        response_bytes: Bytes of large results that may be under way from it at once.
        fwdbwd_bytes: Estimated bytes of training batches that may be under way to it at once.
        billing_pause_s: How long it is to be asked again after a 402, in seconds.
        pjwt_auth_enabled: Credentials are to be exchanged for short-lived tokens.
        credential_default_source: ``credential_cmd`` if only what a command prints may be
            exchanged, else ``api_key``.
        parallel_fwdbwd_chunks: The parts of one training batch may arrive in any order.
        proto_compress_fwdbwd: Training batches are to be compressed.
        sample_no_retries: Samples are not to be repeated, limited or given up by the client.
        sample_enable_stuck_detection: Samples are to be given up when none has ended for too long.
        sample_use_retrieve_futures: One poll asks for all samples of a sampler.
        sample_join_sampling_session: Copies of a sampler are numbered by the service.
        custom_loss_server_side: It runs custom losses.
        dynamic: What may change later, as it was when the session was opened.
    """

    protobuf: bool = True
    chunks: ChunkLimits = field(default_factory=ChunkLimits)
    sample_bytes: int = 10 * MIB
    max_samples: int = 2000
    response_bytes: int = 50 * MIB
    fwdbwd_bytes: int = 50_000_000
    billing_pause_s: float = 3600
    pjwt_auth_enabled: bool = False
    credential_default_source: str = "api_key"
    parallel_fwdbwd_chunks: bool = True
    proto_compress_fwdbwd: bool = False
    sample_no_retries: bool = False
    sample_enable_stuck_detection: bool = True
    sample_use_retrieve_futures: bool = False
    sample_join_sampling_session: bool = False
    custom_loss_server_side: bool = False
    dynamic: DynamicFlags = field(default_factory=DynamicFlags)


JSON_ONLY = ServerFlags(
    protobuf=False,
    chunks=ChunkLimits.JSON_ONLY,
    parallel_fwdbwd_chunks=False,
)


def flags_of(config: ClientConfigResponse) -> ServerFlags:
    """Return what a service says of itself as flags."""
    return ServerFlags(
        chunks=ChunkLimits(config.fwdbwd_max_chunk_len, config.fwdbwd_max_chunk_bytes_count),
        sample_bytes=config.sample_dispatch_bytes_semaphore_size,
        max_samples=config.sample_max_concurrent_requests,
        response_bytes=config.inflight_response_bytes_semaphore_size,
        fwdbwd_bytes=config.fwdbwd_dispatch_bytes_semaphore_size,
        billing_pause_s=config.billing_exception_max_pause_duration_sec,
        pjwt_auth_enabled=config.pjwt_auth_enabled,
        credential_default_source=config.credential_default_source,
        parallel_fwdbwd_chunks=config.parallel_fwdbwd_chunks,
        proto_compress_fwdbwd=config.proto_compress_fwdbwd,
        sample_no_retries=config.sample_no_retries,
        sample_enable_stuck_detection=config.sample_enable_stuck_detection,
        sample_use_retrieve_futures=config.sample_use_retrieve_futures,
        sample_join_sampling_session=config.sample_join_sampling_session,
        custom_loss_server_side=config.custom_loss_server_side,
    )


def config_of(flags: ServerFlags) -> ClientConfigResponse:
    """Return flags as the service says them, which is how they travel to other processes."""
    return ClientConfigResponse(
        fwdbwd_max_chunk_len=flags.chunks.max_datums,
        fwdbwd_max_chunk_bytes_count=flags.chunks.max_bytes,
        sample_dispatch_bytes_semaphore_size=flags.sample_bytes,
        sample_max_concurrent_requests=flags.max_samples,
        inflight_response_bytes_semaphore_size=flags.response_bytes,
        fwdbwd_dispatch_bytes_semaphore_size=flags.fwdbwd_bytes,
        billing_exception_max_pause_duration_sec=int(flags.billing_pause_s),
        pjwt_auth_enabled=flags.pjwt_auth_enabled,
        credential_default_source=flags.credential_default_source,
        parallel_fwdbwd_chunks=flags.parallel_fwdbwd_chunks,
        proto_compress_fwdbwd=flags.proto_compress_fwdbwd,
        sample_no_retries=flags.sample_no_retries,
        sample_enable_stuck_detection=flags.sample_enable_stuck_detection,
        sample_use_retrieve_futures=flags.sample_use_retrieve_futures,
        sample_join_sampling_session=flags.sample_join_sampling_session,
        custom_loss_server_side=flags.custom_loss_server_side,
    )


def dynamic_flags_of(config: ClientDynamicConfigResponse) -> DynamicFlags:
    """Return what a service says that it may change as flags."""
    return DynamicFlags(
        config.refresh_interval_sec,
        config.sample_cancel_enabled,
        config.sample_cancel_max_batch_size,
    )


async def fetch_flags(link: Link, call: Endpoint = endpoint.CLIENT_CONFIG) -> ServerFlags:
    """Ask the service what it can do, all but :attr:`ServerFlags.dynamic`.

    Args:
        link: To the service.
        call: The question, with another patience than usual if need be.

    Raises:
        APIStatusError: The service refused.
        APIConnectionError: There was no answer.
    """
    try:
        config = await link.call(call, ClientConfigResponse, {"sdk_version": SDK_VERSION})
    except NotFoundError:
        return JSON_ONLY
    return flags_of(config)


async def fetch_dynamic_flags(link: Link) -> DynamicFlags:
    """Ask the service for what may change; one that does not know the question gives defaults.

    Raises:
        APIStatusError: The service refused.
        APIConnectionError: There was no answer.
    """
    try:
        config = await link.call(
            endpoint.CLIENT_DYNAMIC_CONFIG,
            ClientDynamicConfigResponse,
            {"sdk_version": SDK_VERSION},
        )
    except NotFoundError:
        return DynamicFlags()
    return dynamic_flags_of(config)


class FlagsRefresh:
    """Keeps the dynamic flags of a link up to date; what they were stays when nobody answers."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, unless that was done before or the service is too old to change its mind."""
        if self._task is None and self._link.flags.protobuf:
            self._task = asyncio.create_task(self._run(), name="flags", context=own_context())

    async def aclose(self) -> None:
        """End; idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            every_s = self._link.flags.dynamic.refresh_interval_sec
            await self._link.clock.sleep(max(every_s, SHORTEST_REFRESH_S))
            try:
                config = await self._link.call(
                    _REFRESH, ClientDynamicConfigResponse, {"sdk_version": SDK_VERSION}
                )
            except TinkerError as error:
                logger.debug("the flags stay as they are: %s", error)
            else:
                self._link.flags = replace(self._link.flags, dynamic=dynamic_flags_of(config))
