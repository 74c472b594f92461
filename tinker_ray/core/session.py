"""A session: created once, the parent of models and sampling sessions.

Numbers of models and sampling sessions come from the caller, the one owner of the counters,
because the service recognises a repeated creation by them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tinker_ray.core.link import json_body, plain_body
from tinker_ray.core.operation import (
    CREATE_CUSTOM_LOSS_RESULT,
    CREATE_MODEL_RESULT,
    LOAD_RESULT,
    dumped_config,
)
from tinker_ray.core.polling import retrieve
from tinker_ray.core.queue_log import QueueLog
from tinker_ray.errors import ConfigurationError, NotFoundError
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import span
from tinker_ray.types import (
    GetServerCapabilitiesResponse,
    JoinSamplingSessionResponse,
    LoadWeightsResponse,
    LoraConfig,
    WeightsInfoResponse,
)
from tinker_ray.version import SDK_VERSION
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.config import Secret
    from tinker_ray.core.flags import ServerFlags
    from tinker_ray.core.link import Link
    from tinker_ray.types import OptimizerConfig

logger = logging.getLogger(__name__)


class _CreatedSession(BaseModel):
    session_id: str
    info_message: str | None = None
    warning_message: str | None = None
    error_message: str | None = None


class _CreatedSamplingSession(BaseModel):
    sampling_session_id: str


@dataclass(frozen=True, slots=True)
class ModelHandle:
    """A model that was made: its id, and the first number for its operations."""

    model_id: str
    first_seq: int = 1


@dataclass(frozen=True, slots=True)
class _Load:
    """Which checkpoint is to be loaded."""

    path: str
    optimizer: bool
    weights_access_token: Secret | None = None


async def create_session(
    link: Link,
    *,
    tags: Sequence[str],
    user_metadata: Mapping[str, Any] | None,
    project_id: str | None = None,
    display_name: str | None = None,
) -> str:
    """Open a session and return its id.

    Args:
        link: The service.
        tags: Kept with the session.
        user_metadata: Kept with the session.
        project_id: Whose session it is.
        display_name: For people.

    Raises:
        APIStatusError: The service refused.
        APIConnectionError: There was no answer.
    """
    body = {
        "tags": list(tags),
        "user_metadata": dict(user_metadata or {}),
        "sdk_version": SDK_VERSION,
        "project_id": project_id,
        "display_name": display_name,
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


def _adapter(info: WeightsInfoResponse, rank: int) -> LoraConfig:
    """Describe the adapter that a checkpoint needs; what the service does not say is adapted."""
    parts = {
        "train_unembed": info.train_unembed,
        "train_mlp": info.train_mlp,
        "train_attn": info.train_attn,
    }
    return LoraConfig(rank=rank, **{key: part for key, part in parts.items() if part is not None})


class SessionCore:
    """What can be done with an open session."""

    def __init__(self, link: Link, session_id: str) -> None:
        self.session_id = session_id
        self._link = link

    @property
    def flags(self) -> ServerFlags:
        """What the service can do and wants."""
        return self._link.flags

    def __repr__(self) -> str:
        """Show the session."""
        return f"SessionCore({self.session_id!r})"

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
                plain_body(endpoint.FINISH_SESSION, body),
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
        optimizer_config: OptimizerConfig | None = None,
    ) -> ModelHandle:
        """Make a new model to train.

        Args:
            model_seq_id: Its number in the session; repeating it gives the same model.
            base_model: One that the service offers.
            lora: Its adapter.
            user_metadata: Kept with the training run.
            optimizer_config: Its optimizer; None is AdamW.

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
            "optimizer_config": dumped_config(optimizer_config),
        }
        log = QueueLog.of_training(f"the creation of {base_model}", self._link.clock.now)
        with span(names.CREATE_MODEL, attributes={names.SESSION_ID: self.session_id}):
            promise = await self._link.submit(
                endpoint.CREATE_MODEL, json_body(endpoint.CREATE_MODEL, body)
            )
            created = await retrieve(self._link, promise, CREATE_MODEL_RESULT, log)
        return ModelHandle(created.model_id)

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
        """Make a new model and load a checkpoint into it.

        Args:
            model_seq_id: Its number in the session; repeating it gives the same model.
            path: The checkpoint.
            optimizer: Load the state of the optimizer too.
            user_metadata: Kept with the training run.
            base_model: Another base model than the checkpoint's, which has to fit it.
            weights_access_token: Lets us read a checkpoint of another account.
            optimizer_config: The new model's optimizer; None is AdamW. Without ``optimizer`` only.

        Raises:
            APIStatusError: The service refused, for example because the path does not exist.
            RequestFailedError: The load failed.
            ConfigurationError: The service is too old for what is asked.
        """
        load = _Load(path, optimizer, weights_access_token)
        metadata = None if user_metadata is None else dict(user_metadata)
        if not self.flags.protobuf:
            if optimizer_config is not None or weights_access_token is not None:
                message = "this service knows neither access tokens nor optimizers other than AdamW"
                raise ConfigurationError(message)
            return await self._create_then_load(model_seq_id, load, metadata, base_model)
        target = {
            "session_id": self.session_id,
            "model_seq_id": model_seq_id,
            "base_model": base_model,
            "user_metadata": metadata,
            "optimizer_config": dumped_config(optimizer_config),
        }
        loaded = await self._load(load, target)
        return ModelHandle(loaded.model_id or f"{self.session_id}:train:{model_seq_id}")

    async def _create_then_load(
        self,
        model_seq_id: int,
        load: _Load,
        user_metadata: Mapping[str, str] | None,
        base_model: str | None,
    ) -> ModelHandle:
        info = await self._link.call(
            endpoint.WEIGHTS_INFO, WeightsInfoResponse, {"tinker_path": load.path}
        )
        if not info.is_lora or info.lora_rank is None:
            message = f"{load.path} is no LoRA checkpoint: it cannot be trained further"
            raise ConfigurationError(message)
        lora = _adapter(info, info.lora_rank)
        model = await self.create_model(
            model_seq_id, base_model or info.base_model, lora, user_metadata
        )
        seq_id = model.first_seq
        await self._load(load, {"model_id": model.model_id, "seq_id": seq_id})
        return ModelHandle(model.model_id, first_seq=seq_id + 1)

    async def _load(self, load: _Load, target: Mapping[str, Any]) -> LoadWeightsResponse:
        token = load.weights_access_token
        body = {
            **target,
            "path": load.path,
            "optimizer": load.optimizer,
            "weights_access_token": None if token is None else token.reveal(),
        }
        log = QueueLog.of_training(f"the load of {load.path}", self._link.clock.now)
        with span(names.LOAD_STATE, attributes={names.SESSION_ID: self.session_id}):
            promise = await self._link.submit(
                endpoint.LOAD_WEIGHTS, json_body(endpoint.LOAD_WEIGHTS, body)
            )
            return await retrieve(self._link, promise, LOAD_RESULT, log)

    async def create_sampling_session(
        self, seq_id: int, *, base_model: str | None = None, model_path: str | None = None
    ) -> str:
        """Open a sampling session on a base model or on a checkpoint, and return its id.

        Raises:
            ValueError: The path does not begin with ``tinker://``.
            APIStatusError: The service refused, for example because the path does not exist.
        """
        if model_path is not None and not model_path.startswith("tinker://"):
            message = f"model_path={model_path!r} must begin with 'tinker://'"
            raise ValueError(message)
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

    async def join_sampling_session(self, sampling_session_id: str) -> int:
        """Have the service number a further client of a sampling session.

        Raises:
            APIStatusError: The service refused.
            APIConnectionError: There was no answer.
        """
        return await join_sampling_session(self._link, sampling_session_id)

    async def create_custom_loss(
        self,
        custom_loss_seq_id: int,
        name: str,
        inputs: Sequence[Mapping[str, Any]],
        graph: Mapping[str, Any],
    ) -> str:
        """Upload a traced loss and return the id to use it by.

        Args:
            custom_loss_seq_id: Its number in the session; repeating it gives the same loss.
            name: For people.
            inputs: ``name`` and ``rank`` of each input, ``logprobs`` first.
            graph: The traced computation.

        Raises:
            APIStatusError: The service refused.
            RequestFailedError: The service cannot run it.
        """
        body = {
            "session_id": self.session_id,
            "custom_loss_seq_id": custom_loss_seq_id,
            "name": name,
            "inputs": [dict(item) for item in inputs],
            "graph": dict(graph),
        }
        promise = await self._link.submit(
            endpoint.CREATE_CUSTOM_LOSS, json_body(endpoint.CREATE_CUSTOM_LOSS, body)
        )
        created = await retrieve(self._link, promise, CREATE_CUSTOM_LOSS_RESULT)
        return created.loss_id


async def join_sampling_session(link: Link, sampling_session_id: str) -> int:
    """Have the service number a further client of a sampling session.

    Raises:
        APIStatusError: The service refused.
        APIConnectionError: There was no answer.
    """
    body = {"sampling_session_id": sampling_session_id}
    joined = await link.call(endpoint.JOIN_SAMPLING_SESSION, JoinSamplingSessionResponse, body)
    return joined.client_counter
