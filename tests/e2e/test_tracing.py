"""One trace joins driver, actors, HTTP and engine, as a collector outside of them sees it."""

from __future__ import annotations

from pathlib import Path

from tests.e2e import command
from tests.fakes.collector import CollectedSpan, Collector
from tinker_ray.telemetry import names

STEP = """
import tinker_ray
from tests.fakes.workload import datums, draw, prompts
from tinker_ray.engine.tiny_adder import NAME
from tinker_ray.telemetry import names, span

tinker_ray.init(mode="cluster")
with tinker_ray.ServiceClient(base_url="embedded") as service:
    with span(names.TRAIN_STEP):
        training = service.create_lora_training_client(NAME, rank=4, seed=1)
        tokenizer = training.get_tokenizer()
        training.forward_backward(datums(tokenizer, 4), "importance_sampling").result(60)
        training.optim_step(tinker_ray.AdamParams()).result(60)
        draw(training.save_weights_and_get_sampling_client(), prompts(tokenizer, 3))
tinker_ray.shutdown()
"""

RUN = """
from tinker_ray.rl.config import load
from tinker_ray.rl.launch import launch

settings = {"steps": 1, "prompts_per_step": 4, "samples_per_prompt": 4, "eval_problems": 4}
raise SystemExit(launch(lambda: load(None, settings), mode="cluster"))
"""


def _run(code: str, collector: Collector, cwd: Path) -> None:
    command.run(
        "-c",
        code,
        cwd=cwd,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        TINKER_API_KEY="tml-a-key-that-no-span-may-hold",
    )


def _where(spans: list[CollectedSpan], name: str) -> set[str]:
    return {span.component for span in spans if span.name == name}


def _ancestors(span: CollectedSpan, spans: list[CollectedSpan]) -> list[str]:
    """The names above a span, nearest first; ends with '?' if a parent is missing."""
    by_id = {other.span_id: other for other in spans}
    above: list[str] = []
    while span.parent_id:
        if span.parent_id not in by_id:
            return [*above, "?"]
        span = by_id[span.parent_id]
        above.append(span.name)
    return above


def test_one_trace_joins_driver_actors_http_and_engine(tmp_path: Path) -> None:
    with Collector() as collector:
        _run(STEP, collector, tmp_path)
        assert collector.wait_for([names.TRAIN_STEP, names.ENGINE_TRAIN, names.ENGINE_SAMPLE])
        assert command.survivors(tmp_path) == []
        (root,) = collector.named(names.TRAIN_STEP)
        spans = [span for span in collector.spans if span.trace_id == root.trace_id]
        bodies = collector.bodies

    assert root.parent_id == ""
    assert _where(spans, names.TRAIN_STEP) == {"driver"}
    assert _where(spans, names.ACTOR_CALL) >= {"training", "sampler"}
    assert _where(spans, names.FORWARD_BACKWARD) == {"training"}
    assert _where(spans, names.OPTIM_STEP) == {"training"}
    assert _where(spans, names.SAMPLE) == {"sampler"}
    assert _where(spans, names.HTTP_REQUEST) >= {"training", "sampler"}
    assert _where(spans, names.ENGINE_REQUEST) == {"engine"}
    assert _where(spans, names.ENGINE_SAMPLE) == {"engine"}
    for span in spans:
        assert span is root or _ancestors(span, spans)[-1] == names.TRAIN_STEP, span
    (sampled, *_) = (span for span in spans if span.name == names.ENGINE_SAMPLE)
    assert _ancestors(sampled, spans)[:3] == [
        names.ENGINE_REQUEST,
        names.HTTP_REQUEST,
        names.SAMPLE,
    ]
    assert not any(b"tml-" in body for body in bodies)
    assert not any(b"x-api-key" in body.lower() for body in bodies)


def test_the_trace_of_a_group_reaches_from_the_driver_into_the_engine(tmp_path: Path) -> None:
    with Collector() as collector:
        _run(RUN, collector, tmp_path)
        assert collector.wait_for([names.ROLLOUT_GROUP, names.TRAIN_STEP, names.ENGINE_SAMPLE])
        groups = collector.named(names.ROLLOUT_GROUP)
        spans = collector.spans
        (step,) = collector.named(names.TRAIN_STEP)

    for group in groups:
        below = [span for span in spans if span.trace_id == group.trace_id]
        assert group.parent_id == ""
        assert _where(below, names.ROLLOUT_GROUP) == {"driver"}
        assert _where(below, names.ROLLOUT_EPISODE) == {"rollout"}
        assert _where(below, names.ENV_STEP) == {"rollout"}
        assert _where(below, names.SAMPLE) == {"rollout"}
        assert _where(below, names.ENGINE_SAMPLE) == {"engine"}
        assert all("?" not in _ancestors(span, below) for span in below)
    assert step.links
    assert set(step.links) <= {(group.trace_id, group.span_id) for group in groups}
    assert not any(b"tml-" in body for body in collector.bodies)
