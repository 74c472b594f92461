"""Spans: nesting, carriers, failures, and what they cost when nobody looks."""

from __future__ import annotations

import asyncio
import pickle
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace as otel
from opentelemetry.trace import SpanKind, StatusCode

from tinker_ray.errors import RateLimitError, RequestFailedError
from tinker_ray.telemetry import context_from, current_trace_id, export, inject, names, trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def _by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_span_inside_another_is_its_child(exported: InMemorySpanExporter) -> None:
    with trace.span(names.ROLLOUT_EPISODE), trace.span(names.SAMPLE, kind=SpanKind.CLIENT):
        pass

    spans = _by_name(exported)
    sample, episode = spans[names.SAMPLE], spans[names.ROLLOUT_EPISODE]
    assert sample.parent is not None
    assert episode.context is not None
    assert sample.parent.span_id == episode.context.span_id
    assert sample.kind is SpanKind.CLIENT
    assert episode.parent is None


async def test_tasks_inherit_the_span_in_which_they_were_started(
    exported: InMemorySpanExporter,
) -> None:
    async def turn(index: int) -> str | None:
        with trace.span(names.ENV_STEP, attributes={names.TURN: index}):
            await asyncio.sleep(0)
            return current_trace_id()

    with trace.span(names.ROLLOUT_EPISODE) as episode:
        trace_ids = await asyncio.gather(*(turn(index) for index in range(3)))

    assert {otel.format_trace_id(episode.get_span_context().trace_id)} == set(trace_ids)
    steps = [span for span in exported.get_finished_spans() if span.name == names.ENV_STEP]
    assert {0, 1, 2} == {span.attributes[names.TURN] for span in steps if span.attributes}
    assert {episode.get_span_context().span_id} == {s.parent.span_id for s in steps if s.parent}


def test_a_pickled_carrier_continues_the_trace_elsewhere(exported: InMemorySpanExporter) -> None:
    with trace.span(names.SAMPLE) as caller:
        wire = pickle.dumps(inject())
    carrier = pickle.loads(wire)  # noqa: S301 - our own
    with trace.span(names.ENGINE_REQUEST, carrier=carrier, kind=SpanKind.SERVER):
        served_in = current_trace_id()

    served = _by_name(exported)[names.ENGINE_REQUEST]
    assert list(carrier) == ["traceparent"]
    assert otel.format_trace_id(caller.get_span_context().trace_id) == served_in
    assert served.parent is not None
    assert served.parent.span_id == caller.get_span_context().span_id
    assert served.parent.is_remote


def test_headers_are_read_whatever_their_case(exported: InMemorySpanExporter) -> None:
    with trace.span(names.SAMPLE) as caller:
        headers = {name.title(): value for name, value in inject().items()}

    parent = otel.get_current_span(context_from(headers)).get_span_context()

    assert parent.span_id == caller.get_span_context().span_id
    assert [span.name for span in exported.get_finished_spans()] == [names.SAMPLE]


@pytest.mark.parametrize("carrier", [{}, {"traceparent": "nonsense"}])
def test_a_bad_carrier_starts_a_new_trace(
    exported: InMemorySpanExporter, carrier: dict[str, str]
) -> None:
    with trace.span(names.ENGINE_REQUEST, carrier=carrier):
        pass

    assert _by_name(exported)[names.ENGINE_REQUEST].parent is None


def test_links_name_the_groups_of_a_step(exported: InMemorySpanExporter) -> None:
    carriers = []
    for _ in range(2):
        with trace.span(names.ROLLOUT_GROUP):
            carriers.append(inject())
    with trace.span(names.OPTIM_STEP, links=carriers):
        pass

    groups = [s.context for s in exported.get_finished_spans() if s.name == names.ROLLOUT_GROUP]
    linked = [link.context.span_id for link in _by_name(exported)[names.OPTIM_STEP].links]
    assert [group.span_id for group in groups if group] == linked


def test_a_failure_leaves_its_class_and_never_its_message(exported: InMemorySpanExporter) -> None:
    error = RateLimitError("Bearer tml-secret said: my prompt", status_code=429)

    with pytest.raises(RateLimitError), trace.span(names.HTTP_REQUEST):
        raise error

    span = _by_name(exported)[names.HTTP_REQUEST]
    assert span.status.status_code is StatusCode.ERROR
    expected = {names.ERROR_TYPE: "tinker_ray.errors.RateLimitError"}
    assert {**expected, names.HTTP_RESPONSE_STATUS_CODE: 429} == dict(span.attributes or {})
    assert "secret" not in span.to_json()
    assert "prompt" not in span.to_json()


def test_a_failed_promise_says_whose_fault_it_was(exported: InMemorySpanExporter) -> None:
    with pytest.raises(RequestFailedError), trace.span(names.SAMPLE):
        raise RequestFailedError("x", request_id="p1", category="user")

    assert (_by_name(exported)[names.SAMPLE].attributes or {})[names.ERROR_CATEGORY] == "user"


def test_a_cancelled_span_is_not_failed(exported: InMemorySpanExporter) -> None:
    with pytest.raises(asyncio.CancelledError), trace.span(names.SAMPLE):
        raise asyncio.CancelledError

    span = _by_name(exported)[names.SAMPLE]
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})[names.CANCELLED] is True


def test_a_span_can_be_recorded_after_the_fact(exported: InMemorySpanExporter) -> None:
    with trace.span(names.ENGINE_REQUEST) as request:
        carrier = inject()
    trace.record(names.ENGINE_QUEUE, start_ns=1_000, end_ns=4_000, carrier=carrier)

    queued = _by_name(exported)[names.ENGINE_QUEUE]
    assert (queued.start_time, queued.end_time) == (1_000, 4_000)
    assert queued.parent is not None
    assert queued.parent.span_id == request.get_span_context().span_id


def test_ids_do_not_repeat_when_user_code_seeds_random(exported: InMemorySpanExporter) -> None:
    for _ in range(3):
        random.seed(0)
        with trace.span(names.SAMPLE):
            pass

    contexts = [span.context for span in exported.get_finished_spans()]
    assert len({context.span_id for context in contexts if context}) == 3
    assert len({context.trace_id for context in contexts if context}) == 3


def test_no_global_provider_is_set(exported: InMemorySpanExporter) -> None:
    with trace.span(names.SAMPLE):
        pass

    assert len(exported.get_finished_spans()) == 1
    assert isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider)


def test_after_the_end_of_an_export_spans_go_nowhere(exported: InMemorySpanExporter) -> None:
    assert trace.recording()

    export.stop()

    with trace.span(names.SAMPLE) as span:
        assert not span.is_recording()
    assert not trace.recording()
    assert exported.get_finished_spans() == ()


def test_without_export_a_trace_still_passes_through() -> None:
    carrier = {"traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}

    with trace.span(names.ACTOR_CALL, carrier=carrier), trace.span(names.SAMPLE) as inner:
        inner.set_attribute(names.TURN, 1)
        passed_on = inject()

    assert carrier == passed_on
    assert current_trace_id() is None
    assert inject() == {}


def test_without_export_a_span_costs_microseconds() -> None:
    def seconds_for(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            with trace.span(names.SAMPLE):
                pass
        return time.perf_counter() - start

    assert min(seconds_for(500) for _ in range(10)) / 500 < 20e-6


def test_importing_the_package_loads_no_sdk() -> None:
    code = "import sys, tinker_ray.telemetry.export; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout

    modules = set(loaded.decode().split())
    assert "opentelemetry.trace" in modules
    assert not modules & {"opentelemetry.sdk", "opentelemetry.exporter", "requests", "ray", "torch"}
