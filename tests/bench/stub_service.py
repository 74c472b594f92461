"""A Tinker service that answers like a busy one and computes nothing: a process of its own.

    python -m tests.bench.stub_service [--latency S] [--capacity N] [--accept-latency S] [--wire W]

It admits ``capacity`` samples at a time and refuses more with 429, holds each for ``latency``
seconds, and gives a result of fixed bytes. It counts what it sees, for the benchmarks to read from
``/stats`` and to clear with ``/reset``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn

from tinker_ray.types import ForwardBackwardOutput, SampledSequence, SampleResponse, TensorData
from tinker_ray.wire import codec

LONG_POLL_S = 25.0
MODEL = "stub/model"
_PREFIX = "/api/v1/"


@dataclass(frozen=True)
class Behaviour:
    """How the service behaves.

    Attributes:
        latency_s: From the admission of a sample to its result.
        capacity: Samples at work at once; more are refused. 0 for no limit.
        accept_s: How long admitting one takes.
        wire: ``json`` for an old service, else ``protobuf``.
        flags: Further answers to ``client/config``.
    """

    latency_s: float = 0.2
    capacity: int = 0
    accept_s: float = 0.0
    wire: str = "protobuf"
    flags: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stats:
    """What the service saw since the last reset.

    Attributes:
        admitted: Samples.
        rejected: 429s.
        most_at_work: Most samples at work at once.
        most_dispatches: Most sampling requests that were being answered at once.
        at_work_seconds: Samples at work, integrated over time: divided by the capacity and the
            duration it is the utilisation.
        request_bytes: Bodies of training batches, as sent.
        arrivals: Times of the sampling requests, of the last hundred thousand.
        rejections: Times of the 429s.
        beats: Times of the heartbeats.
    """

    admitted: int = 0
    rejected: int = 0
    most_at_work: int = 0
    most_dispatches: int = 0
    at_work_seconds: float = 0.0
    request_bytes: int = 0
    started_at: float = field(default_factory=time.monotonic)
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))
    rejections: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))
    beats: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Give everything, times as seconds since the reset."""
        shown = dict(vars(self))
        for name in ("arrivals", "rejections", "beats"):
            shown[name] = [round(at - self.started_at, 4) for at in shown[name]]
        return {**shown, "seconds": time.monotonic() - self.started_at}


