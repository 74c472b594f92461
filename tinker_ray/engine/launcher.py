"""``base_url="embedded"``: one engine per machine and set of models, which ends with its last user.

Three kernel locks carry it, so that processes may be killed at any moment:

- ``start.lock`` is held exclusively while a user looks for the engine or starts it;
- ``users.lock`` is held shared by each user for as long as it lives; the engine waits for it
  exclusively, and stops when it gets it;
- ``engine.lock`` of the data folder is held by the engine from its first instant (its starter takes
  it and hands it over), so that whoever cannot get it knows that an engine lives.

``engine.json`` says where a ready engine listens. It is written after the engine is ready, and
removed before one starts and before one stops: so a lock without the file is an engine without a
future, and the next user waits for its end.

Knows nothing of what the engine does; imports neither torch nor FastAPI.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Self

from tinker_ray.config import (
    EMBEDDED_API_KEY,
    ENGINE_LOG,
    EngineProcess,
    engine_environment,
)
from tinker_ray.errors import EngineError, EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

STATE_FILE = "engine.json"
_LOG_LINES = 12
_READY = re.compile(r"ready at (http://\S+) .*, process (\d+)$")


class EmbeddedEngine:
    """This process's hold on an engine; also a context manager.

    Attributes:
        url: Where the engine listens.
        process: The engine's process, and the folder of its log and data.
        api_key: A key that clients may send; the engine asks for none.
    """

    def __init__(self, found: _Found, lease: _Lease) -> None:
        self.url = found.url
        self.process = EngineProcess(found.pid, lease.folder)
        self.api_key = EMBEDDED_API_KEY
        self._lease: _Lease | None = lease

    def is_alive(self) -> bool:
        """Tell whether the engine's process still runs."""
        return runs(self.process.pid)

    def close(self) -> None:
        """Let go of the engine, which stops if nobody else holds it. Idempotent."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def embedded(model: str, home: Path) -> EmbeddedEngine:
    """Find the engine for a model on this machine, or start it.

    Args:
        model: ``NAME`` or ``NAME=FOLDER``; several, separated by commas, are served by one engine.
        home: The folder under which engines keep their data, one folder per set of models.

    Raises:
        EngineStartError: The engine did not come up; the message ends with its last output.
    """
    specs = sorted({spec for spec in model.split(",") if spec})
    folder = home.absolute() / "embedded" / _folder_name(specs)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    lease = _Lease.of(folder)
    lease.enter()
    try:
        return EmbeddedEngine(lease.find_or_start(specs), lease)
    except BaseException:
        lease.leave()
        raise


def runs(pid: int) -> bool:
    """Tell whether a process of this machine runs; one that only waits to be noticed does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:  # ended a moment ago, or a system without /proc
        return not Path("/proc/self/stat").exists()
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


def join(process: EngineProcess, url: str) -> EmbeddedEngine:
    """Hold an engine that another process uses, and that runs on this machine.

    Args:
        process: As that process knows it.
        url: Where it listened there.

    Raises:
        EngineError: It has ended, or it is on another machine.
    """
    lease = _Lease.of(process.folder)
    lease.enter()
    try:
        return EmbeddedEngine(lease.find(_Found(url, process.pid)), lease)
    except BaseException:
        lease.leave()
        raise


def _folder_name(specs: list[str]) -> str:
    resolved = []
    for spec in specs:
        name, separator, directory = spec.partition("=")
        resolved.append(f"{name}={Path(directory).expanduser().resolve()}" if separator else name)
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(spec.partition("=")[0] for spec in specs))
    digest = hashlib.sha256(",".join(resolved).encode()).hexdigest()
    return f"{readable.strip('.-')[:64]}-{digest[:8]}"


class _Found(NamedTuple):
    """An engine that is ready."""

    url: str
    pid: int


