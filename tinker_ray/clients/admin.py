"""``AdminClient``: what only an organization's admins may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from tinker_ray.clients.attribution import attributed
from tinker_ray.clients.registry_client import RegistryClient

if TYPE_CHECKING:
    from datetime import date, datetime

    from tinker_ray.clients.api_future import APIFuture
    from tinker_ray.types import (
        AuditLogResponse,
        BillingUsageResponse,
        CurrentCheckpointStorageUsageResponse,
    )

AuditEventType: TypeAlias = Literal["all", "checkpoints", "projects", "teams", "organizations"]


class AdminCalls(RegistryClient):
    """Billing and audit; the older place of these calls is :class:`RestClient`."""

    def get_audit_log(
        self, event_type: AuditEventType = "all", day: date | None = None
    ) -> APIFuture[AuditLogResponse]:
        """Tell what was done in the organization. For admins.

        Args:
            event_type: What is of interest.
            day: Only what was done on that day.
        """
        return self._call("get_audit_log", event_type=event_type, day=day)

    async def get_audit_log_async(
        self, event_type: AuditEventType = "all", day: date | None = None
    ) -> AuditLogResponse:
        """Async twin of :meth:`get_audit_log`."""
        return await self.get_audit_log(event_type, day)

    def get_billing_usage(
        self, starting_on: datetime | str, ending_before: datetime | str
    ) -> APIFuture[BillingUsageResponse]:
        """Tell what was used, hour by hour, by the whole organization. For admins.

        Args:
            starting_on: The first hour, a time or its RFC 3339 text, such as
                ``2026-07-13T00:00:00Z``.
            ending_before: The hour after the last.
        """
        return self._call("get_billing_usage", starting_on=starting_on, ending_before=ending_before)

    async def get_billing_usage_async(
        self, starting_on: datetime | str, ending_before: datetime | str
    ) -> BillingUsageResponse:
        """Async twin of :meth:`get_billing_usage`."""
        return await self.get_billing_usage(starting_on, ending_before)

    def get_current_checkpoint_storage_usage(
        self, project_id: str | None = None
    ) -> APIFuture[CurrentCheckpointStorageUsageResponse]:
        """Tell what checkpoints take now, of a project or of the whole organization. For admins."""
        return self._call("get_current_checkpoint_storage_usage", project_id=project_id)

    async def get_current_checkpoint_storage_usage_async(
        self, project_id: str | None = None
    ) -> CurrentCheckpointStorageUsageResponse:
        """Async twin of :meth:`get_current_checkpoint_storage_usage`."""
        return await self.get_current_checkpoint_storage_usage(project_id)


@attributed
class AdminClient(AdminCalls):
    """Billing and audit of an organization; needs a key with an admin's rights.

    Needs no session and opens none; nothing has to be closed.

    Args:
        base_url: The service, as for :class:`ServiceClient`.
        api_key: Else that of the environment.

    Every future raises an ``APIStatusError`` when the service refuses.
    """
