from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.fakes.clock import SteppedClock, settle
from tinker_ray import errors
from tinker_ray.core.admission import Admission
from tinker_ray.core.flags import DynamicFlags, ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.sampling import SamplingCore, prompt_bytes
from tinker_ray.limits import ByteBudget, LocalLimits
from tinker_ray.transport.clock import Clock, VirtualClock
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.scripted import Answer, ScriptedTransport, Sent, answer
from tinker_ray.types import (
    DmelChunk,
    EncodedTextChunk,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    ModelInputChunk,
    RetryConfig,
    SampleResponse,
    SamplingParams,
)
from tinker_ray.wire.codec import JSON, PROTOBUF
from tinker_ray.wire.endpoint import (
    ASAMPLE,
    CANCEL_FUTURE,
    JOIN_SAMPLING_SESSION,
    RETRIEVE_FUTURE,
    RETRIEVE_FUTURES,
)
from tinker_ray.wire.request import SampleRequest

REQUEST = SampleRequest(ModelInput.from_ints([1, 2]), sampling_session_id="S1:sample:0")
PROMISED = answer({"request_id": "r", "sample_sequence_ids": ["q/0"]})
SAMPLE = answer({"sequences": [{"stop_reason": "stop", "tokens": [7], "logprobs": [-0.5]}]})
LOST = answer(status=410)


@dataclass
class Sampling:
    """A sampling core over a script."""

    asample: list[Answer] = field(default_factory=lambda: [PROMISED])
    retrieve: list[Answer] = field(default_factory=lambda: [SAMPLE])
    clone: int = 0
    capacity: int = 400
    max_samples: int = 2000
    clock: Clock = field(default_factory=VirtualClock)
    protobuf: bool = True
    flags: ServerFlags = field(default_factory=ServerFlags)

    def __post_init__(self) -> None:
        script = {ASAMPLE.path: self.asample, RETRIEVE_FUTURE.path: self.retrieve}
        self.transport = ScriptedTransport(script)
        self.limits = LocalLimits(self.capacity, random=lambda: 0.0)
        self.admission = Admission(self.limits, self.clock, ByteBudget())
        flags = replace(self.flags, protobuf=self.protobuf, max_samples=self.max_samples)
        self.link = Link(self.transport, self.clock, flags)
        self.core = SamplingCore(self.link, self.admission, clone=self.clone)

    @property
    def seq_ids(self) -> list[object]:
        return [
            sent.json()["seq_id"]
            for sent in self.transport.sent
            if sent.request.path == ASAMPLE.path
        ]

    @property
    def slept(self) -> list[float]:
        assert isinstance(self.clock, VirtualClock)
        return self.clock.slept

    async def sample(self, retry: RetryConfig | None = None, **changes: Any) -> SampleResponse:  # noqa: ANN401
        return await self.core.sample(replace(REQUEST, **changes), retry)


async def test_a_sample_is_dispatched_polled_and_named() -> None:
    sampling = Sampling()
    response = await sampling.sample()
    assert [([7], "q/0")] == [(item.tokens, item.sequence_id) for item in response.sequences]
    assert [ASAMPLE.path, RETRIEVE_FUTURE.path] == sampling.transport.paths()
    assert "1" == sampling.transport.sent[0].request.headers["X-Tinker-Sampling-Backpressure"]
    assert (0, 0) == (sampling.core.in_flight, sampling.limits.dispatching)


@pytest.mark.parametrize("protobuf,accept", [(True, PROTOBUF), (False, JSON)])
async def test_results_are_asked_for_in_what_the_service_speaks(
    protobuf: bool,  # noqa: FBT001
    accept: str,
) -> None:
    sampling = Sampling(protobuf=protobuf)
    await sampling.sample()
    assert [JSON, accept] == [sent.request.accept for sent in sampling.transport.sent]


async def test_each_session_counts_its_own_samples_from_the_clones_number() -> None:
    sampling = Sampling(clone=3)
    await sampling.sample()
    await sampling.sample()
    await sampling.sample(sampling_session_id="S1:sample:1")
    assert [3_000_000_000, 3_000_000_001, 3_000_000_000] == sampling.seq_ids


async def test_a_lost_promise_is_sampled_anew_under_a_new_number() -> None:
    sampling = Sampling(retrieve=[LOST, LOST, SAMPLE])
    await sampling.sample()
    assert [0, 1, 2] == sampling.seq_ids
    first, second = sampling.slept
    assert 0.375 <= first <= 0.625
    assert 0.75 <= second <= 1.25


