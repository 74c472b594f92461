"""A base model small enough for tests, and a client that speaks the wire to an engine by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

MODEL = "tests/tiny"
VOCAB_SIZE = 100
CONTEXT_LENGTH = 128


def write_model(directory: Path) -> Path:
    """Write a random Llama without a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_LENGTH,
        eos_token_id=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@dataclass
class EngineClient:
    """Speaks to an engine; every call returns the parsed answer."""

    http: httpx.AsyncClient
    session_id: str = ""
    _counters: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, first: int = 0) -> int:
        """Return the next number of a counter."""
        number = self._counters.get(name, first)
        self._counters[name] = number + 1
        return number

    async def post(self, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
        """Send a JSON body and expect a status."""
        response = await self.http.post(f"/api/v1/{path}", json=body)
        assert response.status_code == status, (response.status_code, response.text)
        parsed: dict[str, Any] = response.json()
        return parsed

    async def get(self, path: str, status: int = 200) -> dict[str, Any]:
        """Get a JSON answer and expect a status."""
        response = await self.http.get(f"/api/v1/{path}")
        assert response.status_code == status, (response.status_code, response.text)
        parsed: dict[str, Any] = response.json()
        return parsed

    async def result(self, promise: dict[str, Any]) -> dict[str, Any]:
        """Wait for what a promise comes to."""
        while True:
            body = {"request_id": promise["request_id"]}
            response = await self.http.post("/api/v1/retrieve_future", json=body)
            if response.status_code != 408:
                assert response.status_code == 200, (response.status_code, response.text)
                parsed: dict[str, Any] = response.json()
                return parsed

    async def open_session(self) -> str:
        """Open a session and keep it."""
        body = {"tags": [], "user_metadata": {}, "sdk_version": "0.6.3"}
        self.session_id = (await self.post("create_session", body))["session_id"]
        return self.session_id

    async def create_model(self, rank: int = 4, **lora: Any) -> str:  # noqa: ANN401
        """Make a model and wait for it."""
        if not self.session_id:
            await self.open_session()
        body = {
            "session_id": self.session_id,
            "model_seq_id": self.count("model"),
            "base_model": MODEL,
            "user_metadata": None,
            "lora_config": {"rank": rank, "seed": 1, **lora},
        }
        model_id: str = (await self.result(await self.post("create_model", body)))["model_id"]
        return model_id

    async def sampler(self, **weights: str) -> str:
        """Open a sampling session, of the base model by default."""
        if not self.session_id:
            await self.open_session()
        body = {
            "session_id": self.session_id,
            "sampling_session_seq_id": self.count("sampler"),
            **(weights or {"base_model": MODEL}),
        }
        sampler_id: str = (await self.post("create_sampling_session", body))["sampling_session_id"]
        return sampler_id


def batch(tokens: int = 8, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Make the JSON of a cross-entropy batch of one datum."""
    datum = {
        "model_input": {"chunks": [{"tokens": list(range(3, 3 + tokens))}]},
        "loss_fn_inputs": {
            "target_tokens": {
                "data": list(range(4, 4 + tokens)),
                "dtype": "int64",
                "shape": [tokens],
            },
            "weights": {"data": [1.0] * tokens, "dtype": "float32", "shape": [tokens]},
        },
    }
    return {"data": [datum], "loss_fn": "cross_entropy", "loss_fn_config": None, **changes}


def sample_body(sampler_id: str, seq_id: int = 0, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Make the JSON of a sampling request."""
    return {
        "sampling_session_id": sampler_id,
        "seq_id": seq_id,
        "num_samples": 1,
        "prompt": {"chunks": [{"tokens": [5, 6, 7]}]},
        "sampling_params": {"max_tokens": 4, "seed": 7, "stop": []},
        **changes,
    }
