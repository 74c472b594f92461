"""Samples: dispatched under a permit, at work in a slot of the window, submitted anew when lost.

Knows nothing of where its permits come from. One core serves any number of sampling sessions; a
session is bound to one version of the weights for life. Sequence numbers start at ``clone · 10⁹``,
so that cores that share a session never use the same one. A sample that nobody waits for any more
is cancelled at the service.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from tinker_ray.core.cancel import CancelQueue
from tinker_ray.core.futures_poller import FuturesPoller
from tinker_ray.core.polling import ResultKind, retrieve
from tinker_ray.core.queue_log import QueueLog
from tinker_ray.core.sample_check import check_request, check_response
from tinker_ray.core.sdk_method import carried
from tinker_ray.core.session import join_sampling_session
from tinker_ray.core.traffic import ORDINARY
from tinker_ray.core.window import Window
from tinker_ray.errors import APIStatusError, BillingError, RateLimitError, RequestFailedError
from tinker_ray.limits.backoff import PAUSE_S
from tinker_ray.telemetry import names
from tinker_ray.telemetry.trace import SpanKind, recording, span
from tinker_ray.types import EncodedTextChunk, ImageAssetPointerChunk, ImageChunk, RetryConfig
from tinker_ray.types.retry import DEFAULT_MAX_CONNECTIONS
from tinker_ray.wire import codec, endpoint, status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

    from tinker_ray.core.admission import Admission, Passage
    from tinker_ray.core.link import Link, Promise
    from tinker_ray.core.spending import Spending
    from tinker_ray.core.traffic import Traffic
    from tinker_ray.transport.message import Response
    from tinker_ray.types import ModelInput, SampleResponse
    from tinker_ray.wire.request import SampleRequest

logger = logging.getLogger(__name__)

CLONE_STRIDE = 1_000_000_000
MAX_WINDOWS = 100
"""Windows that are remembered; when there are more, idle ones are forgotten."""
_BYTES_PER_TOKEN = 10
_BACKPRESSURE = {"X-Tinker-Sampling-Backpressure": "1"}


def prompt_bytes(prompt: ModelInput) -> int:
    """Estimate what a prompt weighs on the wire: 10 bytes a token, images and sound as they are."""
    total = 0
    for chunk in prompt.chunks:
        if isinstance(chunk, EncodedTextChunk):
            total += _BYTES_PER_TOKEN * chunk.length
        elif isinstance(chunk, ImageChunk):
            total += len(chunk.data)
        elif isinstance(chunk, ImageAssetPointerChunk):
            total += len(chunk.location)
        else:
            total += len(chunk.dmel)
    return total


class _Session:
    """What this core knows of a sampling session."""

    def __init__(self, link: Link, session_id: str, clone: int) -> None:
        self.log = QueueLog(f"sampler {session_id}", link.clock.now)
        self.poller: FuturesPoller | None = None
        self._link = link
        self._session_id = session_id
        self._clone = clone
        self._next_seq = clone * CLONE_STRIDE
        # The creator of a session is its client 0; only others are numbered by the service.
        self._is_numbered = clone == 0 or not link.flags.sample_join_sampling_session
        self._numbering = asyncio.Lock()

    async def next_seq(self) -> int:
        """Issue the number of the next sample.

        Raises:
            APIStatusError: The service refused to number this client.
            APIConnectionError: There was no answer.
        """
        if not self._is_numbered:
            await self._join()
        self._next_seq += 1
        return self._next_seq - 1

    def poller_if_wanted(self) -> FuturesPoller | None:
        """Return the one that polls for all samples, if the service wants that."""
        if self.poller is None and self._link.flags.sample_use_retrieve_futures:
            self.poller = FuturesPoller(self._link, self._session_id, self._clone)
        return self.poller

    async def _join(self) -> None:
        async with self._numbering:
            if not self._is_numbered:
                self._clone = await join_sampling_session(self._link, self._session_id)
                self._next_seq = self._clone * CLONE_STRIDE
                self._is_numbered = True


class SamplingCore:
    """Draws samples for this process.

    Args:
        link: The service.
        admission: Who may send when.
        clone: 0 for the only core of a session's creator, else unique among the cores of the
            session.
        spending: Keeps to the run's budget, if there is one.
    """

    def __init__(
        self,
        link: Link,
        admission: Admission,
        *,
        clone: int = 0,
        spending: Spending | None = None,
    ) -> None:
        self.admission = admission
        self._spending = spending
        self.in_flight = 0
        self._link = link
        self._clone = clone
        self._sessions: dict[str, _Session] = {}
        self._windows: dict[tuple[str, RetryConfig], Window] = {}
        self._cancels = CancelQueue(link)
        self._result = ResultKind("Sample", _decode, link.flags.protobuf)

    def __repr__(self) -> str:
        """Show what is in flight."""
        return f"SamplingCore(clone={self._clone}, in_flight={self.in_flight}, {self.admission!r})"

    async def sample(
        self,
        request: SampleRequest,
        retry: RetryConfig | None = None,
        carrier: Mapping[str, str] | None = None,
        traffic: Traffic = ORDINARY,
    ) -> SampleResponse:
        """Draw samples from a sampling session.

        Args:
            request: With ``sampling_session_id`` set; its ``seq_id`` is given here.
            retry: How lost samples are repeated.
            carrier: The trace that this belongs to.
            traffic: Its kind.

        Raises:
            ValueError: The request asks for what cannot be.
            BudgetExceededError: It does not fit into what is left of the run's budget.
            RequestFailedError: The service accepted the request, then failed.
            APIStatusError: The service refused it.
            APIConnectionError: Nothing has been answered for too long.
            UnfulfilledError: The service left out what was asked for.
        """
        check_request(request)
        attributes = _attributes(request)
        with (
            carried(carrier),
            span(
                names.SAMPLE, kind=SpanKind.CLIENT, attributes=attributes, carrier=carrier
            ) as current,
        ):
            self.in_flight += 1
            try:
                response = await self._within_budget(request, retry, traffic)
            finally:
                self.in_flight -= 1
            _describe(current, response)
            return response

    async def aclose(self) -> None:
        """Fail what waits to be sent; idempotent. What was sent ends with its link."""
        if self._spending is not None:
            await self._spending.aclose()
        await self.admission.aclose()
        await self._cancels.aclose()
        for session in self._sessions.values():
            if session.poller is not None:
                await session.poller.aclose()

    async def _within_budget(
        self, request: SampleRequest, retry: RetryConfig | None, traffic: Traffic
    ) -> SampleResponse:
        if self._spending is None:
            return await self._answer(request, retry, traffic)
        async with self._spending.sample(request) as settle:
            response = await self._answer(request, retry, traffic)
            settle(response)
            return response

    async def _answer(
        self, request: SampleRequest, retry: RetryConfig | None, traffic: Traffic
    ) -> SampleResponse:
        if self._link.flags.sample_no_retries and not _scores_only(request):
            return await self._once(request, traffic)
        retry = retry or RetryConfig()
        async with self._window(request.sampling_session_id or "", retry).place():
            return await self._until_answered(request, retry, traffic)

    def _window(self, session_id: str, retry: RetryConfig) -> Window:
        key = (session_id, retry)
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= MAX_WINDOWS:
                self._windows = {k: w for k, w in self._windows.items() if not w.is_idle}
            flags = self._link.flags
            patient = retry.enable_stuck_detection and flags.sample_enable_stuck_detection
            window = Window(self._width(retry), retry.progress_timeout if patient else None)
            # The caller's configuration may change; the window's does not.
            self._windows[session_id, replace(retry)] = window
        return window

    def _width(self, retry: RetryConfig) -> int | None:
        """Tell how many samples may be in flight: the service decides, unless it is an old one."""
        flags = self._link.flags
        if flags.sample_use_retrieve_futures:
            return None
        wanted = retry.max_connections
        if not flags.protobuf:
            return wanted
        if wanted is None or wanted == DEFAULT_MAX_CONNECTIONS:  # nobody's wish
            return flags.max_samples
        return min(wanted, flags.max_samples)

    async def _until_answered(
        self, request: SampleRequest, retry: RetryConfig, traffic: Traffic
    ) -> SampleResponse:
        attempt = 0
        while True:
            try:
                return await self._once(request, traffic)
            except Exception as error:
                may_pass = retry.enable_retry_logic and _may_pass(error, retry)
                self._report(error, attempt, may_pass=may_pass)
                if not may_pass:
                    raise
                delay_s = retry.delay_s(attempt, random.random())  # noqa: S311 - jitter
                logger.info("sample lost (%s), again in %.1f s", type(error).__name__, delay_s)
            attempt += 1
            await self._link.clock.sleep(delay_s)

    async def _once(self, request: SampleRequest, traffic: Traffic) -> SampleResponse:
        session = self._session(request.sampling_session_id or "")
        numbered = replace(request, seq_id=await session.next_seq())
        async with self.admission.sample(traffic, prompt_bytes(request.prompt)) as passage:
            promise = await self._dispatch(passage, numbered)
            try:
                response = await self._fetch(session, promise)
            except asyncio.CancelledError:
                self._cancels.add(promise.request_id)
                raise
        check_response(request, response)
        return response

    async def _fetch(self, session: _Session, promise: Promise) -> SampleResponse:
        poller = session.poller_if_wanted()
        if poller is None:
            return await retrieve(self._link, promise, self._result, session.log)
        size_bytes = await poller.wait_for(promise.request_id)
        try:
            response = await retrieve(
                self._link, promise, self._result, session.log, size_bytes=size_bytes
            )
        except RequestFailedError:
            poller.mark_retrieved(promise.request_id)
            raise
        poller.mark_retrieved(promise.request_id)
        return response

    async def _dispatch(self, passage: Passage, request: SampleRequest) -> Promise:
        while True:
            async with passage.sending():
                # The body is made now and not kept: thousands may wait, here and for their answers.
                submit = partial(
                    self._link.submit,
                    endpoint.ASAMPLE,
                    codec.encode_sample(request),
                    headers=_BACKPRESSURE,
                    before_again=passage.covered,
                )
                try:
                    promise = await submit()
                except asyncio.CancelledError:
                    self._cancels.add(submit)
                    raise
                except RateLimitError as error:
                    # Before the bytes are given up, or the next in line would still be let in.
                    passage.rejected(error.retry_after_s)
                except BillingError as error:
                    if not self._link.patience.waits_for_billing(error, self._link.clock.now()):
                        raise
                    passage.suspended(error.retry_after_s or PAUSE_S)
                else:
                    passage.accepted()
                    return promise

    def _session(self, session_id: str) -> _Session:
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session(self._link, session_id, self._clone)
        return session

    def _report(self, error: Exception, attempt: int, *, may_pass: bool) -> None:
        data: dict[str, object] = {
            "exception": str(error),
            "exception_type": type(error).__name__,
            "status_code": getattr(error, "status_code", None),
            "should_retry": may_pass,
            "attempt_count": attempt + 1,
        }
        severity: Literal["WARNING", "ERROR"] = "WARNING" if may_pass else "ERROR"
        self._link.report("RetryHandler.execute.exception", data, severity)


def _scores_only(request: SampleRequest) -> bool:
    """Tell whether a request is for the logprobs of its prompt: those are repeated always."""
    return (
        request.prompt_logprobs
        and request.num_samples == 1
        and request.sampling_params.max_tokens == 1
    )


def _may_pass(error: Exception, retry: RetryConfig) -> bool:
    """Tell whether a sample is drawn anew; a refusal while polling, a ``ValueError``, stands."""
    if isinstance(error, retry.retryable_exceptions):
        return True
    if isinstance(error, ValueError) or not isinstance(error, APIStatusError):
        return False
    return status.is_retryable(error.status_code)


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