@dataclass
class _Lease:
    """All holds of this process on one engine: one shared lock, counted."""

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _num_users: int = 0
    _descriptor: int | None = None

    @classmethod
    def of(cls, folder: Path) -> _Lease:
        """Return the lease of a folder, the same one for every thread."""
        with _LEASES_LOCK:
            if folder not in _LEASES:
                _LEASES[folder] = cls(folder)
            return _LEASES[folder]

    def enter(self) -> None:
        """Count one more user."""
        with self._lock:
            self._num_users += 1

    def leave(self) -> None:
        """Count one user less; the last one lets the shared lock go."""
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0:
                self._release()

    def find(self, wanted: _Found) -> _Found:
        """Return a certain engine, which lives at least as long as this lease has users.

        Raises:
            EngineError: It does not live any more.
        """
        if not self.folder.is_dir():
            message = f"the engine at {wanted.url} is on another machine, or its folder was removed"
            raise EngineError(message)
        with self._lock, _held(self.folder / "start.lock"):
            self._hold()
            with _tried(self.folder / "data" / "engine.lock") as lock:
                if lock is None and _recorded(self.folder) == wanted:
                    return wanted
        message = f"the engine at {wanted.url} has ended, and with it the sessions on it"
        raise EngineError(message)

    def find_or_start(self, specs: list[str]) -> _Found:
        """Return the engine, which lives at least as long as this lease has users."""
        with self._lock, _held(self.folder / "start.lock"):
            while True:
                self._hold()
                with _tried(self.folder / "data" / "engine.lock") as lock:
                    if lock is not None:
                        return _start(self.folder, specs, lock)
                found = _recorded(self.folder)
                if found is not None:
                    return found
                self._release()  # an engine without a future: it ends as soon as nobody uses it
                with _held(self.folder / "data" / "engine.lock"):
                    pass

    def _hold(self) -> None:
        if self._descriptor is None:
            descriptor = _open(self.folder / "users.lock")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits while an engine is about to end
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_LEASES: dict[Path, _Lease] = {}
_LEASES_LOCK = threading.Lock()


def _start(folder: Path, specs: list[str], lock: int) -> _Found:
    """Start the engine, wait until it answers, and write down where."""
    state = folder / STATE_FILE
    state.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "tinker_ray.cli", "serve", "--port", "0"]
    command += [f"--model={spec}" for spec in specs]
    command += ["--data", str(folder / "data"), "--lock-fd", str(lock)]
    command += ["--until-unused", str(folder / "users.lock")]
    with (folder / ENGINE_LOG).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(),
            pass_fds=(lock,),
            start_new_session=True,
        )
    # What was started waits for the engine, which is its child: see server.go_on_in_child.
    threading.Thread(target=process.wait, name="embedded-engine", daemon=True).start()
    with contextlib.closing(_stdout(process)) as stdout:
        ready = next((found for line in stdout if (found := _READY.search(line))), None)
    if ready is None:
        lines = (folder / ENGINE_LOG).read_text(errors="replace").splitlines()[-_LOG_LINES:]
        message = "the embedded engine did not start; its last output:\n" + "\n".join(lines)
        raise EngineStartError(message)
    engine = _Found(ready.group(1), int(ready.group(2)))
    scratch = state.with_suffix(".tmp")
    scratch.write_text(json.dumps({"pid": engine.pid, "url": engine.url}))
    scratch.replace(state)
    return engine


def _stdout(process: subprocess.Popen[str]) -> IO[str]:
    if process.stdout is None:
        message = "the engine's output is not a pipe"
        raise EngineStartError(message)
    return process.stdout


def _environment() -> dict[str, str]:
    """The engine's environment, in which it finds the package that this process runs."""
    environment = engine_environment()
    paths = [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def _recorded(folder: Path) -> _Found | None:
    try:
        state = json.loads((folder / STATE_FILE).read_text())
    except FileNotFoundError:
        return None
    return _Found(str(state["url"]), int(state["pid"]))


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, waiting for it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _tried(path: Path) -> Iterator[int | None]:
    """Take an exclusive lock if it is free, and give its file; None if somebody has it."""
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)