async def test_back_pressure_resends_the_same_request_after_the_pause() -> None:
    full = answer(status=429)
    sampling = Sampling(asample=[full, full, PROMISED])
    await sampling.sample()
    assert [0, 0, 0] == sampling.seq_ids
    assert pytest.approx(2 * 1.05) == sum(sampling.slept)
    assert 2 == sampling.limits.num_rejected


async def test_the_services_wait_is_kept_when_it_pushes_back() -> None:
    sampling = Sampling(asample=[answer(status=429, retry_after="7"), PROMISED])
    await sampling.sample()
    assert pytest.approx(7.05) == sum(sampling.slept)


async def test_a_large_prompt_waits_longer() -> None:
    sampling = Sampling(asample=[answer(status=429), PROMISED])
    await sampling.sample(prompt=ModelInput.from_ints([1] * 20_000))
    assert pytest.approx(5.05) == sum(sampling.slept)


async def test_back_pressure_is_noted_before_the_next_in_line_is_let_in() -> None:
    arrived, go, clock = asyncio.Event(), asyncio.Event(), SteppedClock()
    sampling = Sampling(clock=clock)
    # Throttled to one at a time, so that the second request waits for the first.
    sampling.limits.backoff._width = 1
    sampling.limits.backoff.on_rejected(-5.0, 1)
    outcomes = iter([answer(status=429), PROMISED, PROMISED])
    times: list[float] = []

    class Gated(ScriptedTransport):
        async def attempt(self, request: Request, headers: Any) -> Response:  # noqa: ANN401
            if request.path == ASAMPLE.path:
                times.append(sampling.clock.now())
                arrived.set()
                await go.wait()
                return next(outcomes)
            return await super().attempt(request, headers)

    sampling.core._link.transport = Gated({RETRIEVE_FUTURE.path: [SAMPLE]})
    first = asyncio.create_task(sampling.sample())
    await arrived.wait()
    second = asyncio.create_task(sampling.sample())
    await settle()
    go.set()
    await settle()
    assert [0.0] == times
    await clock.advance(1.2)
    await asyncio.gather(first, second)
    assert [0.0, 1.05, 1.05] == pytest.approx(times)
    await sampling.core.aclose()


@pytest.mark.parametrize(
    "failure",
    [
        answer(status=500, x_should_retry="false"),
        answer(status=503, x_should_retry="false"),
        answer(status=408, x_should_retry="false"),
        answer(status=409, x_should_retry="false"),
    ],
)
async def test_a_dispatch_that_may_yet_succeed_is_sampled_anew(failure: Response) -> None:
    sampling = Sampling(asample=[failure, PROMISED])
    await sampling.sample()
    assert [0, 1] == sampling.seq_ids


@pytest.mark.parametrize(
    "failing,error",
    [
        ({"asample": [answer(status=400)]}, errors.BadRequestError),
        ({"asample": [answer(status=401)]}, errors.AuthenticationError),
        ({"asample": [answer(status=404)]}, errors.NotFoundError),
        ({"asample": [answer({"no": "promise"})]}, errors.APIResponseValidationError),
        ({"asample": [errors.StaleHandleError("closed")]}, errors.StaleHandleError),
        ({"retrieve": [answer({"error": "x", "category": "server"})]}, errors.RequestFailedError),
        ({"retrieve": [answer({"sequences": 5})]}, errors.WireFormatError),
        ({"retrieve": [answer(status=404)]}, errors.NotFoundError),
    ],
)
async def test_what_a_new_attempt_cannot_mend_is_raised_at_once(
    failing: dict[str, list[Answer]], error: type[errors.TinkerError]
) -> None:
    sampling = Sampling(**failing)  # type: ignore[arg-type]
    with pytest.raises(error):
        await sampling.sample()
    assert ([0], []) == (sampling.seq_ids, sampling.slept)
    assert (0, 0) == (sampling.core.in_flight, sampling.limits.dispatching)


async def test_without_retry_logic_a_lost_promise_is_the_callers() -> None:
    sampling = Sampling(retrieve=[LOST])
    with pytest.raises(errors.RetryableError):
        await sampling.sample(RetryConfig(enable_retry_logic=False))
    assert [0] == sampling.seq_ids


async def test_attempts_are_unlimited_and_their_delays_are_not() -> None:
    sampling = Sampling(retrieve=[*[LOST] * 40, SAMPLE])
    await sampling.sample(RetryConfig(retry_delay_base=1.0, retry_delay_max=4.0, jitter_factor=0.0))
    assert [1.0, 2.0, *[4.0] * 38] == sampling.slept


