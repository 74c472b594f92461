"""All that a service may ask for at once, in either mode: tokens, one poll, numbers, its losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakes.served import Served
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAGS = (
    "pjwt_auth_enabled",
    "sample_use_retrieve_futures",
    "sample_join_sampling_session",
    "custom_loss_server_side",
    "proto_compress_fwdbwd",
)
NUM = 40
DRIVER = """
import json, pathlib, sys
import tinker_ray
from tests.fakes.workload import datums, supervised
from tinker_ray import AdamParams, ModelInput, SamplingParams

url, mode, model, num = sys.argv[1:]
if mode == "cluster":
    tinker_ray.init(mode=mode, num_cpus=2)
prompt, short = ModelInput.from_ints([3, 4, 5]), SamplingParams(max_tokens=4)

def loss_of(logprobs, weights):
    return -(logprobs * weights).sum(), {"custom/tokens:sum": weights.sum()}

def use(training, sampler, rest, data):
    drawn = [sampler.sample(prompt, 2, short) for _ in range(int(num))]
    return {
        "drawn": sum(len(future.result(60).sequences) for future in drawn),
        "loss": training.forward(data, "cross_entropy").result(60).metrics["loss:sum"],
        "owner": rest.whoami().result(60).user_urn,
    }

with tinker_ray.ServiceClient(base_url=url) as service:
    training = service.create_lora_training_client(model, rank=4, seed=1)
    data = supervised(datums(training.get_tokenizer(), 8, seed=1))
    loss = service.create_custom_loss(loss_of, {"logprobs": 1, "weights": 1}).result(60)
    computed = training.forward_backward_custom(data, loss)
    training.optim_step(AdamParams(learning_rate=1e-3)).result(60)
    sampler = training.save_weights_and_get_sampling_client()
    told = {
        "there": loss.loss_id is not None,
        "tokens": computed.result(60).metrics["custom/tokens:sum"],
        "here": use(training, sampler, service.create_rest_client(), data),
    }
    if mode == "cluster":
        import ray
        elsewhere = ray.remote(num_cpus=0)(use)
        rest = service.create_rest_client()
        told["here"] = ray.get(elsewhere.remote(training, sampler, rest, data), timeout=120)
tinker_ray.shutdown()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    arguments = ["--model", NAME, "--data", str(tmp_path_factory.mktemp("engine"))]
    for flag in FLAGS:
        arguments += ["--flag", f"{flag}=true"]
    with Served(*arguments) as engine:
        yield engine


def results(served: Served, mode: str) -> dict[str, object]:
    run = subprocess.run(
        [sys.executable, "-c", DRIVER, served.url, mode, NAME, str(NUM)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ | {"TINKER_API_KEY": "tml-any"},
    )
    assert 0 == run.returncode, run.stderr[-4000:]
    told: dict[str, object] = json.loads(run.stdout.splitlines()[-1])
    return told


def test_both_modes_do_what_the_service_asks_for(served: Served) -> None:
    local, cluster = results(served, "local"), results(served, "cluster")
    for told in (local, cluster):
        assert told["there"] is True
        assert isinstance(told["here"], dict)
        assert (2 * NUM, "local") == (told["here"]["drawn"], told["here"]["owner"])
    assert local["tokens"] == cluster["tokens"]
    assert pytest.approx(local["here"]) == cluster["here"]
