"""What an engine acknowledged, and whether it still stands by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.fakes.engine import MODEL, EngineClient, batch, sample_body
from tests.fakes.running_engine import prompt_logprobs

if TYPE_CHECKING:
    from random import Random

RANK = 4


@dataclass
class Witness:
    """Remembers every answer that an engine gave.

    Attributes:
        sessions: Session ids.
        results: What promises of training came to, by their ids.
        operations: The promise of each place in a model's order.
        checkpoints: Whether a path is public, and whether it expires; None if it is either,
            because the engine died before it answered.
        deleted: Paths of deleted checkpoints.
        samplers: Logprobs of one prompt, by sampling session.
        models: Model ids.
        num_acknowledged: How many answers that was.
    """

    sessions: set[str] = field(default_factory=set)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: dict[tuple[str, int], str] = field(default_factory=dict)
    checkpoints: dict[str, dict[str, bool | None]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    samplers: dict[str, list[float]] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    num_acknowledged: int = 0

    def note(self) -> None:
        """Count one more answer."""
        self.num_acknowledged += 1


class Worker:
    """Trains, saves and samples in a session of its own until the engine is gone.

    Args:
        url: Where the engine listens.
        witness: Told every answer.
        chance: Decides what to do next.
    """

    def __init__(self, url: str, witness: Witness, chance: Random) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=60)
        self._client = EngineClient(self._http)
        self._witness = witness
        self._chance = chance
        self._seq = 0
        self._model_id = ""
        self._names = 0

    async def run(self) -> None:
        """Work until a request is not answered."""
        try:
            await self._work()
        except httpx.TransportError:
            return
        finally:
            await self._http.aclose()

    async def _work(self) -> None:
        session_id = await self._client.open_session()
        self._witness.sessions.add(session_id)
        self._witness.note()
        self._model_id = await self._client.create_model(RANK)
        self._witness.models.add(self._model_id)
        self._witness.note()
        choices = (
            self._train,
            self._step,
            self._save,
            self._publish,
            self._expire,
            self._delete,
            self._open_sampler,
            self._sample,
        )
        while True:
            await self._chance.choice(choices)()
            self._witness.note()

    async def _operate(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._seq += 1
        seq_id = self._seq
        promise = await self._client.post(
            path, {**body, "model_id": self._model_id, "seq_id": seq_id}
        )
        self._witness.operations[self._model_id, seq_id] = promise["request_id"]
        result = await self._client.result(promise)
        self._witness.results[promise["request_id"]] = result
        assert "error" not in result, result
        return result

    async def _train(self) -> None:
        await self._operate("forward_backward", {"forward_backward_input": batch()})

    async def _step(self) -> None:
        await self._operate("optim_step", {"adam_params": {"learning_rate": 0.01}})

    async def _save(self) -> None:
        self._names += 1
        kind = self._chance.choice(("save_weights", "save_weights_for_sampler"))
        saved = await self._operate(kind, {"path": f"n{self._names}"})
        self._witness.checkpoints[saved["path"]] = {"public": False, "expires": False}

    def _some_checkpoint(self) -> str | None:
        own = [path for path in self._witness.checkpoints if self._model_id in path]
        return self._chance.choice(own) if own else None

    async def _change(self, method: str, path: str, suffix: str, **request: Any) -> None:  # noqa: ANN401
        run, _, checkpoint_id = path.removeprefix("tinker://").partition("/")
        url = f"/api/v1/training_runs/{run}/checkpoints/{checkpoint_id}{suffix}"
        response = await self._http.request(method, url, **request)
        assert response.status_code == 200, response.text

    async def _publish(self) -> None:
        if (path := self._some_checkpoint()) is not None:
            facts = self._witness.checkpoints[path]
            wanted = not facts["public"]
            facts["public"] = None
            await self._change("POST" if wanted else "DELETE", path, "/publish")
            facts["public"] = wanted

    async def _expire(self) -> None:
        if (path := self._some_checkpoint()) is not None:
            facts = self._witness.checkpoints[path]
            wanted = not facts["expires"]
            facts["expires"] = None
            body = {"ttl_seconds": 7200 if wanted else None}
            await self._change("PUT", path, "/ttl", json=body)
            facts["expires"] = wanted

    async def _delete(self) -> None:
        path = self._some_checkpoint()
        if path is not None and self._chance.random() < 0.3:
            del self._witness.checkpoints[path]
            await self._change("DELETE", path, "")
            self._witness.deleted.add(path)

    async def _open_sampler(self) -> None:
        number = self._client.count("sampler")
        saved = await self._operate("save_weights_for_sampler", {"sampling_session_seq_id": number})
        sampler_id: str = saved["sampling_session_id"]
        self._witness.samplers[sampler_id] = await prompt_logprobs(self._client, sampler_id)

    async def _sample(self) -> None:
        own = [name for name in self._witness.samplers if self._client.session_id in name]
        if own:
            body = sample_body(self._chance.choice(own), self._client.count("sample"))
            await self._client.result(await self._client.post("asample", body))


async def check(url: str, witness: Witness) -> None:
    """Ask an engine for everything that it had acknowledged before it was killed."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        client = EngineClient(http)
        for session_id in witness.sessions:
            await client.get(f"sessions/{session_id}")
        await _check_training(client, witness)
        await _check_samplers(client, witness)
        await _check_checkpoints(client, witness)


async def _check_training(client: EngineClient, witness: Witness) -> None:
    for request_id, result in witness.results.items():
        assert await client.result({"request_id": request_id}) == result
    for (model_id, seq_id), request_id in witness.operations.items():
        if request_id not in witness.results:
            told = await client.result({"request_id": request_id})
            assert "error" not in told or "checkpoint" in told["error"], (model_id, seq_id, told)
    for model_id in witness.models:
        run = await client.get(f"training_runs/{model_id}")
        assert run["corrupted"] is True
        body = {"model_id": model_id, "seq_id": 10**6, "adam_params": {}}
        told = await client.post("optim_step", body, status=410)
        assert "from the last checkpoint" in told["detail"]


async def _check_checkpoints(client: EngineClient, witness: Witness) -> None:
    listed: dict[str, dict[str, Any]] = {}
    for model_id in witness.models:
        for item in (await client.get(f"training_runs/{model_id}/checkpoints"))["checkpoints"]:
            listed[item["tinker_path"]] = item
    for path, facts in witness.checkpoints.items():
        item = listed[path]
        assert facts["public"] in {None, item["public"]}, path
        assert facts["expires"] in {None, item["expires_at"] is not None}, path
    assert not witness.deleted & set(listed)
    session_id = await client.open_session()
    witness.sessions.add(session_id)
    training = [path for path in witness.checkpoints if "/weights/" in path]
    for path in training[-3:]:
        body = {
            "path": path,
            "optimizer": True,
            "session_id": session_id,
            "model_seq_id": client.count("model"),
        }
        loaded = await client.result(await client.post("load_weights", body))
        assert loaded["path"] == path
        witness.models.add(loaded["model_id"])
    if not training:
        opened = await client.create_model(RANK)
        witness.models.add(opened)


async def _check_samplers(client: EngineClient, witness: Witness) -> None:
    for sampler_id, logprobs in witness.samplers.items():
        told = await client.get(f"samplers/{sampler_id}")
        assert told["base_model"] == MODEL
        again = EngineClient(client.http)
        again.count("sample", 10**9)
        assert await prompt_logprobs(again, sampler_id) == logprobs
