"""Running prompts: their keys and values, the logits after them, and what is told of them.

Knows nothing of rows or of what is drawn next.

Invariant: a prompt's numbers do not depend on its batch mates: attention pads prompts on the right,
where it does not look, and runs only prompts of the same padded length together, so that its
kernels see the same shapes but for their number; see :mod:`..model.packed_prompts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tinker_ray.engine.model.lora import MINIMUM_ROWS, spans_of, whole_batch
from tinker_ray.engine.model.packed_prompts import padded_length
from tinker_ray.engine.sampling.prompt_report import report_prompt, reports

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tinker_ray.engine.model.inference import Inference
    from tinker_ray.engine.model.kv_cache import PromptCache
    from tinker_ray.engine.sampling.prompt_report import PromptReport
    from tinker_ray.engine.sampling.sequence import Job

_RUN_TOKENS = 1024
_CHUNK_LOGITS = 1 << 23


@dataclass(frozen=True, eq=False)
class PromptRun:
    """What running the prompts of some jobs gives.

    Attributes:
        logits: After the last token of each prompt, ``(N, vocab)``.
        cache: Keys and values of all prompts.
    """

    logits: torch.Tensor
    cache: PromptCache


def split_by_length(jobs: Iterable[Job]) -> list[list[Job]]:
    """Split jobs into batches whose prompts can run together, small enough to stay in caches."""
    by_length: dict[int, list[Job]] = {}
    for job in jobs:
        by_length.setdefault(padded_length(job.prompt_tokens), []).append(job)
    batches: list[list[Job]] = []
    for length, alike in by_length.items():
        size = max(1, _RUN_TOKENS // length)
        batches += [alike[start : start + size] for start in range(0, len(alike), size)]
    return batches


def run_prompts(inference: Inference, jobs: Sequence[Job]) -> PromptRun:
    """Run prompts of one padded length at once; set the reports that they ask for."""
    adapters = [job.request.adapter for job in jobs]
    reporting = [reports(job.request) for job in jobs]
    prompts = [job.request.prompt for job in jobs]
    states = inference.run_prompts(prompts, adapters, every=any(reporting))
    for row, job in enumerate(jobs):
        if reporting[row]:
            job.report = _report(inference, job, states.every[row])
    logits = inference.unembed(states.last, spans_of(adapters, states.last.shape[0]))
    return PromptRun(logits[: len(jobs)], states.cache)


def _report(inference: Inference, job: Job, hidden: torch.Tensor) -> PromptReport:
    """Tell what a job asks of its prompt, from ``(P, hidden)``."""

    def score(start: int, stop: int) -> torch.Tensor:
        rows = hidden[start:stop]
        rows = torch.nn.functional.pad(rows, (0, 0, 0, max(0, MINIMUM_ROWS - rows.shape[0])))
        spans = whole_batch(job.request.adapter, rows.shape[0])
        return inference.unembed(rows, spans)[: stop - start]

    rows_at_once = max(MINIMUM_ROWS, _CHUNK_LOGITS // inference.vocab_size)
    return report_prompt(job.request, score, job.alternative_uniforms(), rows_at_once=rows_at_once)
