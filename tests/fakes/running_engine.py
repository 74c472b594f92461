"""An engine in this process, over its ASGI app, that can be stopped and started again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.fakes.engine import EngineClient, batch, sample_body
from tinker_ray.engine.host import Host
from tinker_ray.engine.sampling.sampler import Sampler
from tinker_ray.engine.served_model import ServedModel
from tinker_ray.engine.serving.app import create_app
from tinker_ray.engine.settings import HostSettings
from tinker_ray.engine.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tinker_ray.engine.access.api_key import ApiKey
    from tinker_ray.engine.model.base_model import BaseModel


@dataclass
class Running:
    """An engine on a data folder.

    Attributes:
        skew_s: Seconds by which its wall clock is ahead.
    """

    base: BaseModel
    data: Path
    settings: HostSettings = field(default_factory=HostSettings)
    keys: Sequence[ApiKey] = ()
    skew_s: float = 0.0
    _host: Host | None = None
    _clients: list[EngineClient] = field(default_factory=list)

    @property
    def host(self) -> Host:
        """The engine that runs."""
        assert self._host is not None
        return self._host

    @property
    def app(self) -> Callable[..., Any]:
        """Its ASGI app."""
        return create_app(self.host)

    async def start(self) -> EngineClient:
        """Start, and return a client without a key."""
        served = ServedModel(self.base, "/no/tokenizer", Trainer(self.base), Sampler(self.base))
        self._host = Host(
            [served],
            self.data,
            self.settings,
            keys=self.keys,
            now=lambda: time.time() + self.skew_s,
        )
        return self.client()

    def client(self, key: str | None = None) -> EngineClient:
        """Return one more client, which sends a key."""
        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://engine",
            timeout=30,
            headers={} if key is None else {"X-API-Key": key},
        )
        self._clients.append(EngineClient(http))
        return self._clients[-1]

    async def stop(self) -> None:
        """Stop; what was live is lost."""
        for client in self._clients:
            await client.http.aclose()
        self._clients.clear()
        if self._host is not None:
            await self._host.close()
        self._host = None

    async def restart(self) -> EngineClient:
        """Start anew on the same data."""
        await self.stop()
        return await self.start()


async def train(client: EngineClient, model_id: str, seq_id: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Send a batch; return the promise."""
    body = {"forward_backward_input": batch(**changes), "model_id": model_id, "seq_id": seq_id}
    return await client.post("forward_backward", body)


async def step(client: EngineClient, model_id: str, seq_id: int) -> dict[str, Any]:
    """Send an optimizer step; return the promise."""
    body = {"adam_params": {"learning_rate": 0.01}, "model_id": model_id, "seq_id": seq_id}
    return await client.post("optim_step", body)


async def save(
    client: EngineClient,
    model_id: str,
    seq_id: int,
    name: str,
    endpoint: str = "save_weights",
    **more: Any,  # noqa: ANN401
) -> str:
    """Save under a name and wait for it; return the path."""
    body = {"model_id": model_id, "path": name, "seq_id": seq_id, **more}
    path: str = (await client.result(await client.post(endpoint, body)))["path"]
    return path


async def prompt_logprobs(client: EngineClient, sampler_id: str) -> list[float]:
    """Return the logprobs of a prompt, by which versions of weights are told apart."""
    body = sample_body(sampler_id, client.count("sample"), prompt_logprobs=True)
    result = await client.result(await client.post("asample", body))
    logprobs: list[float] = result["prompt_logprobs"][1:]
    return logprobs


async def ephemeral(client: EngineClient, model_id: str, seq_id: int, **more: Any) -> str:  # noqa: ANN401
    """Save for a sampling session of its own; return its id."""
    body = {
        "model_id": model_id,
        "seq_id": seq_id,
        "sampling_session_seq_id": client.count("sampler"),
        **more,
    }
    saved = await client.result(await client.post("save_weights_for_sampler", body))
    assert saved.get("path") is None
    sampler_id: str = saved["sampling_session_id"]
    return sampler_id
