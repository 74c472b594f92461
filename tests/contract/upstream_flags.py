"""Run by the wheel of 0.38.0: what its client does when an engine sets every flag; prints JSON.

Usage: ``python upstream_flags.py URL KEY LEDGER``, the last being the engine's own record.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sqlite3
import sys
import time
import warnings
from typing import Any

warnings.simplefilter("ignore")

import tinker  # type: ignore[import-not-found]  # noqa: E402 - upstream's
from tinker import types  # noqa: E402

NUM_DATUMS = 1500
"""More than one part of a batch."""


def datum() -> Any:  # noqa: ANN401
    inputs = {
        "target_tokens": types.TensorData([2, 3, 4, 5], "int64", [4]),
        "weights": types.TensorData([1.0] * 4, "float32", [4]),
    }
    return types.Datum(model_input=types.ModelInput.from_ints([1, 2, 3, 4]), loss_fn_inputs=inputs)


def loss(logprobs: Any, weights: Any) -> Any:  # noqa: ANN401
    total = -(logprobs * weights).sum()
    return total, {"custom/mine:sum": total}


def num_cancelled(ledger: str) -> int:
    """Count the samples that the engine did not finish."""
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM activity WHERE kind = 'sample' AND ok = 0"
        (count,) = connection.execute(query).fetchone()
    return int(count)


def main(url: str, key: str, ledger: str) -> dict[str, Any]:
    """Do a bit of everything that a flag changes."""
    told: dict[str, Any] = {}
    service = tinker.ServiceClient(base_url=url, api_key=key)
    training = service.create_lora_training_client("tinker-ray/tiny-adder", rank=4).result()
    output = training.forward_backward([datum()] * NUM_DATUMS, "cross_entropy").result()
    told["outputs"] = len(output.loss_fn_outputs)
    handle = service.create_custom_loss(loss, {"logprobs": 1, "weights": 1}).result()
    told["loss_id"] = handle.loss_id
    custom = training.forward_backward_custom([datum()], handle).result().metrics
    built_in = training.forward_backward([datum()], "cross_entropy").result().metrics
    told["losses"] = [custom["loss:sum"], built_in["loss:sum"]]
    sampler = training.save_weights_and_get_sampling_client().result()
    prompt = types.ModelInput.from_ints([1, 2, 3])
    params = types.SamplingParams(max_tokens=4)
    samples = [sampler.sample(prompt, 2, params) for _ in range(20)]
    told["samples"] = sum(len(sample.result().sequences) for sample in samples)
    copy = pickle.loads(pickle.dumps(sampler))  # noqa: S301 - our own
    told["copied"] = len(copy.sample(prompt, 1, params).result().sequences)
    endless = types.SamplingParams(max_tokens=200, stop=[])
    while (
        num_cancelled(ledger) == 0
    ):  # one that is given up before its promise is there is not told
        abandoned = sampler.sample(prompt, 256, endless)
        time.sleep(0.2)
        abandoned.future().cancel()
    identity = tinker.RestClient(base_url=url, api_key=key).whoami().result()
    told["identity"] = [identity.user_urn, identity.org_urn]
    told["session_id"] = training.model_id.partition(":")[0]
    service.close("success").result()
    return told


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))  # noqa: T201
