"""Record what the upstream SDK sends, and what it makes of our results.

Run in an environment that has upstream and nothing of ours, once per generation::

    python3.11 -m venv /tmp/upstream && /tmp/upstream/bin/pip install tinker==0.38.0
    /tmp/upstream/bin/python tests/contract/record_golden.py

It drives upstream's public clients against a server on the loopback interface that answers with
fixed values and with the results in ``golden/ours.json`` (see ``our_results.py``), and writes
``golden/upstream-<version>.json``: the requests (method, path, content type, accepted type, body;
no other headers), how upstream read our results, and the descriptor of its protobuf schema.
"""

from __future__ import annotations

import base64
import importlib
import importlib.metadata
import json
import os
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
KEY = "tml-golden"
FIRST_PROTOBUF_ONLY = 25
"""The minor version from which training batches are sent as protobuf only."""
IGNORED = {"/api/v1/session_heartbeat", "/api/v1/telemetry"}
PROTOBUF = "application/x-protobuf"
STATE = "tinker://S1:train:0/weights/a"
FIXED: dict[str, Any] = {
    "get_server_capabilities": {"supported_models": [{"model_name": "base"}]},
    "create_session": {"session_id": "S1"},
    "session_heartbeat": {},
    "telemetry": {"status": "accepted"},
    "client/config": {"parallel_fwdbwd_chunks": False},
    "client/dynamic_config": {},
    "create_sampling_session": {"sampling_session_id": "S1:sample:1"},
    "get_info": {"model_id": "S1:train:0", "model_data": {"model_name": "base"}},
    "weights_info": {"base_model": "base", "is_lora": True, "lora_rank": 8},
    "samplers/S1:sample:1": {"sampler_id": "S1:sample:1", "base_model": "base"},
}


