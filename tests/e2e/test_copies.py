"""Clients passed to Ray tasks: the same session, one order, and no key anywhere."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import ray

import tinker_ray
from tests.fakes.upstream import upstream_python
from tests.fakes.workload import datums, supervised
from tinker_ray import AdamParams, ModelInput, SamplingParams
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinker_ray.types import Datum

PROMPT = ModelInput.from_ints([3, 4, 5])
GREEDY = SamplingParams(max_tokens=4, temperature=0.0, seed=1)
NUM_COPIES = 3
NUM_STEPS = 5


@pytest.fixture
def cluster_service(
    embedded_engine: str, ray_cluster: object
) -> Iterator[tinker_ray.ServiceClient]:
    tinker_ray.init(mode="cluster")
    with tinker_ray.ServiceClient(base_url="embedded") as service:
        yield service
    tinker_ray.shutdown()


def in_worker(function: Any) -> Any:  # noqa: ANN401 - Ray's decorator
    more: dict[str, Any] = {} if isinstance(function, type) else {"max_retries": 0}
    return ray.remote(num_cpus=0.1, **more)(function)


@in_worker
def draw(sampler: tinker_ray.SamplingClient) -> tuple[int, list[int], str]:
    response = sampler.sample(PROMPT, 1, GREEDY).result(60)
    return os.getpid(), response.sequences[0].tokens, sampler.get_base_model()


@in_worker
def train(training: tinker_ray.TrainingClient, data: list[Datum], steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        computed = training.forward_backward(data, "cross_entropy")
        training.optim_step(AdamParams(learning_rate=1e-3)).result(60)
        losses.append(computed.result(60).metrics["loss:sum"])
    return losses


@in_worker
def make(service: tinker_ray.ServiceClient) -> tuple[str, str]:
    training = service.create_lora_training_client(NAME, rank=4)
    sampler = training.save_weights_and_get_sampling_client()
    sampler.sample(PROMPT, 1, GREEDY).result(60)
    return training.model_id, sampler.sampling_session_id


@in_worker
def look(rest: tinker_ray.RestClient, run_id: str) -> str:
    return rest.get_training_run(run_id).result(60).training_run_id


def test_a_sampling_client_draws_in_ray_tasks(cluster_service: tinker_ray.ServiceClient) -> None:
    sampler = cluster_service.create_sampling_client(base_model=NAME)
    here = sampler.sample(PROMPT, 1, GREEDY).result(60).sequences[0].tokens
    answers = ray.get([draw.remote(sampler) for _ in range(NUM_COPIES)], timeout=120)
    assert [(here, NAME)] * NUM_COPIES == [(tokens, model) for _, tokens, model in answers]
    assert os.getpid() not in {pid for pid, _, _ in answers}


def test_several_processes_train_one_model_in_one_order(
    cluster_service: tinker_ray.ServiceClient,
) -> None:
    training = cluster_service.create_lora_training_client(NAME, rank=4, seed=1)
    data = supervised(datums(training.get_tokenizer(), 4, seed=1))
    training.forward_backward(data, "cross_entropy")
    training.optim_step(AdamParams(learning_rate=1e-3)).result(60)
    copies = [train.remote(training, data, NUM_STEPS) for _ in range(NUM_COPIES)]
    mine = [training.forward(data, "cross_entropy") for _ in range(NUM_STEPS)]
    losses = ray.get(copies, timeout=180)
    assert [NUM_STEPS] * NUM_COPIES == [len(own) for own in losses]
    for future in mine:
        future.result(60)
    # Every step of every copy was applied to the one model, which has learned from all of them.
    after = training.forward(data, "cross_entropy").result(60).metrics["loss:sum"]
    assert after < min(min(own) for own in losses)


def test_a_copied_service_client_makes_things_in_the_same_session(
    cluster_service: tinker_ray.ServiceClient,
) -> None:
    mine = cluster_service.create_lora_training_client(NAME, rank=4)
    made = ray.get([make.remote(cluster_service) for _ in range(NUM_COPIES)], timeout=180)
    later = cluster_service.create_lora_training_client(NAME, rank=4)
    session_id = cluster_service.holder.get_session_id()
    models = [mine.model_id, *(model for model, _ in made), later.model_id]
    assert len(models) == len(set(models))
    assert {session_id} == {model.partition(":")[0] for model in models}
    assert NUM_COPIES == len({sampler for _, sampler in made})
    rest = cluster_service.create_rest_client()
    session = rest.get_session(session_id).result(60)
    assert set(models) <= set(session.training_run_ids)
    assert mine.model_id == ray.get(look.remote(rest, mine.model_id), timeout=60)


def test_a_copy_ends_with_its_owner(cluster_service: tinker_ray.ServiceClient) -> None:
    sampler = cluster_service.create_sampling_client(base_model=NAME)
    user: Any = in_worker(User).remote(sampler)
    assert [] == ray.get(user.draw.remote(), timeout=60)
    cluster_service.close()
    [said] = ray.get(user.draw.remote(), timeout=60)
    assert said.startswith(("StaleHandleError", "ActorLostError"))
    ray.kill(user)


class User:
    """Holds a copy for as long as it lives."""

    def __init__(self, sampler: tinker_ray.SamplingClient) -> None:
        self.sampler = sampler

    def draw(self) -> list[str]:
        try:
            self.sampler.sample(PROMPT, 1, GREEDY).result(60)
        except tinker_ray.TinkerError as error:
            return [f"{type(error).__name__}: {error}"]
        return []


# --- without a cluster ----------------------------------------------------------------------------


ELSEWHERE = """
import json, pickle, sys
sampler, rest, service, prompt, params, model = pickle.load(sys.stdin.buffer)
drawn = sampler.sample(prompt, 1, params).result(60).sequences[0].tokens
num_runs = rest.list_training_runs().result(60).cursor.total_count
training = service.create_lora_training_client(model, rank=4)
service.close()
print(json.dumps([drawn, num_runs, training.model_id.partition(":")[0]]))
"""


def test_clients_in_local_mode_work_in_other_processes(
    service: tinker_ray.ServiceClient,
) -> None:
    training = service.create_lora_training_client(NAME, rank=4)
    sampler = training.save_weights_and_get_sampling_client()
    expected = sampler.sample(PROMPT, 1, GREEDY).result(60).sequences[0].tokens
    rest = service.create_rest_client()
    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=pickle.dumps((sampler, rest, service, PROMPT, GREEDY, NAME)),
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    drawn, num_runs, session_id = json.loads(run.stdout)
    own = service.holder.get_session_id()
    assert expected == drawn
    assert num_runs >= 1
    assert own != session_id
    # The other process took part in this session, whose end is still ours to say.
    session = rest.get_session(own).result(60)
    assert sampler.sampling_session_id in session.sampler_ids
    assert expected == sampler.sample(PROMPT, 1, GREEDY).result(60).sequences[0].tokens


UPSTREAM = """
import json, sys
import tinker
from tinker import types
[url, handle, model] = sys.argv[1:]
prompt = types.ModelInput.from_ints([3, 4, 5])
params = types.SamplingParams(max_tokens=4, temperature=0.0, seed=1)
theirs = tinker.SamplingClient.from_sampler_handle(handle, api_key="tml-any")
drawn = theirs.sample(prompt, 1, params).result().sequences[0].tokens
own = tinker.ServiceClient(base_url=url, api_key="tml-any").create_sampling_client(base_model=model)
print(json.dumps([drawn, theirs.get_base_model(), own.get_sampler_handle()]), flush=True)
sys.stdin.read()  # its session lives until the test has used it
"""


def test_a_sampler_handle_goes_to_the_upstream_sdk_and_comes_from_it(
    service: tinker_ray.ServiceClient,
) -> None:
    sampler = service.create_sampling_client(base_model=NAME)
    expected = sampler.sample(PROMPT, 1, GREEDY).result(60).sequences[0].tokens
    url = service.holder.session.settings.base_url
    upstream = subprocess.Popen(
        [upstream_python("0.38.0"), "-c", UPSTREAM, url, sampler.get_sampler_handle(), NAME],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with upstream:
        assert upstream.stdout is not None
        drawn, base_model, handle = json.loads(upstream.stdout.readline())
        assert (expected, NAME) == (drawn, base_model)
        theirs = tinker_ray.SamplingClient.from_sampler_handle(handle, api_key="tml-any")
        assert NAME == theirs.get_base_model()
        assert expected == theirs.sample(PROMPT, 1, GREEDY).result(60).sequences[0].tokens
        upstream.communicate("", timeout=60)
