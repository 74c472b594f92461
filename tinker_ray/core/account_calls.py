"""The REST calls about the account: what it may use, who it is, what it did and what that costs."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

from tinker_ray.errors import APIResponseValidationError, UnfulfilledError
from tinker_ray.transport import jwt
from tinker_ray.types import (
    AuditLogResponse,
    BillingUsageResponse,
    CurrentCheckpointStorageUsageResponse,
    GetBillingUsageRequest,
    GetServerCapabilitiesResponse,
    WhoamiResponse,
)
from tinker_ray.wire import endpoint

if TYPE_CHECKING:
    from tinker_ray.core.link import Link


class AccountCalls:
    """A part of :class:`tinker_ray.core.registry.RegistryCore`."""

    _link: Link

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Which base models are offered."""
        return await self._link.call(
            endpoint.GET_SERVER_CAPABILITIES, GetServerCapabilitiesResponse
        )

    async def whoami(self) -> WhoamiResponse:
        """Whose credential this process uses, as its token says; asks nobody.

        Raises:
            UnfulfilledError: The service gives no tokens and the credential is a plain key.
            APIResponseValidationError: The token does not say.
        """
        credentials = self._link.credentials
        token = None if credentials is None else await credentials.identity()
        if token is None:
            message = (
                "nobody says whose key this is: the service gives no tokens, and the credential "
                "is a plain API key"
            )
            raise UnfulfilledError(message)
        claims = jwt.claims(token)
        try:
            return WhoamiResponse(
                user_urn=claims["sub"],
                org_urn=f"tml:organization:{claims['org_id']}",
                email=claims.get("email") or None,
            )
        except (KeyError, ValueError):
            message = "the token does not say whose it is: it needs the claims sub and org_id"
            raise APIResponseValidationError(message) from None

    async def get_audit_log(
        self, event_type: str = "all", day: date | None = None
    ) -> AuditLogResponse:
        """What was done in the organization.

        Args:
            event_type: ``all``, ``checkpoints``, ``projects``, ``teams`` or ``organizations``.
            day: Only of this day.
        """
        query = {"event_type": event_type}
        if day is not None:
            query["day"] = day.isoformat()
        return await self._link.call(endpoint.GET_AUDIT_LOG, AuditLogResponse, query=query)

    async def get_billing_usage(
        self, starting_on: datetime | str, ending_before: datetime | str
    ) -> BillingUsageResponse:
        """What was used, hour by hour, of the whole organization.

        Args:
            starting_on: The first hour; a time, or one as RFC 3339 writes it.
            ending_before: The hour after the last.

        Raises:
            ValueError: That is no time.
        """
        fields = {"starting_on": starting_on, "ending_before": ending_before}
        query = GetBillingUsageRequest.model_validate(fields).model_dump(mode="json")
        return await self._link.call(endpoint.GET_BILLING_USAGE, BillingUsageResponse, query=query)

    async def get_current_checkpoint_storage_usage(
        self, project_id: str | None = None
    ) -> CurrentCheckpointStorageUsageResponse:
        """What checkpoints take at present, of one project or of the whole organization."""
        return await self._link.call(
            endpoint.GET_CHECKPOINT_STORAGE,
            CurrentCheckpointStorageUsageResponse,
            query={} if project_id is None else {"project_id": project_id},
        )
