"""What the service keeps, by name: the REST calls in the form in which they cross process borders.

The calls themselves stand in three groups: checkpoints and training runs, sessions and samplers,
and what concerns the account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinker_ray.core.account_calls import AccountCalls
from tinker_ray.core.checkpoint_calls import CheckpointCalls
from tinker_ray.core.session_calls import SessionCalls

if TYPE_CHECKING:
    from tinker_ray.core.link import Link


class RegistryCore(CheckpointCalls, SessionCalls, AccountCalls):
    """The REST calls.

    Each raises ``APIStatusError`` when the service refuses (``NotFoundError`` for what does not
    exist, or for a call that an older service does not know), and ``APIConnectionError`` when there
    is no answer.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def __repr__(self) -> str:
        """Show what it talks to."""
        return f"RegistryCore({self._link.transport!r})"

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a method of this class by name."""
        return await getattr(self, name)(**arguments)
