"""A transport for tests that answers from a script; shipped, so that users can use it too."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tinker_ray.transport.message import Response
from tinker_ray.wire.codec import JSON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tinker_ray.transport.message import Request

Answer: TypeAlias = "Response | Exception | Callable[[Request], Response]"
"""What a script says about one attempt."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it was sent, with the headers of its attempt."""

    request: Request
    headers: Mapping[str, str]

    def json(self) -> dict[str, object]:
        """Return the decoded JSON body."""
        body: dict[str, object] = json.loads(self.request.content or b"{}")
        return body


def answer(body: object = None, *, status: int = 200, **headers: str) -> Response:
    """Make a JSON answer; underscores in header names become dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps({} if body is None else body).encode()
    return Response(status, {"content-type": JSON, **named}, content)


@dataclass
class ScriptedTransport:
    """Gives each path's answers in order, the last one for ever; remembers what was sent.

    An answer is a response, an exception to raise, or a function of the request.
    """

    script: dict[str, list[Answer]]
    sent: list[Sent] = field(default_factory=list)
    closed: bool = False

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Answer from the script.

        Raises:
            LookupError: The script says nothing of this path.
        """
        self.sent.append(Sent(request, headers))
        answers = self.script.get(request.path)
        if not answers:
            message = f"the script has no answer for {request.endpoint.method} {request.path}"
            raise LookupError(message)
        item = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(item, Exception):
            raise item
        return item(request) if callable(item) else item

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def paths(self) -> list[str]:
        """Return the paths of all requests, in order."""
        return [sent.request.path for sent in self.sent]