class StubService:
    """The ASGI application."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.stats = Stats()
        self._numbers = iter(range(sys.maxsize))
        self._due: dict[str, float] = {}
        self._outputs: dict[str, ForwardBackwardOutput | dict[str, Any]] = {}
        self._samples: dict[tuple[int, int, bool], codec.Body] = {}
        self._shape: dict[str, tuple[int, int]] = {}
        self._at_work = 0
        self._dispatches = 0
        self._changed_at = time.monotonic()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's
        """Answer one request."""
        if scope["type"] != "http":
            return
        chunks, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunks.append(message.get("body", b""))
            more = message.get("more_body", False)
        path = scope["path"].rpartition(_PREFIX)[2]
        protobuf = any(
            name == b"accept" and codec.is_protobuf(value.decode())
            for name, value in scope["headers"]
        )
        status, content_type, content = await self._answer(path, b"".join(chunks), protobuf)
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(content)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(
        self,
        path: str,
        content: bytes,
        protobuf: bool,  # noqa: FBT001 - what is accepted
    ) -> tuple[int, str, bytes]:
        if path == "asample":
            return await self._admit(json.loads(content))
        if path == "retrieve_future":
            return await self._retrieve(json.loads(content)["request_id"], protobuf)
        if path in {"forward_backward", "forward"}:
            return self._batch(content)
        return _json(*self._small(path, content))

    # --- samples --------------------------------------------------------------------------------

    async def _admit(self, body: dict[str, Any]) -> tuple[int, str, bytes]:
        stats, behaviour = self.stats, self.behaviour
        self._dispatches += 1
        stats.most_dispatches = max(stats.most_dispatches, self._dispatches)
        stats.arrivals.append(time.monotonic())
        try:
            if behaviour.accept_s:
                await asyncio.sleep(behaviour.accept_s)
            if behaviour.capacity and self._at_work >= behaviour.capacity:
                stats.rejected += 1
                stats.rejections.append(time.monotonic())
                return _json(429, {"detail": "the service is full"})
        finally:
            self._dispatches -= 1
        self._work(+1)
        stats.admitted += 1
        asyncio.get_running_loop().call_later(behaviour.latency_s, self._work, -1)
        request_id = f"r{next(self._numbers)}"
        num_samples = body.get("num_samples") or 1
        max_tokens = (body.get("sampling_params") or {}).get("max_tokens") or 16
        self._due[request_id] = time.monotonic() + behaviour.latency_s
        self._shape[request_id] = (num_samples, max_tokens)
        ids = [f"{request_id}/{number}" for number in range(num_samples)]
        return _json(200, {"request_id": request_id, "sample_sequence_ids": ids})

    def _work(self, change: int) -> None:
        now = time.monotonic()
        self.stats.at_work_seconds += self._at_work * (now - self._changed_at)
        self._changed_at = now
        self._at_work += change
        self.stats.most_at_work = max(self.stats.most_at_work, self._at_work)

    async def _retrieve(
        self,
        request_id: str,
        protobuf: bool,  # noqa: FBT001
    ) -> tuple[int, str, bytes]:
        output = self._outputs.get(request_id)
        if output is not None:
            if isinstance(output, ForwardBackwardOutput):
                body = codec.encode_forward_backward_output(output, proto=protobuf)
                return 200, body.content_type, body.content
            return _json(200, output)
        due = self._due.get(request_id)
        if due is None:
            return _json(410, {"detail": "no such promise"})
        wait_s = due - time.monotonic()
        if wait_s > LONG_POLL_S:
            await asyncio.sleep(LONG_POLL_S)
            waiting = {"type": "try_again", "request_id": request_id, "queue_state": "active"}
            return _json(408, waiting)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        body = self._sample(*self._shape[request_id], protobuf)
        return 200, body.content_type, body.content

    def _sample(
        self,
        num_samples: int,
        max_tokens: int,
        protobuf: bool,  # noqa: FBT001
    ) -> codec.Body:
        known = self._samples.get((num_samples, max_tokens, protobuf))
        if known is None:
            tokens = np.arange(max_tokens, dtype=np.int32) + 100
            logprobs = np.linspace(-3, -0.01, max_tokens, dtype=np.float32)
            sequence = SampledSequence("length", tokens_np=tokens, logprobs_np=logprobs)
            response = SampleResponse(sequences=[sequence] * num_samples)
            known = codec.encode_sample_response(response, proto=protobuf)
            self._samples[num_samples, max_tokens, protobuf] = known
        return known

    # --- training -------------------------------------------------------------------------------

    def _batch(self, content: bytes) -> tuple[int, str, bytes]:
        self.stats.request_bytes += len(content)
        plain = content
        protobuf = content[:1] != b"{"
        if content[:4] == b"\x28\xb5\x2f\xfd":
            import zstandard

            plain, protobuf = zstandard.decompress(content), True
        request = codec.decode_forward_backward(plain, codec.PROTOBUF if protobuf else codec.JSON)
        outputs = [
            {"logprobs": TensorData(np.full(datum.model_input.length, -0.5), "float32")}
            for datum in request.data
        ]
        request_id = f"r{next(self._numbers)}"
        self._outputs[request_id] = ForwardBackwardOutput(
            loss_fn_output_type="ArrayRecord",
            loss_fn_outputs=outputs,
            metrics={"loss:sum": float(len(outputs))},
        )
        return _json(200, {"request_id": request_id})

    def _promise(self, result: dict[str, Any]) -> dict[str, Any]:
        request_id = f"r{next(self._numbers)}"
        self._outputs[request_id] = result
        return {"request_id": request_id}

    # --- the rest -------------------------------------------------------------------------------

    def _small(self, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        name = path.partition("/")[0]
        if name == "stats":
            return 200, self.stats.as_json()
        if name == "reset":
            self.stats = Stats()
            self._outputs.clear()
            return 200, {}
        body = json.loads(content) if content[:1] == b"{" else {}
        if path.startswith("client/") and self.behaviour.wire == "json":
            return 404, {"detail": "not found"}
        if path == "session_heartbeat":
            self.stats.beats.append(time.monotonic())
        return 200, self._known(path, name, body)

    def _known(self, path: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "client/config":
            config = {"parallel_fwdbwd_chunks": False, "proto_compress_fwdbwd": False}
            return {**config, **self.behaviour.flags}
        session = body.get("session_id", "s")
        number = next(self._numbers)
        rules: dict[str, Any] = {
            # Of one length, so that what different clients send can be compared to the byte.
            "create_session": lambda: {"session_id": f"s{os.getpid():07d}{number:07d}"},
            "create_sampling_session": lambda: {
                "sampling_session_id": f"{session}:sample:{number}"
            },
            "join_sampling_session": lambda: {"client_counter": number + 1},
            "samplers": lambda: {"sampler_id": path.partition("/")[2], "base_model": MODEL},
            "telemetry": lambda: {"status": "accepted"},
            "get_server_capabilities": lambda: {"supported_models": [{"model_name": MODEL}]},
            "get_info": lambda: {
                "model_id": body.get("model_id"),
                "model_data": {"model_name": MODEL},
            },
            "create_model": lambda: self._promise(
                {"model_id": f"{session}:train:{body.get('model_seq_id')}"}
            ),
            "optim_step": lambda: self._promise({"metrics": {}}),
            "save_weights_for_sampler": lambda: self._promise(
                {"sampling_session_id": f"x:sample:{number}"}
            ),
        }
        return rules[name]() if name in rules else {}


def _json(status: int, body: dict[str, Any]) -> tuple[int, str, bytes]:
    return status, codec.JSON, json.dumps(body).encode()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--capacity", type=int, default=0)
    parser.add_argument("--accept-latency", type=float, default=0.0)
    parser.add_argument("--wire", choices=("json", "protobuf"), default="protobuf")
    parser.add_argument("--flags", type=json.loads, default={})
    options = parser.parse_args()
    behaviour = Behaviour(
        options.latency, options.capacity, options.accept_latency, options.wire, options.flags
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        StubService(behaviour),
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=120,
    )
    print(f"ready at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
