"""One batch of rows and its thread: many requests and adapters in a batch that never drains.

The thread runs waiting prompts, then one token for every row, and again; a finished row is given to
the next sequence at once. Knows nothing of other lanes.

Invariants: every future is answered; a seeded request draws the same tokens whatever else is
running; a request that fails takes no other with it.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch

from tinker_ray.engine.model.inference import inference_of
from tinker_ray.engine.sampling.draw import DrawParams, DrawPlan
from tinker_ray.engine.sampling.prompt_run import PromptRun, run_prompts, split_by_length
from tinker_ray.engine.sampling.row_step import PromptRow, RowStep
from tinker_ray.engine.sampling.row_table import EndRules
from tinker_ray.engine.sampling.scheduler import Scheduler
from tinker_ray.errors import EngineError
from tinker_ray.types import SampleResponse

if TYPE_CHECKING:
    import collections.abc
    from collections.abc import Iterable

    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.engine.sampling.draw import Drawn
    from tinker_ray.engine.sampling.sequence import Job, Sequence

_ADMITTED_TOKENS = 4096
_CLOSED = "the sampler is closed"


class Lane:
    """Draws the sequences of the jobs that it is given."""

    def __init__(self, base: BaseModel, name: str, *, max_rows: int, kv_bytes: int) -> None:
        """Start the thread.

        Args:
            base: The model; adapters come with the requests.
            name: Of the thread.
            max_rows: Most sequences to draw at once.
            kv_bytes: Most memory for keys and values; a single sequence may exceed it.
        """
        self._base = base
        self._inference = inference_of(base)
        self._max_rows = max_rows
        self._max_slots = kv_bytes // base.kv_bytes_per_token
        self._reset()
        self._wake = threading.Condition()
        self._inbox: list[Job] = []
        self._cancelled: list[Job] = []
        self._closed = False
        self._num_waiting = 0
        self._load = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def load(self) -> int:
        """Sequences of all jobs that are not answered."""
        return self._load

    @property
    def queued_sequences(self) -> int:
        """Sequences that have been asked for and have no row yet."""
        return self._num_waiting + len(self._scheduler.ready)

    @property
    def active_sequences(self) -> int:
        """Sequences being drawn."""
        return len(self._scheduler.rows)

    def put(self, job: Job) -> None:
        """Queue a job; cancelling its future frees what it holds."""
        with self._wake:
            if self._closed:
                job.future.set_exception(EngineError(_CLOSED))
                return
            self._inbox.append(job)
            self._num_waiting += job.request.num_samples
            self._load += job.request.num_samples
            self._wake.notify()
        job.future.add_done_callback(lambda _: self._notice(job))

    def stop(self) -> None:
        """Tell the thread to end and to fail all jobs that are not answered."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    def _reset(self) -> None:
        self._scheduler = Scheduler(max_rows=self._max_rows, max_slots=self._max_slots)
        self._step = RowStep(self._base, self._inference, max_slots=self._max_slots)
        self._prompts: dict[int, PromptRow] = {}
        self._failed: list[Job] = []

    def _notice(self, job: Job) -> None:
        """Note that a job is answered, or that nobody waits for it any more."""
        with self._wake:
            self._load -= job.request.num_samples
            if job.future.cancelled():
                self._cancelled.append(job)
                self._wake.notify()

    @torch.no_grad()
    def _run(self) -> None:
        torch.set_num_threads(self._base.num_threads)
        while self._take_in():
            try:
                self._advance()
            except Exception as error:  # noqa: BLE001 - the border of the thread
                self._fail_all(f"sampling failed: {type(error).__name__}: {error}")
        self._fail_all(_CLOSED)

    def _take_in(self) -> bool:
        """Wait for work, take what has come, and say whether to go on."""
        with self._wake:
            while not (self._closed or self._inbox or self._cancelled) and self._scheduler.is_idle:
                self._wake.wait()
            self._scheduler.waiting.extend(self._inbox)
            self._inbox.clear()
            cancelled, self._cancelled = self._cancelled, []
            is_closed = self._closed
        if cancelled:
            self._drop(cancelled)
        return not is_closed

    def _recount(self) -> None:
        """Count the sequences of requests whose prompt has not been run."""
        with self._wake:
            jobs = (*self._inbox, *self._scheduler.waiting)
            self._num_waiting = sum(job.request.num_samples for job in jobs)

    def _advance(self) -> None:
        """Run waiting prompts, then one token of every row."""
        scheduler = self._scheduler
        jobs = scheduler.admit(_ADMITTED_TOKENS)
        if jobs:
            with self._wake:
                self._num_waiting -= sum(job.request.num_samples for job in jobs)
            self._start(jobs)
        if scheduler.ready:
            self._arrange([])
        if scheduler.rows:
            ended = self._append(scheduler.rows, *self._step.run())
            if ended:
                self._arrange(ended)
        if self._failed:
            failed, self._failed = self._failed, []
            self._drop(failed)

    def _start(self, jobs: list[Job]) -> None:
        """Run prompts and draw first tokens; each prompt alone, if one of a batch fails."""
        for batch in split_by_length(jobs):
            try:
                run = run_prompts(self._inference, batch)
            except Exception as error:  # noqa: BLE001 - whose fault it is shows when run alone
                if len(batch) > 1:
                    for job in batch:
                        self._start([job])
                else:
                    message = f"the prompt's run failed: {type(error).__name__}: {error}"
                    self._fail(batch, EngineError(message))
            else:
                self._begin_or_fail(batch, run)

    def _begin_or_fail(self, jobs: list[Job], run: PromptRun) -> None:
        try:
            self._begin(jobs, run)
        except Exception as error:  # noqa: BLE001 - no list holds these jobs: answer them here
            message = f"the first draw failed: {type(error).__name__}: {error}"
            self._fail(jobs, EngineError(message))

    def _begin(self, jobs: list[Job], run: PromptRun) -> None:
        """Draw the first token of each sequence; those that go on want a row."""
        sequences = [sequence for job in jobs for sequence in job.sequences if job.limit_tokens]
        owners = [row for row, job in enumerate(jobs) for _ in job.sequences if job.limit_tokens]
        if sequences:
            requests = [sequence.job.request for sequence in sequences]
            num_best = [request.topk_sample_logprobs for request in requests]
            params = DrawParams.of([request.params for request in requests], num_best)
            uniforms = np.array([sequence.uniforms[0] for sequence in sequences])
            drawn = DrawPlan(params, self._base.device).draw(run.logits[owners], uniforms)
            watched = EndRules(sequences).step(drawn.tokens, drawn.logprobs)
            self._append(sequences, drawn, watched)
        for row, job in enumerate(jobs):
            going_on = [item for item in job.sequences if item.stop_reason is None]
            if job.limit_tokens == 0:
                self._answer(job)
            elif going_on and not job.future.done():
                self._prompts[id(job)] = PromptRow(run.cache, row)
                self._scheduler.ready.extend(going_on)

    def _append(
        self,
        sequences: collections.abc.Sequence[Sequence],
        drawn: Drawn,
        watched: Iterable[int],
    ) -> list[Sequence]:
        """Add a token to each sequence; answer jobs that are complete.

        Args:
            sequences: One a row.
            drawn: What was drawn for them.
            watched: The rows that may have ended; the others go on.

        Returns:
            What has ended.
        """
        tokens, logprobs = drawn.tokens.tolist(), drawn.logprobs.tolist()
        for sequence, token, logprob in zip(sequences, tokens, logprobs, strict=True):
            sequence.tokens.append(token)
            sequence.logprobs.append(logprob)
        if drawn.best is not None:
            for row, ids in drawn.best.ids.items():
                sequences[row].best.append((ids, drawn.best.logprobs[row]))
        ended: list[Sequence] = []
        failed: dict[int, Job] = {}
        for row in watched:
            sequence, job = sequences[row], sequences[row].job
            if not math.isfinite(logprobs[row]):
                failed[id(job)] = job
                continue
            sequence.settle()
            if sequence.stop_reason is not None:
                ended.append(sequence)
                job.num_unfinished -= 1
                if job.num_unfinished == 0:
                    self._answer(job)
        if failed:
            message = "the model's logits are not finite: the adapter's weights have diverged"
            self._fail(failed.values(), EngineError(message))
        return ended

    def _arrange(self, ended: list[Sequence]) -> None:
        """Give the rows of ended sequences to ready ones."""
        scheduler = self._scheduler
        order = scheduler.arrange(ended)
        self._step.arrange(order, scheduler.rows, self._prompts)
        needed = {id(sequence.job) for sequence in scheduler.ready}
        self._prompts = {key: pairs for key, pairs in self._prompts.items() if key in needed}

    def _drop(self, jobs: Iterable[Job]) -> None:
        """Free what jobs hold that nobody waits for any more."""
        dropped = {id(job) for job in jobs}
        self._scheduler.discard(jobs)
        self._recount()
        rows = self._scheduler.rows
        self._arrange([sequence for sequence in rows if id(sequence.job) in dropped])

    def _answer(self, job: Job) -> None:
        response = SampleResponse(
            sequences=[sequence.result() for sequence in job.sequences],
            prompt_logprobs_np=job.report.logprobs,
            topk_prompt_logprobs_np=job.report.topk,
            target_prompt_logprobs=job.report.targets,
            prompt_alt_tokens=job.report.alternatives,
        )
        with suppress(InvalidStateError):  # cancelled a moment ago
            job.future.set_result(response)

    def _fail(self, jobs: Iterable[Job], error: EngineError) -> None:
        """Fail jobs, and zero their rows, which may hold numbers that are not finite."""
        failed = {id(job): job for job in jobs}
        for job in failed.values():
            with suppress(InvalidStateError):
                job.future.set_exception(error)
        self._step.clear(
            row for row, item in enumerate(self._scheduler.rows) if id(item.job) in failed
        )
        self._failed.extend(failed.values())

    def _fail_all(self, message: str) -> None:
        """Fail every request and start afresh, trusting nothing that is left of them."""
        with self._wake:
            inbox, self._inbox = self._inbox, []
        scheduler = self._scheduler
        sequences = [*scheduler.rows, *scheduler.ready]
        jobs = [*inbox, *scheduler.waiting, *(sequence.job for sequence in sequences)]
        for job in jobs:
            with suppress(InvalidStateError):  # several sequences of one job
                job.future.set_exception(EngineError(message))
        self._reset()
        self._recount()