# --- how many at once ---------------------------------------------------------------------------


class Gate(ScriptedTransport):
    """Holds polls until the test opens it; counts who got so far."""

    def __init__(self) -> None:
        super().__init__({ASAMPLE.path: [PROMISED], RETRIEVE_FUTURE.path: [SAMPLE]})
        self.opened = asyncio.Event()
        self.num_dispatched = 0

    async def attempt(self, request: Request, headers: Any) -> Response:  # noqa: ANN401
        if request.path == RETRIEVE_FUTURE.path:
            await self.opened.wait()
        else:
            self.num_dispatched += 1
        return await super().attempt(request, headers)


def gated(**options: Any) -> tuple[Sampling, Gate]:  # noqa: ANN401
    sampling, gate = Sampling(**options), Gate()
    sampling.core._link.transport = gate
    return sampling, gate


async def in_flight(sampling: Sampling, *retries: RetryConfig | None) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(sampling.sample(retry)) for retry in retries]
    await settle()
    return tasks


async def test_polling_holds_no_permit() -> None:
    sampling, gate = gated(capacity=1)
    tasks = await in_flight(sampling, *[None] * 5)
    assert (5, 0, 5) == (gate.num_dispatched, sampling.limits.dispatching, sampling.core.in_flight)
    gate.opened.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    "retry,max_samples,expected",
    [
        (None, 2, 2),
        (RetryConfig(), 4, 4),
        (RetryConfig(max_connections=None), 4, 4),
        (RetryConfig(max_connections=3), 4, 3),
        (RetryConfig(max_connections=4), 3, 3),
    ],
)
async def test_a_session_has_so_many_samples_in_flight(
    retry: RetryConfig | None, max_samples: int, expected: int
) -> None:
    sampling, gate = gated(max_samples=max_samples)
    tasks = await in_flight(sampling, *[retry] * 6)
    assert expected == gate.num_dispatched
    gate.opened.set()
    await asyncio.gather(*tasks)
    assert 6 == gate.num_dispatched


async def test_sessions_do_not_share_their_places() -> None:
    sampling, gate = gated(max_samples=1)
    other = asyncio.create_task(sampling.sample(sampling_session_id="S1:sample:1"))
    tasks = [*await in_flight(sampling, None, None), other]
    assert 2 == gate.num_dispatched
    gate.opened.set()
    await asyncio.gather(*tasks)


# --- cancelling, getting stuck, closing -----------------------------------------------------------


def while_polling() -> tuple[Sampling, Gate]:
    return gated()


def while_waiting_for_a_permit() -> tuple[Sampling, Gate]:
    return gated(capacity=0)


def while_paused() -> tuple[Sampling, Gate]:
    sampling, gate = gated()
    sampling.limits.suspend(0.0, 30.0)

    async def sleep(seconds: float) -> None:
        await asyncio.Event().wait()

    sampling.clock.sleep = sleep  # type: ignore[method-assign]
    return sampling, gate


STATES = [while_polling, while_waiting_for_a_permit, while_paused]


@pytest.mark.parametrize("state", STATES)
async def test_a_cancelled_sample_gives_everything_back(
    state: Callable[[], tuple[Sampling, Gate]],
) -> None:
    sampling, _ = state()
    (task,) = await in_flight(sampling, None)
    task.cancel()
    await settle()
    assert task.cancelled()
    assert (0, 0, 0) == (
        sampling.core.in_flight,
        sampling.limits.dispatching,
        sampling.admission.waiting,
    )
    await sampling.core.aclose()


@pytest.mark.parametrize("state", STATES)
async def test_without_any_progress_waiting_samples_fail(
    state: Callable[[], tuple[Sampling, Gate]],
) -> None:
    sampling, _ = state()
    tasks = await in_flight(sampling, *[RetryConfig(progress_timeout=0.01)] * 3)
    for task in tasks:
        with pytest.raises(errors.APIConnectionError, match="no progress for"):
            await asyncio.wait_for(task, timeout=5)
    await sampling.core.aclose()


@pytest.mark.parametrize("state", STATES[1:])
async def test_closing_answers_what_waits_to_be_sent(
    state: Callable[[], tuple[Sampling, Gate]],
) -> None:
    sampling, _ = state()
    (task,) = await in_flight(sampling, None)
    await sampling.core.aclose()
    with pytest.raises(errors.StaleHandleError, match="closed"):
        await task


