"""Runs an engine in this process until it is told to stop.

One line on standard output says that it answers, and where; everything else goes to standard error,
such as why it stops.
Imports of torch and FastAPI happen in :func:`serve`, after the cheap things that can go wrong.

Invariant: a data folder has one engine, whose process holds a lock on it from first to last.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import gc
import importlib
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tinker_ray.engine import tiny_adder
from tinker_ray.engine.settings import HostSettings
from tinker_ray.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tinker_ray.engine.access.api_key import ApiKey
    from tinker_ray.engine.served_model import ServedModel

_logger = logging.getLogger("tinker_ray.engine")
STATE_FILE = "engine.json"
LOCK_FILE = "engine.lock"
_SWITCH_INTERVAL_S = 0.001
_MAX_EXIT_CODE = 255
_EXPORT_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve, where, and for whom.

    Attributes:
        models: Name and Hugging Face folder of each base model.
        data: The data folder.
        host: Address to listen on.
        port: 0 for any free one.
        keys: What clients have to send; needed on addresses that others can reach.
        settings: How the engine behaves.
        lock: An open file whose lock on the data folder is already held.
    """

    models: Sequence[tuple[str, Path]]
    data: Path
    host: str = "127.0.0.1"
    port: int = 0
    keys: Sequence[ApiKey] = ()
    settings: HostSettings = field(default_factory=HostSettings)
    lock: int | None = None


def parse_models(specs: Sequence[str]) -> list[tuple[str, Path]]:
    """Read ``NAME`` (a model that comes with the package) and ``NAME=DIR`` specifications.

    Raises:
        EngineStartError: A name is unknown or doubled, or a folder is not there.
    """
    models: dict[str, Path] = {}
    for spec in specs:
        name, separator, folder = spec.partition("=")
        if not separator and name != tiny_adder.NAME:
            message = f"unknown model {name!r}: use {tiny_adder.NAME}, or {name}=FOLDER"
            raise EngineStartError(message, category="user")
        directory = Path(folder).expanduser() if separator else tiny_adder.directory()
        if not (directory / "config.json").is_file():
            message = f"{directory} is not a Hugging Face model folder: it has no config.json"
            raise EngineStartError(message, category="user")
        if not name or name in models:
            raise EngineStartError(f"--model {spec!r}: every model needs a name of its own")
        models[name] = directory
    return list(models.items())


def go_on_in_child(lock: int | None) -> None:
    """Go on in a child of this process, which does nothing but wait for the child's end.

    For an engine that other processes share. What ends a process's children, as Ray does when a
    worker ends, finds the waiting process and not the engine; and whoever started the engine, it
    has a parent that takes note of its end. Ctrl-C and hang-ups concern those who use it.

    Args:
        lock: An open file that belongs to the engine alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        return
    for descriptor in {0, 1, 2} | ({lock} if lock is not None else set()):
        os.close(descriptor)
    _, status = os.waitpid(child, 0)
    os._exit(min(abs(os.waitstatus_to_exitcode(status)), _MAX_EXIT_CODE))


def stop_when_unused(lock_file: Path) -> None:
    """Stop this process as soon as nobody holds a shared lock on a file.

    A thread waits in the kernel for the lock; users that are killed let go of it as well. It
    removes the state file first, so that nobody finds an engine that is about to end.
    """

    def wait() -> None:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held until the process has ended
        lock_file.with_name(STATE_FILE).unlink(missing_ok=True)
        _say_stopping("nobody uses it any more")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="users", daemon=True).start()


def _say_stopping(why: str) -> None:
    print(f"tinker-ray engine stops: {why}", file=sys.stderr, flush=True)  # noqa: T201


def serve(options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        EngineStartError: The engine cannot start with these options.
        EngineError: A model or the ledger cannot be loaded.
    """
    if not options.keys and not _is_loopback(options.host):
        message = f"--host {options.host} can be reached by others: give --api-key or --api-keys"
        raise EngineStartError(message, category="user")
    faulthandler.enable()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with _locked(options), contextlib.closing(_listen(options)) as listener:
        from tinker_ray.engine.served_model import ServedModel
        from tinker_ray.telemetry import export

        export.start_export("engine")
        models = [ServedModel.load(name, directory) for name, directory in options.models]
        gc.freeze()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            is_idle = runner.run(_run(options, models, listener))
        export.stop(_EXPORT_TIMEOUT_S)
        if not is_idle:  # a thread is deep in a computation: it ends with the process
            os._exit(0)


async def _run(
    options: ServeOptions, models: Sequence[ServedModel], listener: socket.socket
) -> bool:
    from tinker_ray.engine.host import Host
    from tinker_ray.engine.serving.app import create_app
    from tinker_ray.engine.serving.http_server import HttpServer

    host = Host(models, options.data, options.settings, keys=options.keys)
    for owner in host.admission.revoked_owners:
        _logger.warning("a key of %s was revoked by those who had it: it lets nobody in", owner)

    def say_ready() -> None:
        address, port = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        names = ", ".join(name for name, _ in options.models)
        ready = f"tinker-ray engine ready at http://{shown}:{port} ({names}), process {os.getpid()}"
        print(ready, flush=True)  # noqa: T201

    def stop(signal_name: str) -> None:
        _say_stopping(signal_name)
        host.release()

    is_shared = options.lock is not None  # then Ctrl-C is for those who use it
    signals = [signal.SIGTERM] if is_shared else [signal.SIGTERM, signal.SIGINT]
    server = HttpServer(create_app(host), signals=signals, on_ready=say_ready, on_stop=stop)
    try:
        await server.serve([listener])
    finally:
        is_idle = await host.close()
    return is_idle


@contextlib.contextmanager
def _locked(options: ServeOptions) -> Iterator[None]:
    """Hold the lock on the data folder."""
    options.data.mkdir(parents=True, exist_ok=True)
    descriptor = options.lock
    if descriptor is None:
        descriptor = os.open(options.data / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            message = f"another engine works on {options.data}: choose another folder with --data"
            raise EngineStartError(message, category="user") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _listen(options: ServeOptions) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        message = f"cannot listen on {options.host}: {error.strerror}"
        raise EngineStartError(message, category="user") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        message = f"cannot listen on {options.host} port {options.port}: {error.strerror}"
        raise EngineStartError(message, category="user") from error
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    with contextlib.suppress(ImportError):
        uvloop = importlib.import_module("uvloop")
        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    return None
