"""The sampling core as an actor hosts it: on leased permits, with numbers that no other host uses.

Knows nothing of Ray. Invariant: every sample ends, if need be with an error when the permit ledger
has been silent for too long.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.lease_keeper import HolderInfo, LeaseKeeper
from tinker_ray.core.flags import FlagsRefresh
from tinker_ray.core.sampling import SamplingCore
from tinker_ray.core.session_calls import base_model_of
from tinker_ray.core.spending import Spending
from tinker_ray.core.traffic import ORDINARY
from tinker_ray.errors import StaleHandleError, TinkerError
from tinker_ray.limits import SpendShare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.lease_keeper import Ledger
    from actors.service import ServiceSpec
    from tinker_ray.core.link import Link
    from tinker_ray.core.traffic import Traffic
    from tinker_ray.types import RetryConfig, SampleResponse
    from tinker_ray.wire.request import SampleRequest

MAX_CLONE = 1_000_000_000


class HostedSampling:
    """Draws samples in this process, for any sampling session of one session.

    Args:
        service: The session.
        ledger: Where permits are leased.
        kind: What the host is.
        actor: The host's name; with the clone id it names the permit holder.
        node: The host's node.
        link: The service; by default one is opened from the environment.
        clone: By default a new one at random, so that a restarted host repeats no number.

    Raises:
        ConfigurationError: This process has no API key.
    """

    def __init__(  # noqa: PLR0913 - the host's identity
        self,
        service: ServiceSpec,
        ledger: Ledger,
        *,
        kind: str,
        actor: str = "",
        node: str = "",
        link: Link | None = None,
        clone: int | None = None,
    ) -> None:
        self._link = link or service.open_link()
        self.clone = clone or 1 + secrets.randbelow(MAX_CLONE)
        flags = service.flags
        self.keeper = LeaseKeeper(
            HolderInfo(f"{actor or kind}#{self.clone}", kind, actor, node),
            ledger,
            self._link.clock,
            sample_bytes=flags.sample_bytes,
            on_lost=self._fail,
        )
        self.core = SamplingCore(
            self._link,
            self.keeper.admission,
            clone=self.clone,
            spending=self._spending(service, ledger),
        )
        self._refresh = FlagsRefresh(self._link)
        self._refresh.start()
        self._running: set[asyncio.Task[Any]] = set()
        self._failed: dict[asyncio.Task[Any], TinkerError] = {}
        self.keeper.start()

    def __repr__(self) -> str:
        """Show what is in flight."""
        return f"HostedSampling({self.core!r}, {self.keeper!r})"

    @property
    def waiting(self) -> int:
        """How many samples wait for a permit."""
        return self.keeper.admission.waiting

    async def sample(
        self,
        request: SampleRequest,
        retry: RetryConfig | None = None,
        carrier: Mapping[str, str] | None = None,
        traffic: Traffic = ORDINARY,
    ) -> SampleResponse:
        """Draw samples.

        Raises:
            ActorLostError: The permit ledger has been silent for too long.
            StaleHandleError: This was closed.
            TinkerError: The request was refused, failed or lost.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        cancelling = task.cancelling()
        self._running.add(task)
        try:
            return await self.core.sample(request, retry, carrier, traffic)
        except asyncio.CancelledError:
            # One task a sample costs less than two; so what _fail cancels is the caller's own.
            if task not in self._failed or task.uncancel() > cancelling:
                raise
            raise self._failed[task] from None
        finally:
            self._running.discard(task)
            self._failed.pop(task, None)

    async def aclose(self) -> None:
        """Give the permits back and close the connections; idempotent."""
        self._fail(StaleHandleError("sampling was closed while the sample was under way"))
        await self._refresh.aclose()
        await self.core.aclose()
        await self.keeper.aclose()
        await self._link.aclose()

    def _spending(self, service: ServiceSpec, ledger: Ledger) -> Spending | None:
        if service.budget is None:
            return None
        share = SpendShare(self.keeper.info.holder, service.budget)
        return Spending(share, ledger, self._link.clock, partial(base_model_of, self._link))

    def _fail(self, error: TinkerError) -> None:
        for task in self._running:
            self._failed[task] = error
            task.cancel()