# --- what the service wants -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags,retry",
    [
        (ServerFlags(sample_enable_stuck_detection=False), RetryConfig(progress_timeout=0.01)),
        (ServerFlags(), RetryConfig(progress_timeout=0.01, enable_stuck_detection=False)),
    ],
)
async def test_samples_may_take_for_ever_if_the_service_or_the_user_says_so(
    flags: ServerFlags, retry: RetryConfig
) -> None:
    sampling, gate = gated(flags=flags)
    tasks = await in_flight(sampling, retry)
    assert [None] == [window._alarm for window in sampling.core._windows.values()]
    gate.opened.set()
    await tasks[0]


async def test_without_repetitions_a_lost_sample_is_lost_but_not_a_score() -> None:
    flags = ServerFlags(sample_no_retries=True)
    with pytest.raises(errors.RetryableError):
        await Sampling(retrieve=[LOST, SAMPLE], flags=flags).sample()
    scoring: dict[str, Any] = {
        "prompt_logprobs": True,
        "sampling_params": SamplingParams(max_tokens=1),
    }
    await Sampling(retrieve=[LOST, SAMPLE], flags=flags).sample(**scoring)


async def test_without_repetitions_there_is_no_bound_either() -> None:
    sampling, gate = gated(flags=ServerFlags(sample_no_retries=True), max_samples=1)
    tasks = await in_flight(sampling, None, None, None)
    assert 3 == gate.num_dispatched
    gate.opened.set()
    await asyncio.gather(*tasks)


async def test_a_402_pushes_back_like_a_429() -> None:
    unpaid = answer(status=402)
    sampling = Sampling(asample=[unpaid, unpaid, PROMISED])
    await sampling.sample()
    assert [0, 0, 0] == sampling.seq_ids
    assert pytest.approx(2.1) == sum(sampling.slept)
    assert 0 == sampling.limits.num_rejected


async def test_a_402_that_does_not_end_is_an_error() -> None:
    sampling = Sampling(asample=[answer(status=402)], flags=ServerFlags(billing_pause_s=30))
    with pytest.raises(errors.BillingError):
        await sampling.sample()
    assert 30 <= sum(sampling.slept) <= 33
    assert 0 == sampling.limits.dispatching


@pytest.mark.parametrize("refusal", [answer(status=409), answer(status=403)])
async def test_a_sample_that_is_refused_while_polling_is_not_drawn_anew(refusal: Response) -> None:
    sampling = Sampling(retrieve=[refusal])
    with pytest.raises(ValueError, match=str(refusal.status)) as caught:
        await sampling.sample()
    assert isinstance(caught.value, errors.APIStatusError)
    assert [0] == sampling.seq_ids


async def test_the_user_decides_which_errors_are_repeated() -> None:
    asample: list[Answer] = [answer(status=403), PROMISED]
    retry = RetryConfig(retryable_exceptions=(errors.PermissionDeniedError,))
    await Sampling(asample=asample).sample(retry)
    with pytest.raises(errors.RetryableError):
        await Sampling(retrieve=[LOST, SAMPLE]).sample(retry)


async def test_a_request_that_cannot_be_is_refused_before_it_is_sent() -> None:
    sampling = Sampling()
    with pytest.raises(ValueError, match="prompt_alt_tokens_k"):
        await sampling.sample(prompt_alt_tokens_k=-1)
    assert [] == sampling.transport.sent


async def test_an_answer_without_what_was_asked_for_is_an_error() -> None:
    sampling = Sampling()
    with pytest.raises(errors.UnfulfilledError, match="prompt_alt_tokens_k=2"):
        await sampling.sample(prompt_alt_tokens_k=2)


async def test_a_copy_of_a_sampler_is_numbered_by_the_service_once_per_session() -> None:
    flags = ServerFlags(sample_join_sampling_session=True)
    sampling = Sampling(clone=9, flags=flags)
    joined = JOIN_SAMPLING_SESSION.path
    sampling.transport.script[joined] = [
        answer({"client_counter": 4}),
        answer({"client_counter": 5}),
    ]
    await asyncio.gather(sampling.sample(), sampling.sample())
    await sampling.sample(sampling_session_id="S1:sample:1")
    assert [4_000_000_000, 4_000_000_001, 5_000_000_000] == sampling.seq_ids
    assert 2 == sampling.transport.paths().count(joined)
    original = Sampling(flags=flags)
    await original.sample()
    assert [0] == original.seq_ids


# --- cancelling at the service --------------------------------------------------------------------

CANCELLING = ServerFlags(dynamic=DynamicFlags(sample_cancel_enabled=True))


