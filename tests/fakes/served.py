"""``tinker-ray serve`` as a process that a test talks to."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

SERVE = [sys.executable, "-m", "tinker_ray.cli", "serve"]
READY = re.compile(r"ready at (http://\S+)")


class Served:
    """A running ``tinker-ray serve``."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*SERVE, "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.stdout: IO[str] = self.process.stdout
        line = self.stdout.readline()
        ready = READY.search(line)
        assert ready is not None, (line, self.errors())
        self.url = ready.group(1)

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def post(self, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own URL
            f"{self.url}/api/v1/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            parsed: dict[str, Any] = json.load(response)
            return parsed

    def result(self, promise: dict[str, Any]) -> dict[str, Any]:
        return self.post("retrieve_future", {"request_id": promise["request_id"]})

    def end(self, number: signal.Signals, timeout_s: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End it at once if it still runs, and read what it said; idempotent."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
