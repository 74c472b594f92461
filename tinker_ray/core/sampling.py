"""Samples: dispatched under a permit, polled without one, submitted anew when lost.

Knows nothing of where its permits come from. One core serves any number of sampling sessions; a
session is bound to one version of the weights for life. Sequence numbers start at ``clone · 10⁹``,
so that cores that share a session never use the same one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tinker_ray.core.polling import ResultKind, retrieve
from tinker_ray.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    RateLimitError,
    RetryableError,
)
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import SpanKind, recording, span
from tinker_ray.types import DmelChunk, EncodedTextChunk, ImageChunk, RetryConfig
from tinker_ray.types.retry import DEFAULT_MAX_CONNECTIONS
from tinker_ray.wire import codec, endpoint, status

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from opentelemetry.trace import Span

    from tinker_ray.core.admission import Admission
    from tinker_ray.core.link import Link, Promise
    from tinker_ray.transport.message import Response
    from tinker_ray.types import ModelInput, SampleResponse
    from tinker_ray.wire.request import SampleRequest

logger = logging.getLogger(__name__)

CLONE_STRIDE = 1_000_000_000
MAX_WINDOWS = 100
"""Sampling sessions that are remembered; when there are more, idle ones are forgotten."""
_BYTES_PER_TOKEN = 10
_BACKPRESSURE = {"X-Tinker-Sampling-Backpressure": "1"}


def prompt_bytes(prompt: ModelInput) -> int:
    """Estimate what a prompt weighs on the wire: 10 bytes a token, images and audio as they are."""
    total = 0
    for chunk in prompt.chunks:
        if isinstance(chunk, EncodedTextChunk):
            total += _BYTES_PER_TOKEN * chunk.length
        elif isinstance(chunk, DmelChunk):
            total += len(chunk.dmel)
        else:
            total += len(chunk.data) if isinstance(chunk, ImageChunk) else len(chunk.location)
    return total


class SamplingCore:
    """Draws samples for this process.

    Args:
        link: The service.
        admission: Who may send when.
        protobuf: Whether to ask for results as protobuf.
        clone: 0 for the only core of a session's creator, else unique among the cores of the
            session.
        max_samples: Samples in flight per sampling session, unless its retry config says otherwise.
    """

    def __init__(
        self, link: Link, admission: Admission, *, protobuf: bool, clone: int = 0, max_samples: int
    ) -> None:
        self.admission = admission
        self.in_flight = 0
        self._link = link
        self._clone = clone
        self._max_samples = max_samples
        self._next_seq: defaultdict[str, int] = defaultdict(lambda: clone * CLONE_STRIDE)
        self._windows: dict[tuple[str, RetryConfig], _Window] = {}
        self._result = ResultKind("Sample", _decode, protobuf)

    def __repr__(self) -> str:
        """Show what is in flight."""
        return f"SamplingCore(clone={self._clone}, in_flight={self.in_flight}, {self.admission!r})"

    async def sample(
        self,
        request: SampleRequest,
        retry: RetryConfig | None = None,
        carrier: Mapping[str, str] | None = None,
    ) -> SampleResponse:
        """Draw samples from a sampling session.

        Args:
            request: With ``sampling_session_id`` set; its ``seq_id`` is given here.
            retry: How lost samples are repeated.
            carrier: The trace that this belongs to.

        Raises:
            RequestFailedError: The service accepted the request, then failed.
            APIStatusError: The service refused it.
            APIConnectionError: Nothing has been answered for too long.
        """
        retry = retry or RetryConfig()
        window = self._window(request.sampling_session_id or "", retry)
        with span(
            names.SAMPLE, kind=SpanKind.CLIENT, attributes=_attributes(request), carrier=carrier
        ) as current:
            self.in_flight += 1
            try:
                async with window.slots:
                    response = await window.watch(self._until_answered(request, retry))
            finally:
                self.in_flight -= 1
            _describe(current, response)
            return response

    async def aclose(self) -> None:
        """Fail what waits to be sent; idempotent. What was sent ends with its link."""
        await self.admission.aclose()

    def _window(self, session_id: str, retry: RetryConfig) -> _Window:
        key = (session_id, retry)
        if key not in self._windows:
            if len(self._windows) >= MAX_WINDOWS:
                self._windows = {k: w for k, w in self._windows.items() if not w.is_idle}
            bound = retry.max_connections
            # Its default is upstream's, which lets the service decide.
            bound = None if bound == DEFAULT_MAX_CONNECTIONS else bound
            self._windows[key] = _Window(retry, bound or self._max_samples)
        return self._windows[key]

    async def _until_answered(self, request: SampleRequest, retry: RetryConfig) -> SampleResponse:
        attempt = 0
        while True:
            try:
                return await self._once(request)
            except (APIConnectionError, APIStatusError, RetryableError) as error:
                if not retry.enable_retry_logic or not _may_pass(error):
                    raise
                delay_s = retry.delay_s(attempt, random.random())  # noqa: S311 - jitter
                logger.info("sample lost (%s), again in %.1f s", type(error).__name__, delay_s)
            attempt += 1
            await self._link.clock.sleep(delay_s)

    async def _once(self, request: SampleRequest) -> SampleResponse:
        session_id = request.sampling_session_id or ""
        numbered = replace(request, seq_id=self._next_seq[session_id])
        self._next_seq[session_id] += 1
        body = codec.encode_sample(numbered)
        num_bytes = prompt_bytes(request.prompt)
        async with self.admission.permit():
            promise = await self._dispatch(body, num_bytes)
        return await retrieve(self._link, promise, self._result)

    async def _dispatch(self, body: codec.Body, num_bytes: int) -> Promise:
        while True:
            async with self.admission.sending(num_bytes):
                try:
                    promise = await self._link.submit(endpoint.ASAMPLE, body, headers=_BACKPRESSURE)
                except RateLimitError as error:
                    # Before the place is given up, or the next in line would still be let in.
                    self.admission.rejected(num_bytes, error.retry_after_s)
                else:
                    self.admission.accepted()
                    return promise


class _Window:
    """The samples in flight of one sampling session, and whether any of them ever ends.

    Patience is counted by the event loop's clock, on which its timeouts run.
    """

    def __init__(self, retry: RetryConfig, width: int) -> None:
        self.slots = asyncio.Semaphore(width)
        self._patience_s = retry.progress_timeout
        self._last_progress = 0.0
        self._running = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return self._running == 0

    async def watch(self, sample: Coroutine[Any, Any, SampleResponse]) -> SampleResponse:
        """Run a sample, and fail it once no sample of the window has ended for too long.

        Raises:
            APIConnectionError: That has happened.
        """
        loop = asyncio.get_running_loop()
        if self._running == 0:
            self._last_progress = loop.time()
        self._running += 1
        task = asyncio.ensure_future(sample)
        try:
            while not task.done():
                left_s = self._last_progress + self._patience_s - loop.time()
                if left_s <= 0:
                    message = f"no progress for {self._patience_s:g} s: requests appear to be stuck"
                    raise APIConnectionError(message)
                await asyncio.wait({task}, timeout=left_s)
            self._last_progress = loop.time()
            return task.result()
        finally:
            self._running -= 1
            task.cancel()


def _may_pass(error: APIError | RetryableError) -> bool:
    return not isinstance(error, APIStatusError) or status.is_retryable(error.status_code)


def _decode(response: Response, promise: Promise) -> SampleResponse:
    ids = promise.sample_sequence_ids or ()
    return codec.decode_sample_response(response.content, response.content_type, ids)


def _attributes(request: SampleRequest) -> dict[str, str | int | float]:
    if not recording():
        return {}
    params = request.sampling_params
    attributes: dict[str, str | int | float] = {
        names.GEN_AI_OPERATION_NAME: names.GEN_AI_TEXT_COMPLETION,
        names.GEN_AI_PROVIDER_NAME: names.GEN_AI_TINKER,
        names.SAMPLING_SESSION_ID: request.sampling_session_id or "",
        names.GEN_AI_REQUEST_CHOICE_COUNT: request.num_samples,
        names.GEN_AI_REQUEST_TEMPERATURE: params.temperature,
        names.GEN_AI_USAGE_INPUT_TOKENS: request.prompt.length,
    }
    if params.max_tokens is not None:
        attributes[names.GEN_AI_REQUEST_MAX_TOKENS] = params.max_tokens
    return attributes


def _describe(current: Span, response: SampleResponse) -> None:
    if recording():
        num_tokens = sum(len(sequence.tokens_np) for sequence in response.sequences)
        current.set_attribute(names.GEN_AI_USAGE_OUTPUT_TOKENS, num_tokens)