@pytest.mark.parametrize("flags,expected", [(CANCELLING, ["r"]), (ServerFlags(), [])])
async def test_a_sample_that_nobody_waits_for_is_cancelled_at_the_service(
    flags: ServerFlags, expected: list[str]
) -> None:
    sampling, gate = gated(flags=flags)
    gate.script[CANCEL_FUTURE.path] = [answer()]
    (task,) = await in_flight(sampling, None)
    task.cancel()
    await settle()
    cancelled = [
        sent.json()["request_id"] for sent in gate.sent if sent.request.path == CANCEL_FUTURE.path
    ]
    assert expected == cancelled
    await sampling.core.aclose()


async def test_a_sample_given_up_before_its_promise_arrived_is_cancelled_all_the_same() -> None:
    sampling = Sampling(flags=CANCELLING)
    arrived = asyncio.Event()

    class Deaf(ScriptedTransport):
        async def attempt(self, request: Request, headers: Any) -> Response:  # noqa: ANN401
            if request.path == ASAMPLE.path and not arrived.is_set():
                self.sent.append(Sent(request, headers))
                arrived.set()
                await asyncio.get_running_loop().create_future()  # taken in, never answered
            return await super().attempt(request, headers)

    service = Deaf({ASAMPLE.path: [PROMISED], CANCEL_FUTURE.path: [answer()]})
    sampling.core._link.transport = service
    task = asyncio.create_task(sampling.sample())
    await arrived.wait()
    task.cancel()
    await settle()
    first, again, cancelled = service.sent
    assert [ASAMPLE.path, ASAMPLE.path, CANCEL_FUTURE.path] == service.paths()
    assert first.request.content == again.request.content
    assert {"request_id": "r"} == cancelled.json()
    await sampling.core.aclose()


async def test_a_sample_that_got_stuck_is_cancelled_at_the_service() -> None:
    sampling, gate = gated(flags=CANCELLING)
    gate.script[CANCEL_FUTURE.path] = [answer()]
    (task,) = await in_flight(sampling, RetryConfig(progress_timeout=0.01))
    with pytest.raises(errors.APIConnectionError):
        await task
    await settle()
    assert CANCEL_FUTURE.path in gate.paths()


# --- one poll for all -----------------------------------------------------------------------------


async def test_samples_may_share_one_poll_which_reports_what_was_fetched() -> None:
    sampling = Sampling(
        flags=ServerFlags(sample_use_retrieve_futures=True, response_bytes=50), max_samples=1
    )
    completed = {
        "state": "finished",
        "request_id": "r",
        "response_payload_uncompressed_size": 40,
    }
    sampling.transport.script[RETRIEVE_FUTURES.path] = [
        answer({"completions": [completed], "cursor": 1})
    ]
    await sampling.sample()
    await settle()
    fetches = [s.json() for s in sampling.transport.sent if s.request.path == RETRIEVE_FUTURE.path]
    assert [{"request_id": "r", "allow_metadata_only": False}] == fetches
    polls = [s.json() for s in sampling.transport.sent if s.request.path == RETRIEVE_FUTURES.path]
    assert ["r"] in [poll["retrieved_request_ids"] for poll in polls]
    assert 50 == sampling.link.responses._budget.left_bytes
    await sampling.core.aclose()


async def test_a_failed_sample_is_reported_as_fetched_too() -> None:
    sampling = Sampling(
        retrieve=[answer({"error": "no", "category": "user"})],
        flags=ServerFlags(sample_use_retrieve_futures=True),
    )
    sampling.transport.script[RETRIEVE_FUTURES.path] = [
        answer({"completions": [{"state": "failed", "request_id": "r"}], "cursor": 1})
    ]
    with pytest.raises(errors.RequestFailedError):
        await sampling.sample()
    await settle()
    polls = [s.json() for s in sampling.transport.sent if s.request.path == RETRIEVE_FUTURES.path]
    assert ["r"] in [poll["retrieved_request_ids"] for poll in polls]
    await sampling.core.aclose()


def test_a_prompt_weighs_ten_bytes_a_token_and_its_images() -> None:
    chunks: list[ModelInputChunk] = [
        EncodedTextChunk([1, 2, 3]),
        ImageChunk(b"12345", "png"),
        ImageAssetPointerChunk("location", "png"),
        DmelChunk(bytes([0, 1, 2, 1, 2])),
    ]
    assert 30 + 5 + 8 + 5 == prompt_bytes(ModelInput(chunks))
