"""The public clients and an engine in one process: everything between them but the sockets.

The engine lives on the bridge's event loop, where the clients' own work runs, and answers through
its ASGI app.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from tests.fakes.engine import MODEL, write_model
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.service import ServiceClient
from tinker_ray.clients.session import ClientSession
from tinker_ray.config import Secret, Settings
from tinker_ray.core.connection import connect
from tinker_ray.core.runtime import LocalRuntime
from tinker_ray.core.session import SessionCore, create_session
from tinker_ray.engine.host import Host
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.sampling.sampler import Sampler
from tinker_ray.engine.served_model import ServedModel
from tinker_ray.engine.serving.app import create_app
from tinker_ray.engine.settings import HostSettings
from tinker_ray.engine.training.trainer import Trainer
from tinker_ray.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    import torch

    from tinker_ray.transport.auth import Credentials

T = TypeVar("T")


@dataclass
class InProcess:
    """An engine, and service clients of it.

    Attributes:
        flags: What the clients take the engine to want, other than it says.
    """

    base: BaseModel
    folder: Path
    settings: HostSettings = field(default_factory=HostSettings)
    flags: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trainer = Trainer(self.base)
        self._services: list[ServiceClient] = []
        self.host = _on_bridge(self._start())

    def service(self) -> ServiceClient:
        """Make a service client with a session of its own."""

        async def opener(*_: Any) -> LocalRuntime:  # noqa: ANN401 - what a session opens with
            link = await connect(self._client_settings(), transport=self._transport)
            link.adopt(replace(link.flags, **self.flags))
            session_id = await create_session(link, tags=(), user_metadata=None)
            return LocalRuntime(link, SessionCore(link, session_id))

        service = ServiceClient.over(ClientSession(self._client_settings(), None, opener=opener))
        self._services.append(service)
        return service

    def gradient(self, model_id: str) -> torch.Tensor:
        """Return the gradient that has been accumulated in a model, flat."""
        return self.trainer._models[model_id].gradient.clone()

    def close(self) -> None:
        """Close the clients, then the engine."""
        for service in self._services:
            service.close()
        _on_bridge(self._stop())

    async def _start(self) -> Host:
        self._threads = ThreadPoolExecutor()
        asyncio.get_running_loop().set_default_executor(self._threads)
        served = ServedModel(self.base, "/no/tokenizer", self.trainer, Sampler(self.base))
        host = Host([served], self.folder, self.settings)
        self.app = create_app(host)
        return host

    async def _stop(self) -> None:
        await self.host.close()
        # The loop is the process's bridge, which others use after this: it gets fresh threads.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        self._threads.shutdown()

    def _client_settings(self) -> Settings:
        return Settings(api_key=Secret("tml-tests"), base_url="http://engine")

    def _transport(self, settings: Settings, credentials: Credentials) -> HttpTransport:
        return HttpTransport(
            settings.base_url,
            credentials,
            make_client=lambda: httpx.AsyncClient(transport=httpx.ASGITransport(self.app)),
        )


@contextmanager
def in_process(folder: Path, **options: Any) -> Iterator[InProcess]:  # noqa: ANN401
    """Run an engine with a random tiny model, see :class:`InProcess`."""
    engine = InProcess(
        BaseModel.load(MODEL, write_model(folder / "model")), folder / "data", **options
    )
    try:
        yield engine
    finally:
        engine.close()


def _on_bridge(work: Coroutine[Any, Any, T]) -> T:
    return Bridge.get().submit(work).result(30)
