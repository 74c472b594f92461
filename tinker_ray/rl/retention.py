"""Which checkpoints a run keeps: the last ones, the best one, and whatever is in use.

The rule is a function of values; :class:`Retention` carries it out. Invariants: what a live client
samples from or was made from is never deleted, nor what was not made by this run; a deletion that
fails is told once and tried again after the next checkpoint.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from tinker_ray.clients.rest import RestClient
from tinker_ray.errors import NotFoundError, TinkerError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint of a run.

    Attributes:
        path: ``tinker://`` path.
        score: How good it is, more is better; None if that was not measured.
    """

    path: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class KeepRule:
    """What is kept.

    Attributes:
        last: How many of the newest, at least one, since a resume needs it; None keeps all.
        best: How many of those with the highest score, beside the newest.
    """

    last: int | None = None
    best: int = 1

    def __post_init__(self) -> None:
        """Check the counts.

        Raises:
            ValueError: ``last`` is below 1 or ``best`` below 0.
        """
        if self.last is not None and self.last < 1:
            raise ValueError(f"last is {self.last}: at least the newest checkpoint is kept")
        if self.best < 0:
            raise ValueError(f"best is {self.best}: use 0 to keep none for its score")


def superfluous(
    saved: Sequence[Saved], rule: KeepRule, in_use: Collection[str] = ()
) -> list[Saved]:
    """Say which checkpoints may go, oldest first.

    Args:
        saved: All of the run, oldest first. Of equal scores the older one is the better one.
        rule: What is kept.
        in_use: Paths that stay whatever the rule says.
    """
    if rule.last is None:
        return []
    scored = [
        (place, checkpoint.score)
        for place, checkpoint in enumerate(saved)
        if checkpoint.score is not None and not math.isnan(checkpoint.score)
    ]
    ranked = sorted(scored, key=lambda entry: -entry[1])
    kept = {place for place, _ in ranked[: rule.best]}
    kept |= set(range(max(0, len(saved) - rule.last), len(saved)))
    return [
        checkpoint
        for place, checkpoint in enumerate(saved)
        if place not in kept and checkpoint.path not in in_use
    ]


def saved_by(
    checkpoints: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    score: Callable[[Mapping[str, Any]], float],
) -> list[Saved]:
    """Put scores to the checkpoints that earlier parts of a run made.

    Args:
        checkpoints: The lines of ``checkpoints.jsonl``.
        rows: The lines of ``metrics.jsonl``.
        score: Judges the line of a step; where what it reads is missing or null, nothing was
            measured.
    """
    scores: dict[int, float] = {}
    for row in rows:
        with suppress(KeyError, TypeError):
            scores[row["step"]] = score(row)
    return [Saved(line["path"], scores.get(line["steps_done"])) for line in checkpoints]


class CheckpointStore(Protocol):
    """What deletes checkpoints and knows who uses them."""

    async def in_use(self) -> Collection[str]:
        """Return the paths that live clients use."""
        ...

    async def delete(self, path: str) -> None:
        """Delete a checkpoint; one that is gone is fine."""
        ...


class ServiceStore:
    """The checkpoints of a service, of which the samplers of some sessions are in use.

    Args:
        rest: Its calls; on a cluster they go through the session's checkpoint actor.
        session_id: The session whose samplers are asked for.
        used: Paths in use beside them, such as the one that a run began with.
    """

    def __init__(self, rest: RestClient, session_id: str, used: Collection[str] = ()) -> None:
        self._rest = rest
        self._session_id = session_id
        self._used = frozenset(used)
        self._path_of_sampler: dict[str, str | None] = {}

    async def in_use(self) -> Collection[str]:
        """Ask for the weights of each sampler of the session; each is asked about once."""
        session = await self._rest.get_session_async(self._session_id)
        for sampler_id in session.sampler_ids:
            if sampler_id not in self._path_of_sampler:
                self._path_of_sampler[sampler_id] = await self._weights_of(sampler_id)
        return self._used | {path for path in self._path_of_sampler.values() if path is not None}

    async def _weights_of(self, sampler_id: str) -> str | None:
        try:
            return (await self._rest.get_sampler_async(sampler_id)).model_path
        except NotFoundError:  # it ended
            return None

    async def delete(self, path: str) -> None:
        """Delete a checkpoint; one that is gone is fine."""
        try:
            await self._rest.delete_checkpoint_from_tinker_path_async(path)
        except NotFoundError:
            return


class Retention:
    """Keeps the checkpoints of a run to a rule.

    Args:
        rule: What is kept.
        store: Where they are.
        saved: Those that the run made so far, oldest first.
    """

    def __init__(self, rule: KeepRule, store: CheckpointStore, saved: Sequence[Saved] = ()) -> None:
        self._rule = rule
        self._store = store
        self._saved = list(saved)
        self._unjudged: set[str] = set()
        self._warned = False

    @property
    def kept(self) -> list[str]:
        """The paths of the checkpoints that there are, oldest first."""
        return [checkpoint.path for checkpoint in self._saved]

    async def add(self, path: str, score: float | None = None, *, is_judged: bool = True) -> None:
        """Take a new checkpoint in, and delete what it makes superfluous.

        Call it when a resume would begin from the new one.

        Args:
            path: Of the checkpoint.
            score: How good it is; None if that was not measured.
            is_judged: Whether the score is final; else the checkpoint stays until :meth:`judge`.
        """
        self._saved.append(Saved(path, score))
        if not is_judged:
            self._unjudged.add(path)
        await self._delete_superfluous()

    async def judge(self, path: str, score: float | None) -> None:
        """Say how good a checkpoint is, and delete what is superfluous by that."""
        self._unjudged.discard(path)
        self._saved = [Saved(path, score) if one.path == path else one for one in self._saved]
        await self._delete_superfluous()

    def hold(self, path: str) -> None:
        """Keep a checkpoint, of an earlier part of the run, until it is judged."""
        self._unjudged.add(path)

    async def _delete_superfluous(self) -> None:
        if not superfluous(self._saved, self._rule, self._unjudged):
            return
        try:
            in_use = self._unjudged.union(await self._store.in_use())
            for checkpoint in superfluous(self._saved, self._rule, in_use):
                await self._store.delete(checkpoint.path)
                self._saved.remove(checkpoint)
        except TinkerError as error:
            if not self._warned:
                self._warned = True
                _log.warning("superfluous checkpoints could not be deleted: %s", error)
