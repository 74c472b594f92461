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

if TYPE_CHECKING:
    import collections.abc
    from collections.abc import Iterable, Mapping

    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.engine.model.inference import Inference
    from tinker_ray.engine.sampling.draw import Drawn
    from tinker_ray.engine.sampling.sequence import Sequence

_NO_TOKEN = -1


class PromptRow(NamedTuple):
    """Where the keys and values of a prompt are: a row of a batch of prompts."""

    cache: PromptCache
    row: int


class StopTable:
    """The stop tokens of a batch of sequences."""

    def __init__(self, sequences: collections.abc.Sequence[Sequence]) -> None:
        """Take the stop tokens of each sequence's job."""
        rules = [sequence.job.stop for sequence in sequences]
        width = max((len(rule.token_ids) for rule in rules), default=0)
        self._ids = np.full((len(rules), width), _NO_TOKEN, np.int64)
        for row, rule in enumerate(rules):
            self._ids[row, : len(rule.token_ids)] = rule.token_ids

    def hits(self, tokens: list[int]) -> list[bool]:
        """Say for each row whether its token is one of its stop tokens."""
        found: list[bool] = (self._ids == np.asarray(tokens)[:, None]).any(axis=1).tolist()
        return found


def plan_of(sequences: collections.abc.Sequence[Sequence], device: torch.device) -> DrawPlan:
    """Plan the draws of a batch of sequences, one a row."""
    requests = [sequence.job.request for sequence in sequences]
    num_best = [request.topk_sample_logprobs for request in requests]
    return DrawPlan([request.params for request in requests], device, num_best)


class RowStep:
    """The rows under way and their keys and values."""

    def __init__(self, base: BaseModel, inference: Inference, *, max_slots: int) -> None:
        """Start without rows."""
        self._base = base
        self._inference = inference
        self._cache = RowCache(
            base.kv_shape, dtype=base.dtype, device=base.device, max_slots=max_slots
        )
        self._sequences: list[Sequence] = []
        self._positions = np.zeros(0, np.int64)
        self._spans: tuple[AdapterSpan, ...] = ()
        self._plan = DrawPlan([], base.device)
        self._stops = StopTable([])

    def arrange(
        self, order: list[int], sequences: list[Sequence], prompts: Mapping[int, PromptRow]
    ) -> None:
        """Take over a new table of rows.

        Args:
            order: For each new row the old row that it comes from, negative for a newcomer.
            sequences: The sequence of each new row.
            prompts: The prompts of the newcomers' jobs, by ``id(job)``.
        """
        moves = [(source, row) for row, source in enumerate(order) if 0 <= source != row]
        positions = [
            sequence.job.prompt_tokens + len(sequence.tokens) - 1 for sequence in sequences
        ]
        if sequences:
            num_rows = max(len(sequences), len(self._sequences))
            self._cache.fit(num_rows, max(positions) + 1)
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
        self._sequences = sequences
        padding = max(0, MINIMUM_ROWS - len(sequences))
        self._positions = np.array(positions + [0] * padding, np.int64)
        adapters = [sequence.job.request.adapter for sequence in sequences]
        self._spans = spans_of(adapters, len(self._positions))
        self._plan = plan_of(sequences, self._base.device)
        self._stops = StopTable(sequences)

    def clear(self, rows: Iterable[int]) -> None:
        """Zero rows whose keys and values may not be finite."""
        for row in rows:
            self._cache.clear(row)

    def run(self) -> tuple[Drawn, list[bool]]:
        """Run the newest token of each row; return what was drawn, and which tokens are stops."""
        sequences, device = self._sequences, self._base.device
        newest = [sequence.tokens[-1] for sequence in sequences]
        newest += [0] * (len(self._positions) - len(sequences))
        self._cache.fit(len(self._positions), int(self._positions.max()) + 1)
        positions = torch.from_numpy(self._positions).to(device)
        newest_tokens = torch.tensor(newest, device=device)
        logits = self._inference.step(newest_tokens, positions, self._cache, self._spans)
        self._positions += 1
        uniforms = np.array([sequence.uniforms[len(sequence.tokens)] for sequence in sequences])
        drawn = self._plan.draw(logits[: len(sequences)], uniforms)
        return drawn, self._stops.hits(drawn.tokens)
