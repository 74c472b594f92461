"""A chat-completions endpoint on this machine, answered by whoever plays the model.

For agents that bring their own loop and want an address of an OpenAI-compatible service. Knows
nothing of models: a request waits until it is answered. Invariant: no request waits longer than the
endpoint is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

MAX_BODY_BYTES = 64 * 1024**2
MAX_HEAD_BYTES = 64 * 1024
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large"}


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer of the model.

    Attributes:
        content: Its words.
        finish_reason: ``stop``, ``length`` or ``tool_calls``.
        tool_calls: Calls of tools, as the chat API has them.
        prompt_tokens: Of the prompt, for the usage.
        completion_tokens: Of the answer.
    """

    content: str
    finish_reason: str = "stop"
    tool_calls: tuple[dict[str, Any], ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that waits for an answer.

    Attributes:
        messages: The conversation.
        tools: What the model may call.
        answer: Where the answer goes.
    """

    messages: list[dict[str, Any]]
    tools: list[Any] = field(default_factory=list)
    answer: asyncio.Future[Completion] = field(default_factory=asyncio.Future, repr=False)


class RefusedError(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Endpoint:
    """Listens on the loopback interface; its address holds a secret of its own.

    Attributes:
        url: The base URL, with a path that nobody guesses; empty before ``start``.
        requests: The requests, in the order of their arrival.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: asyncio.Queue[ChatRequest] = asyncio.Queue()
        self._prefix = f"/{secrets.token_urlsafe(16)}/v1"
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        """Show what waits, not the address."""
        return f"Endpoint(waiting={self.requests.qsize()})"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, limit=MAX_HEAD_BYTES
        )
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}{self._prefix}"

    async def aclose(self) -> None:
        """Stop listening, and end what is open; idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone, or speaks no HTTP
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False at the end of the connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in _split(lines)}
        method, _, path = request_line.rpartition(" ")[0].partition(" ")
        streams = False
        try:
            body = await _body(reader, headers)
            status, answer, streams = await self._answer(method, path, body)
        except RefusedError as error:
            status, answer = error.status, {"error": {"message": error.message}}
        content = _events(answer) if streams else json.dumps(answer).encode()
        kind = "text/event-stream" if streams else "application/json"
        writer.write(
            f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    async def _answer(
        self, method: str, path: str, body: bytes
    ) -> tuple[int, dict[str, Any], bool]:
        if (method, path) == ("GET", f"{self._prefix}/models"):
            return 200, {"object": "list", "data": [{"id": "policy", "object": "model"}]}, False
        if (method, path) != ("POST", f"{self._prefix}/chat/completions"):
            raise RefusedError(404, f"only chat/completions and models are here, not {path!r}")
        asked = _parsed(body)
        request = ChatRequest(asked["messages"], asked.get("tools") or [])
        await self.requests.put(request)
        completion = await request.answer
        return 200, self._completed(completion, asked), bool(asked.get("stream"))

    def _completed(self, completion: Completion, asked: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": completion.content}
        if completion.tool_calls:
            message["tool_calls"] = list(completion.tool_calls)
        used = completion.prompt_tokens, completion.completion_tokens
        return {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": str(asked.get("model", "policy")),
            "choices": [
                {"index": 0, "message": message, "finish_reason": completion.finish_reason}
            ],
            "usage": {
                "prompt_tokens": used[0],
                "completion_tokens": used[1],
                "total_tokens": sum(used),
            },
        }


def _split(lines: list[str]) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in lines if line]


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    try:
        length = int(headers.get("content-length", "0"))
    except ValueError:
        length = -1
    if length < 0 or "transfer-encoding" in headers:
        raise RefusedError(400, "say the length of the body by content-length")
    if length > MAX_BODY_BYTES:
        raise RefusedError(413, f"a body of {length} bytes is longer than {MAX_BODY_BYTES}")
    return await reader.readexactly(length)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise RefusedError(400, f"the body is no JSON: {error}") from error
    if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
        raise RefusedError(400, "the body needs messages, a list")
    if not asked["messages"]:
        raise RefusedError(400, "messages is empty")
    if asked.get("n") not in {None, 1}:
        raise RefusedError(400, f"n is {asked['n']}: one answer at a time")
    return asked


def _events(answer: dict[str, Any]) -> bytes:
    """Write an answer as a stream of one piece."""
    [choice] = answer["choices"]
    delta = {key: value for key, value in choice["message"].items() if value}
    for index, call in enumerate(delta.get("tool_calls", ())):
        call["index"] = index
    chunk = {**answer, "object": "chat.completion.chunk"}
    chunk["choices"] = [{"index": 0, "delta": delta, "finish_reason": choice["finish_reason"]}]
    return f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