class Service(ThreadingHTTPServer):
    """Keeps the requests, and promises everything."""

    daemon_threads = True

    def __init__(self, ours: dict[str, dict[str, str]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ours = ours
        self.requests: list[dict[str, str]] = []
        self.promised: list[tuple[str, bytes]] = []
        self.lock = threading.Lock()

    def promise(self, path: str, content: bytes) -> dict[str, Any]:
        """Keep an operation for its poll."""
        with self.lock:
            self.promised.append((path.rsplit("/", 1)[1], content))
            number = len(self.promised) - 1
        ids = [f"q-{number}/{index}" for index in range(len(self._sequences()))]
        return {"request_id": str(number), "sample_sequence_ids": ids}

    def result(self, number: int, *, protobuf: bool) -> tuple[str, bytes]:
        """Give the content type and the content of a result."""
        operation, content = self.promised[number]
        kind = {"asample": "Sample", "forward": "ForwardBackward"}.get(operation)
        kind = "ForwardBackward" if operation == "forward_backward" else kind
        if kind is None:
            return "application/json", json.dumps(_json_result(operation, content)).encode()
        if protobuf:
            return PROTOBUF, base64.b64decode(self.ours["protobuf"][kind])
        return "application/json", self.ours["json"][kind].encode()

    def _sequences(self) -> list[Any]:
        sequences: list[Any] = json.loads(self.ours["json"]["Sample"])["sequences"]
        return sequences


def _json_result(operation: str, content: bytes) -> dict[str, Any]:
    body = json.loads(content)
    if operation == "create_model":
        return {"model_id": f"S1:train:{body['model_seq_id']}"}
    if operation == "save_weights_for_sampler":
        if body.get("path") is None:
            return {"sampling_session_id": "S1:sample:0"}
        return {"path": f"tinker://S1:train:0/sampler_weights/{body['path']}"}
    if operation in {"save_weights", "load_weights"}:
        return {"path": STATE}
    return {"metrics": {"grad_norm:max": 0.5}}


class Handler(BaseHTTPRequestHandler):
    """Answers at once."""

    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self._record(path, content)
        name = path.removeprefix("/api/v1/")
        content_type, answer = "application/json", b""
        if name == "retrieve_future":
            number = int(json.loads(content)["request_id"])
            protobuf = PROTOBUF in (self.headers.get("Accept") or "")
            content_type, answer = self.server.result(number, protobuf=protobuf)
        elif name in FIXED or name.endswith("/finish"):
            answer = json.dumps(FIXED.get(name, {})).encode()
        else:
            answer = json.dumps(self.server.promise(path, content)).encode()
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _record(self, path: str, content: bytes) -> None:
        if path in IGNORED:
            return
        content_type = self.headers.get("Content-Type") or ""
        request = {"method": self.command, "path": self.path, "content_type": content_type}
        request["accept"] = self.headers.get("Accept") or ""
        if content_type == PROTOBUF:
            request["base64"] = base64.b64encode(content).decode()
        else:
            request["text"] = content.decode()
        with self.server.lock:
            self.server.requests.append(request)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""


def _ready(value: Any) -> Any:  # noqa: ANN401 - a client, or the newer generation's future of one
    return value.result() if hasattr(value, "result") else value


def _batch(types: Any, *, newer: bool) -> list[Any]:  # noqa: ANN401
    """Text with a dense tensor of each dtype, an image; newer: CSR, and audio with provenance."""
    tensor = types.TensorData
    text = types.Datum(
        model_input=types.ModelInput.from_ints([1, 2, 3]),
        loss_fn_inputs={
            "target_tokens": tensor(data=[2, 3, 4], dtype="int64", shape=[3]),
            "weights": tensor(data=[1.0, 0.5, 0.0], dtype="float32", shape=[3]),
        },
    )
    image = types.ImageChunk(data=b"\x89PNG", format="png", expected_tokens=2)
    chunks = [image, types.EncodedTextChunk(tokens=[7])]
    inputs = {}
    if newer:
        sparse = {"sparse_crow_indices": [0, 1, 1], "sparse_col_indices": [2]}
        inputs["weights"] = tensor(data=[0.25], dtype="float32", shape=[2, 3], **sparse)
    mixed = types.Datum(model_input=types.ModelInput(chunks=chunks), loss_fn_inputs=inputs)
    return [text, mixed, _traced(types)] if newer else [text, mixed]


def _traced(types: Any) -> Any:  # noqa: ANN401
    """Text and three tokens of audio that say where they come from."""
    chunks = [types.EncodedTextChunk(tokens=[1, 2]), types.DmelChunk(dmel=b"\x02\x01\x03")]
    datum = types.Datum(
        model_input=types.ModelInput(chunks=chunks), loss_fn_inputs={"target_tokens": [5, 6]}
    )
    seen = types.PromptProvenanceSpan(sequence_id="q/0", length=2)
    drawn = types.SampledProvenanceSpan(sequence_id="q/1", offset=4, length=3)
    target = types.SampledProvenanceSpan(sequence_id="q/1", offset=5, length=2)
    return datum.with_provenance([seen, drawn], [target])


def _train(training: Any, types: Any, *, newer: bool) -> Any:  # noqa: ANN401
    """Call every training operation; return how upstream read our result."""
    batch = _batch(types, newer=newer)
    read = training.forward_backward(batch, "cross_entropy").result()
    config = {"clip_low_threshold": 0.75, "clip_high_threshold": 1.25}
    training.forward_backward(batch, "ppo", loss_fn_config=config).result()
    training.forward(batch[:1], "cross_entropy").result()
    training.optim_step(types.AdamParams(learning_rate=0.5)).result()
    training.optim_step(types.AdamParams()).result()
    training.save_state("a").result()
    training.load_state(STATE).result()
    training.load_state_with_optimizer(STATE).result()
    training.save_weights_for_sampler("b").result()
    return read


def _sample(sampler: Any, types: Any, *, newer: bool) -> Any:  # noqa: ANN401
    """Sample twice, newer: once more with all there is; return how upstream read our result."""
    prompt = types.ModelInput.from_ints([5, 6, 7])
    params = types.SamplingParams(max_tokens=4, seed=9, stop=[1, 2], temperature=0.5)
    read = sampler.sample(
        prompt,
        num_samples=2,
        sampling_params=params,
        include_prompt_logprobs=True,
        topk_prompt_logprobs=2,
    ).result()
    image = types.ImageAssetPointerChunk(location="s3://image", format="jpeg", expected_tokens=3)
    mixed = types.ModelInput(chunks=[image, types.EncodedTextChunk(tokens=[5])])
    text_stop = types.SamplingParams(stop="\n")
    sampler.sample(mixed, num_samples=2, sampling_params=text_stop).result()
    if newer:
        targets = {"sparse_crow_indices": [0, 1, 1], "sparse_col_indices": [2]}
        sampler.sample(
            prompt,
            num_samples=2,
            sampling_params=types.SamplingParams(),
            include_prompt_logprobs=True,
            topk_sample_logprobs=2,
            target_prompt_logprobs=types.TensorData([9], "int64", [2, 3], **targets),
            prompt_alt_tokens_k=2,
            prompt_logprobs_last_n=2,
        ).result()
    return read


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Turn upstream's result types into JSON."""
    if hasattr(value, "sequences"):
        return {
            "sequences": [
                {"stop_reason": item.stop_reason, "tokens": item.tokens, "logprobs": item.logprobs}
                for item in value.sequences
            ],
            "prompt_logprobs": value.prompt_logprobs,
            "topk_prompt_logprobs": value.topk_prompt_logprobs,
            **_newer_plain(value),
        }
    return {
        "loss_fn_output_type": value.loss_fn_output_type,
        "loss_fn_outputs": [
            {
                key: {"data": tensor.data, "dtype": tensor.dtype, "shape": tensor.shape}
                for key, tensor in item.items()
            }
            for item in value.loss_fn_outputs
        ],
        "metrics": value.metrics,
    }


def _newer_plain(value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Turn what only the newer generation's samples have into JSON."""
    if not hasattr(value, "prompt_alt_tokens"):
        return {}
    targets, alternatives = value.target_prompt_logprobs, value.prompt_alt_tokens
    return {
        "topk_logprobs": [item.topk_logprobs for item in value.sequences],
        "prompt_cache_hit_tokens": value.prompt_cache_hit_tokens,
        "target_prompt_logprobs": targets.tolist(),
        "target_columns": targets.sparse_col_indices,
        "prompt_alt_tokens": alternatives.tokens.tolist(),
        "prompt_alt_logprobs": alternatives.logprobs.tolist(),
    }


def _drive(tinker: Any, url: str, *, newer: bool) -> dict[str, Any]:  # noqa: ANN401
    """Use every call that we cover."""
    service = tinker.ServiceClient(base_url=url, api_key=KEY, user_metadata={"team": "rl"})
    service.get_server_capabilities()
    training = _ready(
        service.create_lora_training_client(base_model="base", rank=8, seed=3, train_unembed=False)
    )
    trained = _train(training, tinker.types, newer=newer)
    sampler = _ready(training.save_weights_and_get_sampling_client())
    sampled = _sample(sampler, tinker.types, newer=newer)
    sampler.compute_logprobs(tinker.types.ModelInput.from_ints([5, 6, 7])).result()
    _ready(service.create_sampling_client(base_model="base"))
    _ready(service.create_sampling_client(model_path="tinker://S1:train:0/sampler_weights/b"))
    _ready(service.create_training_client_from_state(STATE))
    _ready(service.create_training_client_from_state_with_optimizer(STATE))
    if newer:
        service.close("success", detail="recorded").result()
    return {"ForwardBackward": _plain(trained), "Sample": _plain(sampled)}


def _descriptor() -> str | None:
    try:
        module = importlib.import_module("tinker.proto.tinker_public_pb2")
    except ImportError:
        return None
    return base64.b64encode(module.DESCRIPTOR.serialized_pb).decode()


def main() -> None:
    """Record the installed generation."""
    os.environ |= {"TINKER_API_KEY": KEY, "TINKER_TELEMETRY": "0"}
    os.environ.pop("TINKER_TAGS", None)
    warnings.simplefilter("ignore")
    version = importlib.metadata.version("tinker")
    newer = int(version.split(".")[1]) >= FIRST_PROTOBUF_ONLY
    tinker = importlib.import_module("tinker")
    server = Service(json.loads((GOLDEN / "ours.json").read_text()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    read = _drive(tinker, f"http://127.0.0.1:{server.server_address[1]}", newer=newer)
    recorded = {
        "version": version,
        "descriptor": _descriptor(),
        "read": read,
        "requests": server.requests,
    }
    path = GOLDEN / f"upstream-{version}.json"
    path.write_text(json.dumps(recorded, indent=1) + "\n")
    sys.stdout.write(f"wrote {len(server.requests)} requests to {path}\n")
    sys.stdout.flush()
    os._exit(0)  # upstream's older generation never ends by itself


if __name__ == "__main__":
    main()
