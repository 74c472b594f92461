"""Trains on batches at a service with one client and says what that cost: a process of its own.

    PYTHON -m tests.bench.train_load BASE_URL --client NAME [--batches N] …

``upstream`` is what ``import tinker`` gives under the interpreter, ``local`` and ``cluster`` are
this package in its two modes, ``bare`` is the two requests of a batch on aiohttp, written by hand:
the floor. A batch is what reinforcement learning sends: the datums are made from a list of tokens
and four numpy arrays each, sent in one call, and the logprobs of the result are read. CPU time is
that of this process, and of all our actors on a cluster; what came before (imports, opening, a
warm-up) does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.bench.sample_load import BASE_MODEL, actor_pids, cpu_seconds
from tests.bench.stub import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VOCABULARY = 150_000
Row = tuple[list[int], dict[str, np.ndarray[Any, Any]]]


def rows(count: int, length: int, seed: int) -> list[Row]:
    """Make what a rollout leaves behind: a prompt, then an answer with its logprobs."""
    random = np.random.default_rng(seed)
    made: list[Row] = []
    for _ in range(count):
        tokens = random.integers(0, VOCABULARY, length + 1)
        mask = (np.arange(length) >= length // 4).astype(np.float32)
        logprobs = -random.exponential(0.5, length).astype(np.float32) * mask
        advantages = np.float32(random.normal()) * mask
        inputs = {"target_tokens": tokens[1:], "logprobs": logprobs}
        inputs |= {"advantages": advantages, "mask": mask}
        made.append((tokens[:-1].tolist(), inputs))
    return made


class Bare:
    """The two requests of a batch and nothing else."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._pb = importlib.import_module("tinker_ray.wire.tinker_public_pb2")
        self._loop = asyncio.new_event_loop()
        self._compress = ask(base_url, "client/config")["proto_compress_fwdbwd"]

    def train(self, batch: Sequence[Row]) -> list[np.ndarray[Any, Any]]:
        """Send one batch and read its logprobs."""
        return self._loop.run_until_complete(self._train(batch))

    async def _train(self, batch: Sequence[Row]) -> list[np.ndarray[Any, Any]]:
        aiohttp = importlib.import_module("aiohttp")
        headers = {"Content-Type": "application/x-protobuf"}
        content = self._encoded(batch)
        if self._compress:
            content = importlib.import_module("zstandard").ZstdCompressor().compress(content)
            headers["Content-Encoding"] = "zstd"
        async with aiohttp.ClientSession(self._base_url) as http:
            path = "/api/v1/forward_backward"
            async with http.post(path, data=content, headers=headers) as answer:
                promise = await answer.json()
            accept = {"Accept": "application/x-protobuf"}
            path = "/api/v1/retrieve_future"
            async with http.post(path, json=promise, headers=accept) as answer:
                output = self._pb.ForwardBackwardOutput.FromString(await answer.read())
        field = output.loss_fn_outputs[0].fields["logprobs"]
        values = np.frombuffer(field.data, "<f4")
        return np.split(values, np.frombuffer(field.offsets, "<i8")[1:-1] // 4)

    def _encoded(self, batch: Sequence[Row]) -> bytes:
        pb = self._pb
        message = pb.ForwardBackwardRequest(
            model_id="m", seq_id=1, loss_fn="importance_sampling", forward_only=False
        )
        for tokens, inputs in batch:
            datum = message.data.add()
            text = datum.model_input.add().encoded_text
            text.tokens = np.asarray(tokens, dtype="<i4").tobytes()
            for key, array in inputs.items():
                tensor = datum.loss_fn_inputs[key]
                tensor.dtype = pb.DTYPE_INT64 if array.dtype == np.int64 else pb.DTYPE_FLOAT32
                tensor.shape.extend(array.shape)
                tensor.dense = array.tobytes()
        content: bytes = message.SerializeToString()
        return content


class Client:
    """A training client of an SDK.

    Args:
        sdk: The module.
        base_url: The service.
    """

    def __init__(self, sdk: Any, base_url: str) -> None:  # noqa: ANN401
        self._sdk = sdk
        self._service = sdk.ServiceClient(base_url=base_url)
        self._client = self._service.create_lora_training_client(base_model=BASE_MODEL, rank=8)

    def train(self, batch: Sequence[Row]) -> list[np.ndarray[Any, Any]]:
        """Send one batch and read its logprobs."""
        tensor = self._sdk.TensorData.from_numpy
        data = [
            self._sdk.Datum(
                model_input=self._sdk.ModelInput.from_ints(tokens),
                loss_fn_inputs={key: tensor(array) for key, array in inputs.items()},
            )
            for tokens, inputs in batch
        ]
        output = self._client.forward_backward(data, "importance_sampling").result()
        return [item["logprobs"].to_numpy() for item in output.loss_fn_outputs]


def _opener(name: str) -> Callable[[str], Any]:
    """Load what a client needs; return what opens one."""
    if name == "bare":
        importlib.import_module("aiohttp")
        return Bare
    os.environ["TINKER_RAY_MODE"] = "cluster" if name == "cluster" else "local"
    sdk = importlib.import_module("tinker" if name == "upstream" else "tinker_ray")
    if name == "cluster":
        sdk.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    return lambda base_url: Client(sdk, base_url)


def measure(
    client: Any,  # noqa: ANN401 - one of several
    base_url: str,
    batches: Sequence[Sequence[Row]],
    *,
    warm_up: int,
    on_cluster: bool,
) -> dict[str, Any]:
    """Train on some batches one after the other, having trained on some that do not count."""
    for batch in batches[:warm_up]:
        client.train(batch)
    ask(base_url, "reset")
    pids = actor_pids() if on_cluster else set()
    own, cpu, start = time.process_time(), cpu_seconds(pids), time.perf_counter()
    for batch in batches[warm_up:]:
        logprobs = client.train(batch)
        assert [len(tokens) for tokens, _ in batch] == [len(array) for array in logprobs]
    seconds, used = time.perf_counter() - start, cpu_seconds(pids) - cpu
    count = len(batches) - warm_up
    return {
        "cpu_ms_per_batch": 1e3 * used / count,
        "cpu_ms_of_the_caller": 1e3 * (time.process_time() - own) / count,
        "s_per_batch": seconds / count,
        "bytes_per_batch": ask(base_url, "stats")["request_bytes"] / count,
        "num_processes": 1 + len(pids),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--datums", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument(
        "--client", choices=("upstream", "local", "cluster", "bare"), default="local"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["TINKER_API_KEY"] = "tml-bench"
    os.environ.setdefault("TINKER_TELEMETRY", "0")
    open_client = _opener(options.client)
    batches = [
        rows(options.datums, options.tokens, seed)
        for seed in range(options.warm_up + options.batches)
    ]
    report = measure(
        open_client(options.base_url),
        options.base_url,
        batches,
        warm_up=options.warm_up,
        on_cluster=options.client == "cluster",
    )
    print(json.dumps(report), flush=True)  # noqa: T201
    if options.client == "cluster":
        importlib.import_module("tinker_ray").shutdown()
    sys.stdout.flush()
    os._exit(0)  # upstream's threads keep the process alive


if __name__ == "__main__":
    main()
