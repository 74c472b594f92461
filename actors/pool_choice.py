"""Which sampler takes a sample: pure, without a clock.

Rather one on this process's node, then the one that has least to do. Samples of one conversation go
to the same sampler as long as it lives and has not much more to do than the others. Where nothing
is known of a conversation, every process that knows the same samplers chooses the same one.
Invariant: a sampler that is not ready, or that ends, is given nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCALITY = 32
"""How many samples more a sampler on one's own node may have than one elsewhere."""
LEAN = 1.25
"""How much more than the mean a sampler may have to do and still keep its conversations."""
MAX_CONVERSATIONS = 65_536
"""Conversations that are remembered; the ones unused for longest are forgotten first."""


@dataclass(eq=False, slots=True)
class Member:
    """A sampler of a pool, as one process sees it.

    Attributes:
        name: Of its actor.
        node: Its Ray node; empty while that is not known.
        is_ready: It has given a sign of life since it was started or lost last.
        is_ending: It takes no new samples.
        own: Samples of this process that it has.
        others: Those of other processes, as it said last.
        losses: How often it was lost since its last answer.
    """

    name: str
    node: str = ""
    is_ready: bool = False
    is_ending: bool = False
    own: int = 0
    others: int = 0
    losses: int = 0

    @property
    def load(self) -> int:
        """All samples that it has."""
        return self.own + self.others


class PoolChoice:
    """Chooses among the samplers of a pool.

    Args:
        node: Of this process.
        carries: Samples that one sampler carries well; while the pool may grow, none is
            given more.
    """

    def __init__(self, node: str = "", carries: int = 5000) -> None:
        self.members: dict[str, Member] = {}
        self.may_grow = False
        self._node = node
        self._carries = carries
        self._conversations: OrderedDict[str, str] = OrderedDict()

    def __repr__(self) -> str:
        """Show who has how much to do."""
        loads = {member.name: member.load for member in self.members.values()}
        return f"PoolChoice({loads})"

    def join(self, name: str, node: str = "") -> Member:
        """Add a sampler, which is not ready yet."""
        member = self.members[name] = Member(name, node)
        return member

    def leave(self, name: str) -> None:
        """Forget a sampler; its conversations go elsewhere."""
        self.members.pop(name, None)

    def pick(self, conversation: str = "", *, but: Iterable[str] = ()) -> Member | None:
        """Choose a sampler for one more sample; the caller counts it in ``own``.

        Args:
            conversation: What the sample belongs to; empty for nothing.
            but: Names of samplers that it must not be.

        Returns:
            None if there is nobody to take it now.
        """
        able = [
            member
            for member in self.members.values()
            if member.is_ready and not member.is_ending and member.name not in but
        ]
        if self.may_grow:
            able = [member for member in able if member.load < self._carries]
        if not able:
            return None
        if conversation:
            return self._sticky(conversation, able)
        return min(able, key=self._cost)

    def _cost(self, member: Member) -> tuple[int, int]:
        distance = 0 if member.node == self._node else LOCALITY
        return member.losses, member.load + distance

    def _sticky(self, conversation: str, able: list[Member]) -> Member:
        bound = LEAN * sum(member.load for member in able) / len(able) + LOCALITY
        free = [member for member in able if member.load < math.ceil(bound)]
        calm = [member for member in free if not member.losses] or free
        kept = self.members.get(self._conversations.get(conversation, ""))
        if kept is None or kept not in calm:
            kept = max(calm, key=lambda member: _rank(member.name, conversation))
        self._conversations[conversation] = kept.name
        self._conversations.move_to_end(conversation)
        if len(self._conversations) > MAX_CONVERSATIONS:
            self._conversations.popitem(last=False)
        return kept


def _rank(name: str, conversation: str) -> bytes:
    """Weigh a sampler for a conversation: the same in every process, and even over samplers."""
    return hashlib.blake2b(f"{name}/{conversation}".encode(), digest_size=8).digest()
