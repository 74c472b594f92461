"""Local and cluster mode do the same work to the same results."""

from __future__ import annotations

import numpy as np

import tinker_ray
from tests.fakes.workload import datums, draw, prompts, train
from tinker_ray.engine.tiny_adder import NAME

NUM_REQUESTS = 200
NUM_STEPS = 5


def run_once() -> tuple[list[float], list[list[int]]]:
    """Train five steps, then draw 200 seeded samples."""
    with tinker_ray.ServiceClient(base_url="embedded") as service:
        training = service.create_lora_training_client(NAME, rank=8, seed=7)
        tokenizer = training.get_tokenizer()
        losses = train(training, [datums(tokenizer, 16, seed=step) for step in range(NUM_STEPS)])
        sampler = training.save_weights_and_get_sampling_client()
        return losses, draw(sampler, prompts(tokenizer, NUM_REQUESTS))


def test_local_and_cluster_mode_give_the_same_tokens_and_losses(
    embedded_engine: str, ray_cluster: object
) -> None:
    tinker_ray.init(mode="local")
    local_losses, local_tokens = run_once()
    tinker_ray.init(mode="cluster")
    cluster_losses, cluster_tokens = run_once()
    tinker_ray.shutdown()

    assert local_tokens == cluster_tokens
    np.testing.assert_allclose(cluster_losses, local_losses, rtol=0, atol=1e-5)


def test_a_seeded_request_gives_the_same_tokens_alone_as_among_a_hundred(
    service: tinker_ray.ServiceClient,
) -> None:
    sampler = service.create_sampling_client(base_model=NAME)
    asked = prompts(sampler.get_tokenizer(), 101)
    together = draw(sampler, asked)

    alone = [draw(sampler, [asked[index]], seed=index)[0] for index in range(0, 101, 10)]

    assert together[::10] == alone
