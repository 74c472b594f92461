"""Which requests start, and which sequence sits in which row.

Pure bookkeeping; knows nothing of tensors. Requests start in the order of their arrival, as soon as
there is a row for one of their sequences.

Invariants: rows are compact; rows of one adapter are neighbours; no more than ``max_rows`` rows,
and rows times the longest sequence that they can come to stay within ``max_slots``, unless there
is only one.
"""

from __future__ import annotations

from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from tinker_ray.engine.sampling.sequence import Job, Sequence


class Scheduler:
    """The queue of requests and the table of rows.

    Attributes:
        waiting: Requests whose prompt has not been run.
        ready: Sequences that want a row.
        rows: The sequence of each row.
    """

    def __init__(self, *, max_rows: int, max_slots: int) -> None:
        """Start empty; ``max_slots`` is in tokens, all rows together."""
        self._max_rows = max_rows
        self._max_slots = max_slots
        self.waiting: deque[Job] = deque()
        self.ready: deque[Sequence] = deque()
        self.rows: list[Sequence] = []

    def __repr__(self) -> str:
        """Show the sizes of the queues."""
        return (
            f"Scheduler(waiting={len(self.waiting)} ready={len(self.ready)} rows={len(self.rows)})"
        )

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self.ready or self.rows)

    def admit(self, budget_tokens: int) -> list[Job]:
        """Take requests whose prompts are to be run now, at most ``budget_tokens`` of prompts.

        The first one is taken whatever its length.
        """
        jobs: list[Job] = []
        if not self.waiting:
            return jobs
        num_rows = len(self.rows) + len(self.ready)
        longest = _longest([*self.rows, *self.ready])
        num_tokens = 0
        while self.waiting:
            job = self.waiting[0]
            longest = max(longest, job.longest_tokens)
            num_tokens += job.prompt_tokens
            if job.num_rows and not self._has_room(num_rows, longest):
                break
            if jobs and num_tokens > budget_tokens:
                break
            jobs.append(self.waiting.popleft())
            num_rows += job.num_rows
        return jobs

    def discard(self, jobs: Iterable[Job]) -> None:
        """Forget the queued work of jobs; their rows stay until :meth:`arrange`."""
        gone = {id(job) for job in jobs}
        self.waiting = deque(job for job in self.waiting if id(job) not in gone)
        self.ready = deque(sequence for sequence in self.ready if id(sequence.job) not in gone)

    def arrange(self, leaving: Iterable[Sequence]) -> list[int]:
        """Free the rows of ``leaving`` and give rows to ready sequences.

        Returns:
            For each new row the old row that it comes from, negative for a sequence that joins.
        """
        gone = {id(sequence) for sequence in leaving}
        kept = [row for row, sequence in enumerate(self.rows) if id(sequence) not in gone]
        staying = [self.rows[row] for row in kept]
        joining: list[Sequence] = []
        longest = _longest(staying)
        while self.ready:
            longest = max(longest, self.ready[0].job.longest_tokens)
            if not self._has_room(len(staying) + len(joining), longest):
                break
            joining.append(self.ready.popleft())
        order = lay_out(
            {row: id(self.rows[row].job.request.adapter) for row in kept},
            [id(sequence.job.request.adapter) for sequence in joining],
        )
        self.rows = [self.rows[row] if row >= 0 else joining[-1 - row] for row in order]
        return order

    def _has_room(self, num_rows: int, longest: int) -> bool:
        """Whether one more row fits beside ``num_rows``, of which ``longest`` is the longest."""
        if num_rows == 0:
            return True
        return num_rows < self._max_rows and (num_rows + 1) * longest <= self._max_slots


def lay_out(kept: dict[int, Hashable], joining: list[Hashable]) -> list[int]:
    """Choose compact rows in which equal groups are neighbours, moving few of the kept ones.

    Args:
        kept: Group of every row that stays, by row.
        joining: Group of every newcomer.

    Returns:
        For each new row the old row that it takes over, or ``-1 - i`` for newcomer ``i``. Groups
        stand in the order of their first kept rows, new groups after them.
    """
    counts: dict[Hashable, int] = {}
    for group in (*kept.values(), *joining):
        counts[group] = counts.get(group, 0) + 1
    starts = dict(zip(counts, accumulate(counts.values(), initial=0), strict=False))
    rows: list[int | None] = [None] * sum(counts.values())
    moving: dict[Hashable, deque[int]] = {group: deque() for group in counts}
    for row, group in kept.items():
        if starts[group] <= row < starts[group] + counts[group]:
            rows[row] = row
        else:
            moving[group].append(row)
    for index, group in enumerate(joining):
        moving[group].append(-1 - index)
    return [
        moving[group].popleft() if row is None else row
        for group in counts
        for row in rows[starts[group] : starts[group] + counts[group]]
    ]


def _longest(sequences: Iterable[Sequence]) -> int:
    return max((sequence.job.longest_tokens for sequence in sequences), default=0)
