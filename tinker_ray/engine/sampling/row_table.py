"""What a step needs to know of every row, as arrays: one record a row, moved as the rows move.

Filled from the sequences when they join and kept up to date step by step, so that a step asks no
sequence for anything. Knows nothing of tensors or models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.engine.sampling.draw import DrawParams

if TYPE_CHECKING:
    import collections.abc

    import numpy.typing as npt

    from tinker_ray.engine.sampling.sequence import Sequence

_STEPS_AHEAD = 32
_NO_TOKEN = -1
_ROW = np.dtype(
    [
        ("position", np.int64),
        ("newest", np.int64),
        ("temperature", np.float64),
        ("top_k", np.int64),
        ("top_p", np.float64),
        ("num_best", np.int64),
        ("uniforms", np.float64, (_STEPS_AHEAD,)),
    ]
)


class EndRules:
    """When to look whether a sequence has ended: its stop tokens, its limit, its stop strings."""

    def __init__(self, sequences: collections.abc.Sequence[Sequence]) -> None:
        """Take the rules of each sequence's job, and how far each has come."""
        stops = [sequence.job.stop for sequence in sequences]
        width = max((len(stop.token_ids) for stop in stops), default=0)
        self._ids = np.full((len(stops), width), _NO_TOKEN, np.int64)
        for row, stop in enumerate(stops):
            self._ids[row, : len(stop.token_ids)] = stop.token_ids
        self._has_text = np.array([bool(stop.strings) for stop in stops], bool)
        limits = [item.job.limit_tokens - len(item.tokens) for item in sequences]
        self._num_left = np.array(limits, np.int64)

    def step(self, tokens: npt.NDArray[np.int64], logprobs: npt.NDArray[np.float32]) -> list[int]:
        """Count one token a row; return the rows that end, or may end, or went wrong with it."""
        self._num_left -= 1
        watched = (self._num_left <= 0) | self._has_text | ~np.isfinite(logprobs)
        watched |= (self._ids == tokens[:, None]).any(axis=1)
        rows: list[int] = watched.nonzero()[0].tolist()
        return rows

    def arranged(
        self, source: npt.NDArray[np.int64], joining: npt.NDArray[np.int64], new: EndRules
    ) -> EndRules:
        """Return the rules of a new table; see :meth:`RowTable.arranged`."""
        rules = EndRules([])
        rules._has_text, rules._num_left = self._has_text[source], self._num_left[source]
        rules._has_text[joining], rules._num_left[joining] = new._has_text, new._num_left
        width, new_width = self._ids.shape[1], new._ids.shape[1]
        rules._ids = np.full((len(source), max(width, new_width)), _NO_TOKEN, np.int64)
        rules._ids[:, :width] = self._ids[source]
        rules._ids[joining] = _NO_TOKEN
        rules._ids[joining, :new_width] = new._ids
        return rules


class RowTable:
    """The rows under way.

    Attributes:
        sequences: The sequence of each row.
        rules: When they end.
    """

    def __init__(self, sequences: list[Sequence]) -> None:
        """Take sequences that have drawn their first token."""
        self.sequences = sequences
        self.rules = EndRules(sequences)
        self._rows = np.zeros(len(sequences), _ROW)
        self._column = 0
        for row, sequence in enumerate(sequences):
            request = sequence.job.request
            position = sequence.job.prompt_tokens + len(sequence.tokens) - 1
            params = request.params
            draws = (params.temperature, params.top_k, params.top_p, request.topk_sample_logprobs)
            self._rows[row] = (position, sequence.tokens[-1], *draws, 0.0)
        self._look_ahead(range(len(sequences)))

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.sequences)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Position of each row's newest token."""
        return self._rows["position"]

    @property
    def newest(self) -> npt.NDArray[np.int64]:
        """Each row's newest token."""
        return self._rows["newest"]

    @property
    def draws(self) -> DrawParams:
        """How to draw for each row."""
        return DrawParams(*(self._rows[name] for name in DrawParams._fields))

    def arranged(self, order: list[int], sequences: list[Sequence]) -> RowTable:
        """Return a new table.

        Args:
            order: For each new row the old row that it comes from, negative for a newcomer.
            sequences: The sequence of each new row.
        """
        source = np.array(order, np.int64)
        joining = (source < 0).nonzero()[0]
        new = RowTable([sequences[row] for row in joining.tolist()])
        if len(joining) == len(source):
            return new
        new._shift(self._column)
        source[joining] = source.max()  # any row that there is: it is written over
        table = RowTable([])
        table.sequences = sequences
        table.rules = self.rules.arranged(source, joining, new.rules)
        table._rows, table._column = self._rows[source], self._column
        table._rows[joining] = new._rows
        return table

    def uniforms(self) -> npt.NDArray[np.float64]:
        """Return the numbers that decide each row's next token."""
        if self._column == _STEPS_AHEAD:
            self._column = 0
            self._look_ahead(range(len(self.sequences)))
        column: npt.NDArray[np.float64] = self._rows["uniforms"][:, self._column].copy()
        return column

    def step(self, tokens: npt.NDArray[np.int64], logprobs: npt.NDArray[np.float32]) -> list[int]:
        """Note the newest tokens; return the rows to look at, as :meth:`EndRules.step` does."""
        self._rows["newest"] = tokens
        self._rows["position"] += 1
        self._column += 1
        return self.rules.step(tokens, logprobs)

    def _look_ahead(self, rows: collections.abc.Iterable[int]) -> None:
        """Copy the next uniform numbers of rows, from the current column on."""
        ahead = self._rows["uniforms"]
        for row in rows:
            sequence = self.sequences[row]
            drawn = len(sequence.tokens)
            numbers = sequence.uniforms[drawn : drawn + _STEPS_AHEAD - self._column]
            ahead[row, self._column : self._column + len(numbers)] = numbers

    def _shift(self, column: int) -> None:
        """Let the uniform numbers begin at another column."""
        ahead = self._rows["uniforms"]
        ahead[:, column:] = ahead[:, : _STEPS_AHEAD - column].copy()
        self._column = column
