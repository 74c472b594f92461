"""A Tinker service that remembers what it was asked and computes next to nothing.

:class:`ToyService` holds the rules (numbers are recognised, operations of a model are applied in
order and once); :class:`ToyTransport` asks it in this process, :class:`ToyServer` over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import TYPE_CHECKING, Any, Self

from tinker_ray.transport.message import Response

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from tinker_ray.transport.message import Request

TRAINING = {"forward", "forward_backward", "optim_step", "save_weights", "load_weights"}
HOLD_S = 0.5


@dataclass
class ToyService:
    """The rules.

    Attributes:
        name: What session ids begin with.
        sample_s: How long a sample takes.
        train_s: How long a training operation takes.
        dispatch_s: How long a sampling request takes to be accepted.
        rejections: How many sampling requests to answer with 429 first.
        applied: By model: the operations as they were applied.
        sampled: Sampling requests accepted, by (sampling session, seq_id).
        most_dispatches: The most sampling requests that were being accepted at once.
        beats: Heartbeats.
        finished: Why the session ended.
        data: By model and number: the tokens of each datum of a batch.
    """

    name: str = "toy"
    sample_s: float = 0.0
    train_s: float = 0.0
    dispatch_s: float = 0.0
    rejections: int = 0
    applied: defaultdict[str, list[tuple[int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    sampled: dict[tuple[str, int], int] = field(default_factory=dict)
    most_dispatches: int = 0
    beats: int = 0
    finished: str | None = None
    data: dict[tuple[str, int], list[list[int]]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    _dispatches: int = 0
    _sessions: int = 0
    _known: dict[tuple[str, int], str] = field(default_factory=dict)
    _waiting: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    _results: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def dispatches(self) -> int:
        """Sampling requests that are being accepted."""
        return self._dispatches

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer one request at once, or with ``try_again``."""
        parts = path.removeprefix("/api/v1/").split("/")
        name = parts[0] if parts[0] == "samplers" else parts[-1]
        if name == "asample":
            return self._admit_sample(body)
        with self._lock:
            if name in TRAINING:
                return self._train(name, body)
            rule = getattr(self, f"_{name}", None)
            return rule(body) if rule else (404, {"detail": f"{path} is not known"})

    def _admit_sample(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if self.rejections:
                self.rejections -= 1
                return 429, {"detail": "full"}
            self._dispatches += 1
            self.most_dispatches = max(self.most_dispatches, self._dispatches)
        if self.dispatch_s:
            time.sleep(self.dispatch_s)  # this is the server: slow on purpose
        with self._lock:
            self._dispatches -= 1
            key = (str(body["sampling_session_id"]), int(body["seq_id"]))
            self.sampled[key] = self.sampled.get(key, 0) + 1
            return 200, {"request_id": self._promise(self.sample_s, toy_sample(body))}

    def answer_samples(self) -> None:
        """Have all samples that were accepted so far ready now, however long they would take."""
        with self._lock:
            for promise, (due, result) in self._results.items():
                if "sequences" in result:
                    self._results[promise] = (min(due, time.monotonic()), result)

    def _create_session(self, _: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self._sessions += 1
        return 200, {"session_id": f"{self.name}-{self._sessions}"}

    def _session_heartbeat(self, _: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.beats += 1
        return 200, {}

    def _finish(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.finished = body["reason"]["type"]
        return 200, {}

    def _get_server_capabilities(self, _: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"supported_models": [{"model_name": "toy"}]}

    def _samplers(self, _: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"sampler_id": "s", "base_model": "toy"}

    def _create_model(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["base_model"] != "toy":
            return 400, {"detail": f"unknown base model {body['base_model']}"}
        key = (str(body["session_id"]), int(body["model_seq_id"]))
        if key not in self._known:
            result = {"model_id": f"{key[0]}:train:{key[1]}", "type": "create_model"}
            self._known[key] = self._promise(self.train_s, result)
        return 200, {"request_id": self._known[key]}

    def _create_sampling_session(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        number = body["sampling_session_seq_id"]
        return 200, {"sampling_session_id": f"{body['session_id']}:sample:{number}"}

    def _train(self, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        key = (str(body["model_id"]), int(body["seq_id"]))
        if key not in self._known:
            self._known[key] = f"promise-{len(self._results) + len(self._waiting)}-{key[1]}"
            self._waiting[key] = (self._known[key], name)
            data = body.get("forward_backward_input", {}).get("data", [])
            self.data[key] = [_tokens(datum) for datum in data]
            self._apply_next(key[0])
        return 200, {"request_id": self._known[key]}

    def _apply_next(self, model: str) -> None:
        """Apply whatever is next in the order of a model."""
        while True:
            number = self.applied[model][-1][0] + 1 if self.applied[model] else 1
            if (model, number) not in self._waiting:
                return
            promise, name = self._waiting.pop((model, number))
            self.applied[model].append((number, name))
            metrics = {"applied:sum": float(number)}
            data = self.data[model, number]
            if name == "forward_backward":
                metrics["loss:sum"] = float(sum(map(len, data)))
            result: dict[str, Any] = {"metrics": metrics, "loss_fn_output_type": "Toy"}
            result["loss_fn_outputs"] = [{"logprobs": _ones(len(tokens))} for tokens in data]
            result["path"] = f"tinker://{model}/weights/{number}"
            self._results[promise] = (time.monotonic() + self.train_s, result)

    def _promise(self, delay_s: float, result: dict[str, Any]) -> str:
        promise = f"promise-{len(self._results)}"
        self._results[promise] = (time.monotonic() + delay_s, result)
        return promise

    def _retrieve_future(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        known = self._results.get(body["request_id"])
        if known is None or known[0] > time.monotonic():
            return 200, {"type": "try_again", "request_id": body["request_id"]}
        return 200, known[1]


def _tokens(datum: dict[str, Any]) -> list[int]:
    return [token for chunk in datum["model_input"]["chunks"] for token in chunk["tokens"]]


def _ones(count: int) -> dict[str, Any]:
    return {"data": [-1.0] * count, "dtype": "float32", "shape": [count]}


def toy_sample(body: dict[str, Any]) -> dict[str, Any]:
    """Draw tokens from the seed and the prompt alone."""
    params = body["sampling_params"]
    prompt = [token for chunk in body["prompt"]["chunks"] for token in chunk["tokens"]]
    sequences = []
    for row in range(body.get("num_samples", 1)):
        rng = Random(f"{params.get('seed')}/{prompt}/{row}")
        tokens = [rng.randrange(100) for _ in range(params.get("max_tokens") or 4)]
        sequences.append(
            {"stop_reason": "length", "tokens": tokens, "logprobs": [-1.0] * len(tokens)}
        )
    return {"type": "sample", "sequences": sequences}


@dataclass
class ToyTransport:
    """Asks a service of this process."""

    service: ToyService
    closed: bool = False

    async def attempt(
        self,
        request: Request,
        headers: Mapping[str, str],  # noqa: ARG002 - part of the protocol
    ) -> Response:
        """Answer at once, after letting others run."""
        await asyncio.sleep(0)
        body = json.loads(request.content or b"{}")
        status, answer = self.service.answer(request.path, body)
        return Response(status, {"content-type": "application/json"}, json.dumps(answer).encode())

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True


class ToyServer:
    """Serves a service on the loopback interface, from enter to exit."""

    def __init__(self, service: ToyService) -> None:
        self.service = service
        self._server = _Server(service)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="toy-service", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, service: ToyService) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = service

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that were killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self.server.service.keys.add(self.headers.get("X-API-Key") or "")
        path = self.path.partition("?")[0]
        status, answer = self.server.service.answer(path, body)
        until = time.monotonic() + HOLD_S
        while answer.get("type") == "try_again" and time.monotonic() < until:
            time.sleep(0.01)  # the server's long poll
            status, answer = self.server.service.answer(path, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""
