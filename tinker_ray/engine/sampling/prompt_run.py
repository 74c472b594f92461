"""Running prompts: their keys and values, the logits after them, and logprobs of their own tokens.

Knows nothing of rows or of what is drawn next.

Invariant: a prompt's numbers do not depend on its batch mates: attention pads prompts on the right,
where it does not look, and runs only prompts of the same padded length together, so that its
kernels see the same shapes but for their number; see :mod:`..model.packed_prompts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tinker_ray.engine.model.lora import MINIMUM_ROWS, spans_of, whole_batch
from tinker_ray.engine.model.packed_prompts import padded_length
from tinker_ray.types import TopkLogprobs
from tinker_ray.types.sampled import EMPTY_TOPK_LOGPROB

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tinker_ray.engine.model.inference import Inference
    from tinker_ray.engine.model.kv_cache import PromptCache
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
    """Run prompts of one padded length at once; set the prompt logprobs that they ask for."""
    adapters = [job.request.adapter for job in jobs]
    reporting = [
        bool(job.request.prompt_logprobs or job.request.topk_prompt_logprobs) for job in jobs
    ]
    prompts = [job.request.prompt for job in jobs]
    states = inference.run_prompts(prompts, adapters, every=any(reporting))
    for row, job in enumerate(jobs):
        if reporting[row]:
            _report_prompt(inference, job, states.every[row])
    logits = inference.unembed(states.last, spans_of(adapters, states.last.shape[0]))
    return PromptRun(logits[: len(jobs)], states.cache)


def _report_prompt(inference: Inference, job: Job, hidden: torch.Tensor) -> None:
    """Set the job's prompt logprobs from ``(P, hidden)``, some positions at a time."""
    length, top_k = job.prompt_tokens, job.request.topk_prompt_logprobs
    logprobs = np.full(length, np.nan, np.float32)
    ids = np.zeros((length, top_k), np.int32)
    values = np.full((length, top_k), EMPTY_TOPK_LOGPROB, np.float32)
    num_cells = min(top_k, inference.vocab_size)
    targets = torch.from_numpy(job.request.prompt[1:]).to(hidden.device)
    step = max(MINIMUM_ROWS, _CHUNK_LOGITS // inference.vocab_size)
    for start in range(0, length - 1, step):
        stop = min(start + step, length - 1)
        rows = hidden[start:stop]
        rows = torch.nn.functional.pad(rows, (0, 0, 0, max(0, MINIMUM_ROWS - rows.shape[0])))
        spans = whole_batch(job.request.adapter, rows.shape[0])
        chunk = torch.log_softmax(inference.unembed(rows, spans), dim=-1)[: stop - start]
        positions = slice(start + 1, stop + 1)
        logprobs[positions] = chunk.gather(-1, targets[start:stop, None])[:, 0].cpu().numpy()
        if num_cells:
            best = chunk.topk(num_cells, dim=-1)
            ids[positions, :num_cells] = best.indices.cpu().numpy()
            values[positions, :num_cells] = best.values.cpu().numpy()
    if job.request.prompt_logprobs:
        job.prompt_logprobs_P = logprobs
    if top_k:
        job.topk_prompt_logprobs = TopkLogprobs(ids, values)
