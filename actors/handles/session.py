"""The session as its callers hold it: clients, permit holders and training actors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tinker_ray.core.sdk_method import carry
from tinker_ray.telemetry.carrier import inject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from actors.handles.remote import RemoteActor
    from actors.lease_keeper import HolderInfo
    from tinker_ray.config import Secret
    from tinker_ray.core.port import NumberKind
    from tinker_ray.core.session import ModelHandle, SessionCore
    from tinker_ray.limits import Ruling, Spend, SpendClaim, SpendGrant, Statement
    from tinker_ray.types import (
        GetServerCapabilitiesResponse,
        LoraConfig,
        OptimizerConfig,
        TelemetryEvent,
    )


class SessionHandle:
    """Calls the session's actor; pickles as its name.

    Creations are made again when the actor dies over them, because the service recognises their
    numbers. Statements are not: there will be newer ones. The numbers are this handle's to issue
    until the session is shared with other processes, then the actor's.

    Args:
        remote: The actor.
        here: The session over connections of this process's own, for what no actor may know.
        is_copy: The session is another process's, which shares it.
    """

    def __init__(
        self,
        remote: RemoteActor,
        *,
        here: Callable[[], Awaitable[SessionCore]] | None = None,
        is_copy: bool = False,
    ) -> None:
        self.remote = remote
        self._here = here
        self._is_shared = is_copy
        self._next: dict[str, int] = {}
        self._handing_over: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show the actor."""
        return f"SessionHandle({self.remote!r})"

    async def number(self, kind: NumberKind) -> int:
        """Issue the next number of a kind of things.

        Raises:
            ActorLostError: The session is shared, and its actor is dead for good.
            StaleHandleError: The process that shared the session is gone.
        """
        if not self._is_shared:
            number = self._next.get(kind, 0)
            self._next[kind] = number + 1
            return number
        if self._handing_over is not None:
            await asyncio.shield(self._handing_over)
        shared: int = await self._again("take_number", kind, traced=False)
        return shared

    def share(self) -> None:
        """Let the actor issue the numbers, so that other processes get theirs from it, too.

        Idempotent; on the event loop of the handle.
        """
        if not self._is_shared:
            self._is_shared = True
            handing_over = self._again("adopt_counters", dict(self._next), traced=False)
            self._handing_over = asyncio.get_running_loop().create_task(handing_over)
            self._handing_over.add_done_callback(_observe)

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Ask which base models the service offers."""
        capabilities: GetServerCapabilitiesResponse = await self._again("get_server_capabilities")
        return capabilities

    async def create_model(
        self,
        model_seq_id: int,
        base_model: str,
        lora: LoraConfig,
        user_metadata: Mapping[str, str] | None = None,
        optimizer_config: OptimizerConfig | None = None,
    ) -> ModelHandle:
        """Make a new model to train.

        Raises:
            APIStatusError: The service refused.
            RequestFailedError: The creation failed.
            ActorLostError: The session's actor is dead for good.
        """
        model: ModelHandle = await self._again(
            "create_model", model_seq_id, base_model, lora, user_metadata, optimizer_config
        )
        return model

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

        With an access token, which does not leave its process, this process asks by itself.

        Raises:
            APIStatusError: The service refused.
            RequestFailedError: The load failed.
            ActorLostError: The session's actor is dead for good.
        """
        if weights_access_token is not None and self._here is not None:
            session = await self._here()
            return await session.create_model_from_state(
                model_seq_id,
                path,
                optimizer=optimizer,
                user_metadata=user_metadata,
                base_model=base_model,
                weights_access_token=weights_access_token,
                optimizer_config=optimizer_config,
            )
        model: ModelHandle = await self._again(
            "create_model_from_state",
            model_seq_id,
            path,
            optimizer,
            user_metadata,
            base_model,
            optimizer_config,
        )
        return model

    async def create_sampling_session(
        self, seq_id: int, *, base_model: str | None = None, model_path: str | None = None
    ) -> str:
        """Open a sampling session and return its id.

        Raises:
            APIStatusError: The service refused.
            ActorLostError: The session's actor is dead for good.
        """
        session_id: str = await self._again(
            "create_sampling_session", seq_id, base_model, model_path
        )
        return session_id

    async def join_sampling_session(self, sampling_session_id: str) -> int:
        """Have the service number a further client of a sampling session.

        Raises:
            APIStatusError: The service refused.
            ActorLostError: The session's actor is dead for good.
        """
        number: int = await self._again("join_sampling_session", sampling_session_id)
        return number

    async def create_custom_loss(
        self,
        custom_loss_seq_id: int,
        name: str,
        inputs: Sequence[Mapping[str, Any]],
        graph: Mapping[str, Any],
    ) -> str:
        """Upload a traced loss and return the id to use it by.

        Raises:
            APIStatusError: The service refused.
            RequestFailedError: The service cannot run it.
            ActorLostError: The session's actor is dead for good.
        """
        loss_id: str = await self._again(
            "create_custom_loss", custom_loss_seq_id, name, inputs, graph
        )
        return loss_id

    async def tell(self, told: Sequence[TelemetryEvent], *, flush: bool = False) -> bool:
        """Take in events for the service.

        Raises:
            ActorLostError: The session's actor died over it.
        """
        taken: bool = await self.remote.call("tell", list(told), flush)
        return taken

    async def finish(self, reason: str, detail: str | None = None) -> None:
        """Tell the service that the session is over.

        Raises:
            APIError: The service refused or could not be reached.
            ActorLostError: The session's actor is dead for good.
        """
        await self._again("finish", reason, detail)

    async def state(self, statement: Statement) -> Ruling:
        """State what this process has of permits and samples.

        Raises:
            ActorLostError: The session's actor died over it.
        """
        ruling: Ruling = await self.remote.call("state", statement)
        return ruling

    async def listen(self, info: HolderInfo) -> Ruling | None:
        """Wait for news for a process that samples.

        Raises:
            ActorLostError: The session's actor died over it.
        """
        news: Ruling | None = await self.remote.call("listen", info)
        return news

    async def claim_spend(self, claim: SpendClaim) -> SpendGrant:
        """Claim more of the run's budget.

        Raises:
            ActorLostError: The session's actor died over it.
        """
        grant: SpendGrant = await self.remote.call("claim_spend", claim)
        return grant

    async def raise_budget(self, limit: Spend) -> None:
        """Allow the run to cost more.

        Raises:
            ConfigurationError: It has no budget.
            ActorLostError: The session's actor is dead for good.
        """
        await self._again("raise_budget", limit)

    async def announce(self, model_id: str) -> None:
        """Tell that a training actor lives.

        Raises:
            ActorLostError: The session's actor died over it.
        """
        await self.remote.call("announce", model_id)

    async def inventory(self) -> dict[str, Any]:
        """Describe who takes part in the run.

        Raises:
            ActorLostError: The session's actor is dead for good.
        """
        found: dict[str, Any] = await self._again("inventory", traced=False)
        return found

    async def _again(self, method: str, *arguments: Any, traced: bool = True) -> Any:  # noqa: ANN401
        carrier = carry(inject()) if traced else None
        return await self.remote.call_until_answered(method, lambda: arguments, carrier)


def _observe(task: asyncio.Task[None]) -> None:
    """Mark a task's error as seen: whoever needs a number gets it."""
    if not task.cancelled():
        task.exception()
