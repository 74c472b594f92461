"""What users rely on when they mix training, sampling, saving and loading on one engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.fakes.workload import datums, draw, prompts, supervised, train
from tinker_ray import AdamParams, ModelInput, SamplingParams, ServiceClient
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from tinker_ray import TrainingClient


def logprobs_of(training: TrainingClient, tokens: list[int]) -> np.ndarray:
    """The trainer's logprobs of tokens 1.. given those before."""
    datum = supervised(datums(training.get_tokenizer(), 1))[0]
    datum = type(datum)(
        ModelInput.from_ints(tokens[:-1]),
        {"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)},
    )
    output = training.forward([datum], "cross_entropy").result(60)
    return output.loss_fn_outputs[0]["logprobs"].to_numpy()


def test_sampler_and_trainer_agree_on_logprobs_after_twenty_steps(service: ServiceClient) -> None:
    training = service.create_lora_training_client(NAME, rank=16, seed=1)
    tokenizer = training.get_tokenizer()
    train(training, [datums(tokenizer, 16, seed=step) for step in range(20)])
    sampler = training.save_weights_and_get_sampling_client()

    differences = []
    for index, prompt in enumerate(prompts(tokenizer, 16)):
        params = SamplingParams(max_tokens=8, seed=index, stop=[])
        sequence = sampler.sample(prompt, 1, params).result(60).sequences[0]
        tokens = [*prompt.to_ints(), *sequence.tokens]
        expected = logprobs_of(training, tokens)[prompt.length - 1 :]
        differences.append(np.abs(np.asarray(sequence.logprobs) - expected).max())
        scored = sampler.compute_logprobs(ModelInput.from_ints(tokens)).result(60)
        differences.append(np.abs(np.asarray(scored[prompt.length :]) - expected).max())

    assert max(differences) <= 1e-3


def test_two_training_clients_at_once_do_not_disturb_each_other(service: ServiceClient) -> None:
    tokenizer = service.create_sampling_client(base_model=NAME).get_tokenizer()
    batches = [datums(tokenizer, 8, seed=step) for step in range(6)]
    labelled = [supervised(batch) for batch in batches]

    def small() -> TrainingClient:
        return service.create_lora_training_client(NAME, rank=4, seed=1)

    def large() -> TrainingClient:
        return service.create_lora_training_client(NAME, rank=32, seed=2)

    alone = (train(small(), batches, "ppo"), train(large(), labelled, "cross_entropy"))
    first, second = small(), large()
    outputs = []
    for batch, labels in zip(batches, labelled, strict=True):
        outputs.append(
            (
                first.forward_backward(batch, "ppo"),
                second.forward_backward(labels, "cross_entropy"),
            )
        )
        first.optim_step(AdamParams(learning_rate=2e-3))
        second.optim_step(AdamParams(learning_rate=2e-3))
    together = [[output.result(60).metrics["loss:sum"] for output in pair] for pair in outputs]

    assert [pair[0] for pair in together] == alone[0]
    assert [pair[1] for pair in together] == alone[1]


@pytest.fixture
def trained(service: ServiceClient) -> TrainingClient:
    """A model after three steps."""
    client = service.create_lora_training_client(NAME, rank=8, seed=3)
    tokenizer = client.get_tokenizer()
    train(client, [datums(tokenizer, 16, seed=step) for step in range(3)])
    return client


def test_a_state_restored_with_its_optimizer_continues_as_if_uninterrupted(
    service: ServiceClient, trained: TrainingClient
) -> None:
    path = trained.save_state("middle").result(60).path
    tokenizer = trained.get_tokenizer()
    batches = [datums(tokenizer, 16, seed=step) for step in range(3, 8)]
    expected = train(trained, batches)

    restored = service.create_training_client_from_state_with_optimizer(path)

    np.testing.assert_allclose(train(restored, batches), expected, rtol=0, atol=1e-5)
    trained.load_state_with_optimizer(path).result(60)
    np.testing.assert_allclose(train(trained, batches), expected, rtol=0, atol=1e-5)


def test_a_state_restored_without_its_optimizer_has_the_weights_and_a_fresh_optimizer(
    service: ServiceClient, trained: TrainingClient
) -> None:
    path = trained.save_state("weights-only").result(60).path
    tokenizer = trained.get_tokenizer()
    batches = [datums(tokenizer, 16, seed=step) for step in range(3, 6)]
    tokens = tokenizer.encode("12+34=46")
    weights = logprobs_of(trained, tokens)
    expected = train(trained, batches)

    restored = service.create_training_client_from_state(path)

    np.testing.assert_array_equal(logprobs_of(restored, tokens), weights)
    losses = train(restored, batches)
    assert losses[0] == pytest.approx(expected[0], abs=1e-5)
    assert losses[2] != pytest.approx(expected[2], abs=1e-4)


def test_a_sampling_client_keeps_its_version_of_the_weights(
    service: ServiceClient, trained: TrainingClient
) -> None:
    tokenizer = trained.get_tokenizer()
    prompt = ModelInput.from_ints(tokenizer.encode("12+34=46"))
    sampler = trained.save_weights_and_get_sampling_client()
    before = sampler.compute_logprobs(prompt).result(60)

    train(trained, [datums(tokenizer, 16, seed=step) for step in range(3, 9)])
    path = trained.save_state("later").result(60).path
    other = service.create_lora_training_client(NAME, rank=8, seed=9)
    train(other, [datums(tokenizer, 16)])
    other.save_weights_for_sampler("other").result(60)
    trained.load_state(path).result(60)

    assert sampler.compute_logprobs(prompt).result(60) == before
    reloaded = trained.save_weights_and_get_sampling_client()
    assert reloaded.compute_logprobs(prompt).result(60) != before


def test_sampling_leaves_the_trained_weights_untouched(
    service: ServiceClient, trained: TrainingClient
) -> None:
    tokenizer = trained.get_tokenizer()
    tokens = tokenizer.encode("12+34=46")
    before = logprobs_of(trained, tokens)
    sampler = trained.save_weights_and_get_sampling_client()

    draw(sampler, prompts(tokenizer, 64))

    np.testing.assert_array_equal(logprobs_of(trained, tokens), before)


def test_training_goes_on_while_samples_are_drawn(trained: TrainingClient) -> None:
    tokenizer = trained.get_tokenizer()
    sampler = trained.save_weights_and_get_sampling_client()
    params = SamplingParams(max_tokens=64, stop=[])
    drawing = [sampler.sample(prompt, 1, params) for prompt in prompts(tokenizer, 64)]

    train(trained, [datums(tokenizer, 4)])
    unfinished = sum(not future.future().done() for future in drawing)

    assert unfinished > 0
    assert all(len(future.result(60).sequences[0].tokens) == 64 for future in drawing)
