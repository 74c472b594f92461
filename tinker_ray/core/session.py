"""A session: created once, kept alive by one heartbeat, the parent of models and sampling sessions.

Numbers of models and sampling sessions come from the caller, the one owner of the counters,
because the service recognises a repeated creation by them.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tinker_ray.core.link import json_body
from tinker_ray.core.operation import CREATE_MODEL_RESULT, LOAD_RESULT
from tinker_ray.core.polling import retrieve
from tinker_ray.errors import (
    APIError,
    APIStatusError,
    ConfigurationError,
    NotFoundError,
    StaleHandleError,
)
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import span
from tinker_ray.types import GetServerCapabilitiesResponse, LoraConfig, WeightsInfoResponse
from tinker_ray.version import __version__
from tinker_ray.wire import endpoint, status
from tinker_ray.wire.chunking import ChunkLimits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.core.link import Link

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
SILENCE_WARNING_S = 120.0


@dataclass(frozen=True, slots=True)
class ServerFlags:
    """What the service can do and wants, as it says itself.

    Attributes:
        protobuf: It takes and gives protobuf; an older one speaks JSON only and has no
            ``client/config`` endpoint.
        chunks: The most that one training request carries.
        sample_bytes: Estimated bytes of prompts that may be under way to it at once.
        max_samples: Samples in flight per sampler.
    """

    protobuf: bool = True
    chunks: ChunkLimits = field(default_factory=ChunkLimits)
    sample_bytes: int = 10 * 1024 * 1024
    max_samples: int = 2000


JSON_ONLY = ServerFlags(protobuf=False, chunks=ChunkLimits.JSON_ONLY)


class _ClientConfig(BaseModel):
    fwdbwd_max_chunk_len: int = 1024
    fwdbwd_max_chunk_bytes_count: int = 5_000_000
    sample_dispatch_bytes_semaphore_size: int = 10 * 1024 * 1024
    sample_max_concurrent_requests: int = 2000


class _CreatedSession(BaseModel):
    session_id: str
    info_message: str | None = None
    warning_message: str | None = None
    error_message: str | None = None


class _CreatedSamplingSession(BaseModel):
    sampling_session_id: str


class _Ignored(BaseModel):
    pass


@dataclass(frozen=True, slots=True)
class ModelHandle:
    """A model that was made: its id, and the first number for its operations."""

    model_id: str
    first_seq: int = 1


async def fetch_flags(link: Link) -> ServerFlags:
    """Ask the service what it can do; one that does not know the question speaks JSON only."""
    try:
        config = await link.call(
            endpoint.CLIENT_CONFIG, _ClientConfig, {"sdk_version": __version__}
        )
    except NotFoundError:
        return JSON_ONLY
    return ServerFlags(
        chunks=ChunkLimits(config.fwdbwd_max_chunk_len, config.fwdbwd_max_chunk_bytes_count),
        sample_bytes=config.sample_dispatch_bytes_semaphore_size,
        max_samples=config.sample_max_concurrent_requests,
    )


async def create_session(
    link: Link, *, tags: Sequence[str], user_metadata: Mapping[str, Any] | None
) -> str:
    """Open a session and return its id.

    Raises:
        APIStatusError: The service refused.
        APIConnectionError: There was no answer.
    """
    body = {
        "tags": list(tags),
        "user_metadata": dict(user_metadata or {}),
        "sdk_version": __version__,
    }
    created = await link.call(endpoint.CREATE_SESSION, _CreatedSession, body)
    for level, message in (
        (logging.INFO, created.info_message),
        (logging.WARNING, created.warning_message),
        (logging.ERROR, created.error_message),
    ):
        if message:
            logger.log(level, "the service says: %s", message)
    return created.session_id


class SessionCore:
    """What can be done with an open session."""

    def __init__(self, link: Link, session_id: str, flags: ServerFlags) -> None:
        self.session_id = session_id
        self.flags = flags
        self._link = link

    def __repr__(self) -> str:
        """Show the session."""
        return f"SessionCore({self.session_id!r})"

    async def beat(self) -> None:
        """Keep the session alive until it is finished; never raises on a failed beat.

        Sends a heartbeat every 10 s. Warns at each beat once none has succeeded for 2 minutes.
        Returns when the service says that the session is over (410), or when the link is closed.
        """
        last_success = self._link.clock.now()
        while True:
            await self._link.clock.sleep(HEARTBEAT_S)
            try:
                await self._link.call(
                    endpoint.SESSION_HEARTBEAT, _Ignored, {"session_id": self.session_id}
                )
                last_success = self._link.clock.now()
            except StaleHandleError:
                return
            except APIError as error:
                if isinstance(error, APIStatusError) and error.status_code == status.GONE:
                    logger.info("session %s is finished", self.session_id)
                    return
                silence_s = self._link.clock.now() - last_success
                if silence_s > SILENCE_WARNING_S:
                    logger.warning(
                        "no heartbeat of session %s has succeeded for %.0f s: %s",
                        self.session_id,
                        silence_s,
                        error,
                    )

    async def finish(self, reason: str, detail: str | None = None) -> None:
        """Tell the service that the session is over; an older service that cannot be told is fine.

        Args:
            reason: ``success``, ``errored`` or ``interrupted``.
            detail: For people.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
        """
        body = {"reason": {"type": reason}, "detail": detail}
        try:
            await self._link.send(
                endpoint.FINISH_SESSION,
                json_body(endpoint.FINISH_SESSION, body),
                path={"session_id": self.session_id},
            )
        except NotFoundError:
            logger.debug("the service cannot finish sessions")

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Ask which base models the service offers."""
        return await self._link.call(
            endpoint.GET_SERVER_CAPABILITIES, GetServerCapabilitiesResponse
        )

    async def create_model(
        self,
        model_seq_id: int,
        base_model: str,
        lora: LoraConfig,
        user_metadata: Mapping[str, str] | None = None,
    ) -> ModelHandle:
        """Make a new model to train.

        Raises:
            APIStatusError: The service refused, for example because it does not know the base
                model.
            RequestFailedError: The creation failed.
        """
        body = {
            "session_id": self.session_id,
            "model_seq_id": model_seq_id,
            "base_model": base_model,
            "lora_config": lora.model_dump(exclude_none=True),
            "user_metadata": None if user_metadata is None else dict(user_metadata),
        }
        with span(names.CREATE_MODEL, attributes={names.SESSION_ID: self.session_id}):
            promise = await self._link.submit(
                endpoint.CREATE_MODEL, json_body(endpoint.CREATE_MODEL, body)
            )
            created = await retrieve(self._link, promise, CREATE_MODEL_RESULT)
        return ModelHandle(created.model_id)

    async def create_model_from_state(
        self,
        model_seq_id: int,
        path: str,
        *,
        optimizer: bool,
        user_metadata: Mapping[str, str] | None = None,
    ) -> ModelHandle:
        """Make a new model and load a checkpoint into it.

        Raises:
            APIStatusError: The service refused, for example because the path does not exist.
            RequestFailedError: The load failed.
        """
        if not self.flags.protobuf:
            return await self._create_then_load(model_seq_id, path, optimizer, user_metadata)
        body = {
            "session_id": self.session_id,
            "model_seq_id": model_seq_id,
            "path": path,
            "optimizer": optimizer,
            "user_metadata": None if user_metadata is None else dict(user_metadata),
        }
        loaded = await self._load(body)
        return ModelHandle(loaded.model_id or f"{self.session_id}:train:{model_seq_id}")

    async def _create_then_load(
        self,
        model_seq_id: int,
        path: str,
        optimizer: bool,  # noqa: FBT001 - internal
        user_metadata: Mapping[str, str] | None,
    ) -> ModelHandle:
        info = await self._link.call(
            endpoint.WEIGHTS_INFO, WeightsInfoResponse, {"tinker_path": path}
        )
        if not info.is_lora or info.lora_rank is None:
            message = f"{path} is no LoRA checkpoint: it cannot be trained further"
            raise ConfigurationError(message)
        lora = LoraConfig(rank=info.lora_rank)
        model = await self.create_model(model_seq_id, info.base_model, lora, user_metadata)
        seq_id = model.first_seq
        await self._load(
            {"model_id": model.model_id, "seq_id": seq_id, "path": path, "optimizer": optimizer}
        )
        return ModelHandle(model.model_id, first_seq=seq_id + 1)

    async def _load(self, body: Mapping[str, Any]) -> Any:  # noqa: ANN401
        with span(names.LOAD_STATE, attributes={names.SESSION_ID: self.session_id}):
            promise = await self._link.submit(
                endpoint.LOAD_WEIGHTS, json_body(endpoint.LOAD_WEIGHTS, body)
            )
            return await retrieve(self._link, promise, LOAD_RESULT)

    async def create_sampling_session(
        self, seq_id: int, *, base_model: str | None = None, model_path: str | None = None
    ) -> str:
        """Open a sampling session on a base model or on a checkpoint, and return its id.

        Raises:
            APIStatusError: The service refused, for example because the path does not exist.
        """
        body = {
            "session_id": self.session_id,
            "sampling_session_seq_id": seq_id,
            "base_model": base_model,
            "model_path": model_path,
        }
        with span(names.CREATE_SAMPLING_SESSION, attributes={names.SESSION_ID: self.session_id}):
            created = await self._link.call(
                endpoint.CREATE_SAMPLING_SESSION, _CreatedSamplingSession, body
            )
        return created.sampling_session_id


class Heartbeat:
    """The task that keeps a session alive, and its end."""

    def __init__(self, session: SessionCore) -> None:
        self._task = asyncio.get_running_loop().create_task(session.beat(), name="heartbeat")

    @property
    def alive(self) -> bool:
        """Whether it still beats."""
        return not self._task.done()

    async def stop(self) -> None:
        """End it; idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
