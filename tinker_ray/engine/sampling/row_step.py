"""One token for every row: the tensors of the rows under way and the run of the model over them.

Knows which sequence sits in which row because it is told; decides nothing about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from tinker_ray.engine.model.kv_cache import PromptCache, RowCache
from tinker_ray.engine.model.lora import MINIMUM_ROWS, AdapterSpan, spans_of
from tinker_ray.engine.sampling.draw import DrawPlan
from tinker_ray.engine.sampling.row_table import RowTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.engine.model.inference import Inference
    from tinker_ray.engine.sampling.draw import Drawn
    from tinker_ray.engine.sampling.sequence import Sequence


class PromptRow(NamedTuple):
    """Where the keys and values of a prompt are: a row of a batch of prompts."""

    cache: PromptCache
    row: int


class RowStep:
    """The rows under way and their keys and values."""

    def __init__(self, base: BaseModel, inference: Inference, *, max_slots: int) -> None:
        """Start without rows."""
        self._base = base
        self._inference = inference
        self._cache = RowCache(
            base.kv_shape, dtype=base.dtype, device=base.device, max_slots=max_slots
        )
        self._table = RowTable([])
        self._spans: tuple[AdapterSpan, ...] = ()
        self._plan = DrawPlan(self._table.draws, base.device)

    def arrange(
        self, order: list[int], sequences: list[Sequence], prompts: Mapping[int, PromptRow]
    ) -> None:
        """Take over a new table of rows.

        Args:
            order: For each new row the old row that it comes from, negative for a newcomer.
            sequences: The sequence of each new row.
            prompts: The prompts of the newcomers' jobs, by ``id(job)``.
        """
        before, self._table = self._table, self._table.arranged(order, sequences)
        moves = [(source, row) for row, source in enumerate(order) if 0 <= source != row]
        if sequences:
            num_rows = max(len(sequences), len(before))
            self._cache.fit(num_rows, int(self._table.positions.max()) + 1)
        if moves:
            self._cache.move([source for source, _ in moves], [row for _, row in moves])
        joining: dict[PromptCache, list[tuple[int, int]]] = {}
        for row, source in enumerate(order):
            if source < 0:
                prompt = prompts[id(sequences[row].job)]
                joining.setdefault(prompt.cache, []).append((row, prompt.row))
        for cache, pairs in joining.items():
            rows, sources = zip(*pairs, strict=True)
            self._cache.insert(list(rows), cache, list(sources))
        adapters = [sequence.job.request.adapter for sequence in sequences]
        self._spans = spans_of(adapters, max(len(sequences), MINIMUM_ROWS))
        self._plan = DrawPlan(self._table.draws, self._base.device)

    def clear(self, rows: Iterable[int]) -> None:
        """Zero rows whose keys and values may not be finite."""
        for row in rows:
            self._cache.clear(row)

    def run(self) -> tuple[Drawn, list[int]]:
        """Run the newest token of each row and draw the next one.

        Returns:
            What was drawn, and the rows that may have ended with it.
        """
        table, num_rows = self._table, len(self._table)
        newest, positions = np.zeros((2, max(num_rows, MINIMUM_ROWS)), np.int64)
        newest[:num_rows], positions[:num_rows] = table.newest, table.positions
        self._cache.fit(len(positions), int(positions.max()) + 1)
        device = self._base.device
        tokens_N, positions_N = (
            torch.from_numpy(array).to(device) for array in (newest, positions)
        )
        logits = self._inference.step(tokens_N, positions_N, self._cache, self._spans)
        drawn = self._plan.draw(logits[:num_rows], table.uniforms())
        return drawn, table.step(drawn.tokens, drawn.logprobs)
