"""Requests that are wrong: refused at once, by name, with nothing done."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.fakes.engine import CONTEXT_LENGTH, MODEL, VOCAB_SIZE, EngineClient, batch, sample_body
from tinker_ray.types import Datum, ModelInput, TensorData
from tinker_ray.wire import codec
from tinker_ray.wire.request import ForwardBackwardRequest

PROTO = {"Content-Type": codec.PROTOBUF}


def with_input(**inputs: object) -> dict[str, Any]:
    made = batch(4)
    for key, value in inputs.items():
        if value is None:
            del made["data"][0]["loss_fn_inputs"][key]
        else:
            made["data"][0]["loss_fn_inputs"][key] = value
    return made


def floats(data: list[float], shape: list[int] | None = None) -> dict[str, Any]:
    return {"data": data, "dtype": "float32", "shape": shape or [len(data)]}


def ints(data: list[int]) -> dict[str, Any]:
    return {"data": data, "dtype": "int64", "shape": [len(data)]}


def with_chunks(*chunks: dict[str, Any]) -> dict[str, Any]:
    made = batch(4)
    made["data"][0]["model_input"] = {"chunks": list(chunks)}
    return made


IMAGE = {"data": "iVBORw==", "format": "png", "expected_tokens": 4}

WRONG_BATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "token out of range": (with_chunks({"tokens": [1, 2, 3, VOCAB_SIZE]}), "model_input"),
    "negative token": (with_chunks({"tokens": [1, 2, 3, -1]}), "model_input"),
    "target out of range": (with_input(target_tokens=ints([1, 2, 3, 5000])), "target_tokens"),
    "too long": (batch(CONTEXT_LENGTH + 1), "model_input"),
    "image": (with_chunks(IMAGE), "chunks[0]"),
    "no tokens": (with_chunks(), "model_input"),
    "no data": (batch(data=[]), "data"),
    "missing input": (with_input(weights=None), "weights"),
    "short input": (with_input(weights=floats([1.0, 1.0])), "weights"),
    "wrong shape": (with_input(weights=floats([1.0] * 4, [2, 2])), "weights"),
    "shape does not hold the values": (with_input(weights=floats([1.0], [4])), "weights"),
    "integer weights": (with_input(weights=ints([1, 1, 1, 1])), "weights"),
    "float targets": (with_input(target_tokens=floats([1.0] * 4)), "target_tokens"),
    "unknown dtype": (with_input(weights={"data": [1.0], "dtype": "f16"}), "dtype"),
    "unknown loss": (batch(4, loss_fn="mse"), "loss_fn"),
    "custom without a loss": (batch(4, loss_fn="custom"), "loss_fn_config"),
    "custom with an unknown loss": (
        batch(4, loss_fn="custom", loss_fn_config={"loss_id": "x"}),
        "loss_id",
    ),
    "no provenance": (
        {
            **with_input(advantages=floats([1.0] * 4)),
            "loss_fn": "stable_reinforce",
        },
        "provenance",
    ),
    "unknown config key": (batch(4, loss_fn_config={"beta": 1.0}), "beta"),
    "config that is no number": (batch(4, loss_fn_config={"beta": "x"}), "beta"),
    "no inputs at all": (batch(data=[{"model_input": {"chunks": [{"tokens": [1]}]}}]), "inputs"),
    "loss missing": (batch(loss_fn=None), "loss_fn"),
}


@pytest.mark.parametrize("name", WRONG_BATCHES)
async def test_a_wrong_batch_is_refused_at_once_and_named(client: EngineClient, name: str) -> None:
    wrong, field = WRONG_BATCHES[name]
    model_id = await client.create_model()
    body = {"forward_backward_input": wrong, "model_id": model_id, "seq_id": 1}
    response = await client.http.post("/api/v1/forward_backward", json=body)
    assert 400 <= response.status_code < 500, response.text
    assert field in response.json()["detail"]
    assert int(response.headers["content-length"]) > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
async def test_numbers_that_are_not_finite_are_refused(client: EngineClient, value: float) -> None:
    model_id = await client.create_model()
    inputs = {
        "target_tokens": TensorData([1, 2], "int64", [2]),
        "weights": TensorData([1.0, value], "float32", [2]),
    }
    request = ForwardBackwardRequest(
        model_id, [Datum(ModelInput.from_ints([1, 2]), inputs)], "cross_entropy", seq_id=1
    )
    content = codec.encode_forward_backward(request, proto=True).content
    response = await client.http.post("/api/v1/forward_backward", content=content, headers=PROTO)
    assert response.status_code == 400
    assert "weights" in response.json()["detail"]


WRONG_SAMPLES: dict[str, tuple[dict[str, Any], str]] = {
    "token out of range": ({"prompt": {"chunks": [{"tokens": [VOCAB_SIZE]}]}}, "prompt"),
    "too long": ({"prompt": {"chunks": [{"tokens": [1] * (CONTEXT_LENGTH + 1)}]}}, "prompt"),
    "empty": ({"prompt": {"chunks": []}}, "prompt"),
    "missing prompt": ({"prompt": None}, "prompt"),
    "image": ({"prompt": {"chunks": [IMAGE]}}, "prompt.chunks[0]"),
    "no samples": ({"num_samples": 0}, "num_samples"),
    "too many samples": ({"num_samples": 10**6}, "num_samples"),
    "negative temperature": ({"sampling_params": {"temperature": -1}}, "temperature"),
    "top_p above 1": ({"sampling_params": {"top_p": 1.5}}, "top_p"),
    "top_p 0": ({"sampling_params": {"top_p": 0}}, "top_p"),
    "huge top_k": ({"sampling_params": {"top_k": 10**400}}, "top_k"),
    "huge max_tokens": ({"sampling_params": {"max_tokens": 2**63}}, "max_tokens"),
    "top_k 0": ({"sampling_params": {"top_k": 0}}, "top_k"),
    "negative max_tokens": ({"sampling_params": {"max_tokens": -1}}, "max_tokens"),
    "max_tokens no number": ({"sampling_params": {"max_tokens": "many"}}, "max_tokens"),
    "unknown stop token": ({"sampling_params": {"stop": [VOCAB_SIZE]}}, "stop[0]"),
    "stop without tokenizer": ({"sampling_params": {"stop": "x"}}, "stop"),
    "empty stop string": ({"sampling_params": {"stop": [""]}}, "stop[0]"),
    "huge seed": ({"sampling_params": {"seed": 2**70}}, "seed"),
    "too many top-k": ({"topk_prompt_logprobs": VOCAB_SIZE + 1}, "topk_prompt_logprobs"),
    "negative top-k": ({"topk_sample_logprobs": -1}, "topk_sample_logprobs"),
    "too many alternatives": ({"prompt_alt_tokens_k": 10**8}, "prompt_alt_tokens_k"),
    "negative alternatives": ({"prompt_alt_tokens_k": -1}, "prompt_alt_tokens_k"),
    "last n without logprobs": ({"prompt_logprobs_last_n": 1}, "prompt_logprobs_last_n"),
    "last n beyond the prompt": (
        {"prompt_logprobs_last_n": 3, "prompt_logprobs": True},
        "prompt_logprobs_last_n",
    ),
    "targets of another length": (
        {"target_prompt_logprobs": {"data": [1], "dtype": "int64", "shape": [1, 1]}},
        "target_prompt_logprobs",
    ),
    "targets that are no tokens": (
        {"target_prompt_logprobs": {"data": [1, VOCAB_SIZE], "dtype": "int64", "shape": [2, 1]}},
        "target_prompt_logprobs",
    ),
    "recording outside of a session": (
        {"sampling_session_id": None, "base_model": MODEL, "record_stability_info": True},
        "record_stability_info",
    ),
    "nothing to sample from": ({"sampling_session_id": None}, "base_model"),
}


@pytest.mark.parametrize("name", WRONG_SAMPLES)
async def test_a_wrong_sample_is_refused_at_once_and_named(client: EngineClient, name: str) -> None:
    changes, field = WRONG_SAMPLES[name]
    body = sample_body(await client.sampler(), **changes)
    response = await client.http.post("/api/v1/asample", json=body)
    assert 400 <= response.status_code < 500, response.text
    assert field in response.json()["detail"]


WRONG_REQUESTS: list[tuple[str, dict[str, Any], int, str]] = [
    ("create_model", {"base_model": "no/such"}, 400, "base_model"),
    ("create_model", {"lora_config": {"rank": 0}}, 422, "rank"),
    ("create_model", {"lora_config": {"rank": 10**6}}, 422, "rank"),
    ("create_model", {"lora_config": None}, 422, "lora_config"),
    ("create_model", {"session_id": "x"}, 404, "session_id"),
    ("create_model", {"optimizer_config": {"type": "dimuon"}}, 422, "optimizer_config"),
    ("create_model", {"optimizer_config": {"type": "sgd"}}, 422, "optimizer_config"),
    (
        "optim_step",
        {"model_id": "x", "optimizer_params": {"type": "dimuon", "learning_rate": 1.0}},
        422,
        "optimizer_params.type",
    ),
    (
        "create_model",
        {
            "lora_config": {
                "rank": 4,
                "train_attn": False,
                "train_mlp": False,
                "train_unembed": False,
            }
        },
        400,
        "lora_config",
    ),
    ("create_sampling_session", {"base_model": "no/such"}, 400, "base_model"),
    ("create_sampling_session", {"model_path": "tinker://x/weights/y"}, 404, "model_path"),
    ("create_sampling_session", {"base_model": None}, 400, "base_model"),
    (
        "asample",
        {"sampling_session_id": "x", "prompt": {"chunks": [{"tokens": [1]}]}},
        404,
        "sampling_session_id",
    ),
    ("get_info", {"model_id": "x"}, 404, "model_id"),
    ("optim_step", {"model_id": "x", "adam_params": {}, "seq_id": 1}, 404, "model_id"),
    ("optim_step", {"adam_params": {}}, 422, "model_id"),
    ("save_weights", {"model_id": "x", "path": "a", "seq_id": 1}, 404, "model_id"),
    (
        "load_weights",
        {"path": "tinker://x/weights/y", "optimizer": True, "model_seq_id": 0},
        404,
        "path",
    ),
    ("weights_info", {"tinker_path": "tinker://x/weights/y"}, 404, "tinker_path"),
    ("retrieve_future", {"request_id": "x"}, 404, "request_id"),
    ("retrieve_future", {}, 422, "request_id"),
]


@pytest.mark.parametrize("path,changes,status_code,field", WRONG_REQUESTS)
async def test_a_wrong_request_is_refused_at_once_and_named(
    client: EngineClient, path: str, changes: dict[str, Any], status_code: int, field: str
) -> None:
    defaults: dict[str, dict[str, Any]] = {
        "create_model": {
            "session_id": await client.open_session(),
            "model_seq_id": 0,
            "base_model": MODEL,
            "lora_config": {"rank": 4},
        },
        "create_sampling_session": {
            "session_id": client.session_id,
            "sampling_session_seq_id": 0,
            "base_model": None if "model_path" in changes else MODEL,
        },
        "load_weights": {"session_id": client.session_id},
    }
    answer = await client.post(path, {**defaults.get(path, {}), **changes}, status=status_code)
    assert field in answer["field"]
    assert field in answer["detail"]


@pytest.mark.parametrize(
    "content,content_type",
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"\xff\xff", "application/json"),
        (b"\xff\xff", codec.PROTOBUF),
        (b"", "application/json"),
    ],
)
@pytest.mark.parametrize("path", ["forward_backward", "asample", "optim_step"])
async def test_bytes_that_are_no_request_are_refused(
    client: EngineClient, path: str, content: bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    response = await client.http.post(f"/api/v1/{path}", content=content, headers=headers)
    assert response.status_code in {400, 422}, response.text
    assert json.loads(response.content)["detail"]
