"""Losses that refer to what the engine keeps: recorded samples and custom losses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.fakes.engine import MODEL, EngineClient, sample_body
from tests.fakes.running_engine import Running
from tinker_ray.engine.settings import HostSettings
from tinker_ray.types import (
    Datum,
    ForwardBackwardOutput,
    ModelInput,
    PromptProvenanceSpan,
    SampledProvenanceSpan,
)
from tinker_ray.wire import codec
from tinker_ray.wire.request import ForwardBackwardRequest

PROTO = {"Content-Type": codec.PROTOBUF}
PROMPT = [5, 6, 7]


async def post(client: EngineClient, request: ForwardBackwardRequest) -> Any:  # noqa: ANN401
    content = codec.encode_forward_backward(request, proto=True).content
    return await client.http.post("/api/v1/forward_backward", content=content, headers=PROTO)


async def output(client: EngineClient, promise: dict[str, Any]) -> ForwardBackwardOutput:
    body = {"request_id": promise["request_id"]}
    headers = {"Accept": codec.PROTOBUF}
    answer = await client.http.post("/api/v1/retrieve_future", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return codec.decode_forward_backward_output(answer.content, answer.headers["content-type"])


async def sampled(client: EngineClient, sampler_id: str, *, recorded: bool) -> Datum:
    """Draw a sequence, and make a datum of it that names where it comes from."""
    body = sample_body(sampler_id, record_stability_info=recorded)
    promise = await client.post("asample", body)
    (drawn,) = (await client.result(promise))["sequences"]
    (name,) = promise["sample_sequence_ids"]
    tokens, num_drawn = [*PROMPT, *drawn["tokens"]], len(drawn["tokens"])
    datum = Datum(
        ModelInput.from_ints(tokens[:-1]),
        {
            "target_tokens": tokens[1:],
            "advantages": [0.0, 0.0, *np.linspace(-1, 2, num_drawn).tolist()],
            "logprobs": [0.0, 0.0, *drawn["logprobs"]],
        },
    )
    return dataclasses.replace(
        datum,
        model_input_spans=[
            PromptProvenanceSpan(sequence_id=name, length=3),
            SampledProvenanceSpan(sequence_id=name, length=num_drawn - 1),
        ],
        loss_fn_input_spans=[
            PromptProvenanceSpan(sequence_id=name, offset=1, length=2),
            SampledProvenanceSpan(sequence_id=name, length=num_drawn),
        ],
    )


async def test_recorded_samples_are_trained_on_with_the_logprobs_of_their_sampling(
    client: EngineClient,
) -> None:
    model_id = await client.create_model()
    datum = await sampled(client, await client.sampler(), recorded=True)
    results = []
    for seq_id, (loss_fn, config) in enumerate(
        [("stable_reinforce", {}), ("cispo", {"clip_high_threshold": 2.0})], start=1
    ):
        request = ForwardBackwardRequest(model_id, [datum], loss_fn, seq_id, config)
        promise = (await post(client, request)).json()
        results.append(await output(client, promise))
    ours, cispo = (result.metrics for result in results)
    assert ours["loss:sum"] == pytest.approx(cispo["loss:sum"], rel=1e-5)
    assert ours["ratio:mean"] == pytest.approx(1.0, abs=1e-3)
    assert ours["surrogate_stable_reinforce:max"] == 1.0


async def test_samples_that_were_not_recorded_here_are_refused(client: EngineClient) -> None:
    model_id = await client.create_model()
    plain = await sampled(client, await client.sampler(), recorded=False)
    recorded = await sampled(client, await client.sampler(), recorded=True)
    other = EngineClient(client.http)
    cases = ((model_id, plain), (await other.create_model(), recorded))
    for asker, datum in cases:
        response = await post(client, ForwardBackwardRequest(asker, [datum], "stable_reinforce", 1))
        assert response.status_code == 400
        assert "is not recorded in this session" in response.json()["detail"]


async def test_strict_engines_refuse_surrogates(running: Running) -> None:
    running.settings = HostSettings(strict_losses=True)
    client = await running.start()
    model_id = await client.create_model()
    datum = await sampled(client, await client.sampler(), recorded=True)
    response = await post(client, ForwardBackwardRequest(model_id, [datum], "stable_reinforce", 1))
    assert response.status_code == 400
    assert "--strict-losses" in response.json()["detail"]
    inputs = {**datum.loss_fn_inputs, "sequence_ratio_mask": [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]}
    plain = Datum(datum.model_input, inputs)
    promise = (await post(client, ForwardBackwardRequest(model_id, [plain], "gspo", 2))).json()
    assert "loss:sum" in (await output(client, promise)).metrics


def custom_loss(session_id: str, number: int, **target: str) -> dict[str, Any]:
    """Make the request for a loss of -(l * advantages).sum()."""

    def node(op: str, name: str, what: str, *args: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"op": op, "name": name, "target": what, "args": list(args), "kwargs": {}}

    result = {"tuple": [{"ref": "neg"}, {"dict": {"custom/neg:mean": {"ref": "neg"}}}]}
    nodes = [
        node("placeholder", "logprobs", "logprobs"),
        node("placeholder", "advantages", "advantages"),
        node("call_function", "mul", "operator.mul", {"ref": "logprobs"}, {"ref": "advantages"}),
        node("call_method", "sum_1", "sum", {"ref": "mul"}),
        node("call_function", "neg", target.get("target", "operator.neg"), {"ref": "sum_1"}),
        node("output", "output", "output", result),
    ]
    return {
        "session_id": session_id,
        "custom_loss_seq_id": number,
        "name": "weighted",
        "inputs": [{"name": "logprobs", "rank": 1}, {"name": "advantages", "rank": 1}],
        "graph": {"format": 1, "nodes": nodes},
        "type": "create_custom_loss",
    }


async def test_a_custom_loss_runs_on_the_engine_also_after_a_restart(running: Running) -> None:
    client = await running.start()
    await client.open_session()
    made = await client.post("create_custom_loss", custom_loss(client.session_id, 0))
    loss_id = (await client.result(made))["loss_id"]
    datum = await sampled(client, await client.sampler(), recorded=False)
    weighted = Datum(
        datum.model_input,
        {
            "target_tokens": datum.loss_fn_inputs["target_tokens"],
            "weights": datum.loss_fn_inputs["advantages"],
        },
    )
    session_id = client.session_id
    for number in range(2):
        body = {
            "session_id": session_id,
            "model_seq_id": number,
            "base_model": MODEL,
            "lora_config": {"rank": 4, "seed": 1},
        }
        model_id = (await client.result(await client.post("create_model", body)))["model_id"]
        requests = [
            ForwardBackwardRequest(model_id, [datum], "custom", 1, {"loss_id": loss_id}),
            ForwardBackwardRequest(model_id, [weighted], "cross_entropy", 2),
        ]
        promises = [(await post(client, request)).json() for request in requests]
        custom, named = [(await output(client, promise)).metrics for promise in promises]
        assert custom["loss:sum"] == pytest.approx(named["loss:sum"])
        assert custom["custom/neg:mean"] == pytest.approx(named["loss:sum"])
        client = await running.restart()


async def test_a_custom_loss_is_checked_when_it_is_made_and_belongs_to_its_session(
    client: EngineClient,
) -> None:
    await client.open_session()
    wrong = custom_loss(client.session_id, 0, target="os.system")
    told = (await client.post("create_custom_loss", wrong, status=400))["detail"]
    assert "graph.nodes[4] calls function 'os.system'" in told
    made = await client.post("create_custom_loss", custom_loss(client.session_id, 1))
    loss_id = (await client.result(made))["loss_id"]
    model_id = await EngineClient(client.http).create_model()
    datum = Datum(ModelInput.from_ints([5]), {"target_tokens": [6], "advantages": [1.0]})
    request = ForwardBackwardRequest(model_id, [datum], "custom", 1, {"loss_id": loss_id})
    response = await post(client, request)
    assert response.status_code == 404
    assert loss_id in response.json()["detail"]
