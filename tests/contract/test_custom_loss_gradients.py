"""A custom loss gives the gradients that the engine's own loss of the same formula gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.fakes.engine import MODEL, VOCAB_SIZE
from tests.fakes.in_process import InProcess, in_process
from tinker_ray import errors
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.loss_handle import open_custom_loss
from tinker_ray.core.operation import SaveState
from tinker_ray.types import AdamParams, Datum, LossFnType, ModelInput, TensorData
from tinker_ray.wire.chunking import ChunkLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinker_ray.clients.service import ServiceClient
    from tinker_ray.clients.training import TrainingClient

Tensors = list[torch.Tensor]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with in_process(tmp_path_factory.mktemp("engine")) as running:
        yield running


def batch(num_targets: int | None = None) -> list[Datum]:
    """Four datums of different lengths; with K targets for each position if asked for."""
    random = np.random.default_rng(0)
    data = []
    for length in (3, 9, 1, 17):
        shape = (length,) if num_targets is None else (length, num_targets)
        data.append(
            Datum(
                ModelInput.from_ints(random.integers(3, VOCAB_SIZE, length).tolist()),
                {
                    "target_tokens": TensorData.from_numpy(random.integers(3, VOCAB_SIZE, shape)),
                    "logprobs": TensorData.from_numpy(random.uniform(-5, -3, shape)),
                    "advantages": TensorData.from_numpy(random.normal(size=shape)),
                    "weights": TensorData.from_numpy(random.uniform(0, 1, shape)),
                },
            )
        )
    return data


def inputs(data: list[Datum], name: str) -> Tensors:
    return [datum.loss_fn_inputs[name].to_torch() for datum in data]


def total(terms: Tensors) -> torch.Tensor:
    return torch.stack([term.sum() for term in terms]).sum()


def cross_entropy(data: list[Datum], logprobs: Tensors) -> Any:  # noqa: ANN401
    terms = zip(logprobs, inputs(data, "weights"), strict=True)
    return total([-logprob * weight for logprob, weight in terms]), {}


def importance_sampling(data: list[Datum], logprobs: Tensors) -> Any:  # noqa: ANN401
    terms = zip(logprobs, inputs(data, "logprobs"), inputs(data, "advantages"), strict=True)
    return total([-(logprob - old).exp() * a for logprob, old, a in terms]), {}


def ppo(data: list[Datum], logprobs: Tensors) -> Any:  # noqa: ANN401
    terms = []
    old_and_advantages = zip(inputs(data, "logprobs"), inputs(data, "advantages"), strict=True)
    for logprob, (old, advantages) in zip(logprobs, old_and_advantages, strict=True):
        ratio = (logprob - old).exp()
        clipped = ratio.clamp(0.8, 1.2)
        terms.append(-torch.minimum(ratio * advantages, clipped * advantages))
    return total(terms), {}


def dro(data: list[Datum], logprobs: Tensors) -> Any:  # noqa: ANN401
    terms = zip(logprobs, inputs(data, "logprobs"), inputs(data, "advantages"), strict=True)
    return total([-(x * a - 0.025 * (x - old) ** 2) for x, old, a in terms]), {}


def by_graph(logprobs: torch.Tensor, logprobs_old: torch.Tensor, advantages: torch.Tensor) -> Any:  # noqa: ANN401
    loss = -((logprobs - logprobs_old).exp() * advantages).sum()
    return loss, {"custom/advantage:mean": advantages.mean()}


LOSSES: dict[LossFnType, Any] = {
    "cross_entropy": cross_entropy,
    "importance_sampling": importance_sampling,
    "ppo": ppo,
    "dro": dro,
}


def trainee(engine: InProcess, service: ServiceClient | None = None) -> TrainingClient:
    """Make a model whose B matrices are not zero, so that every matrix has a gradient."""
    client = (service or engine.service()).create_lora_training_client(MODEL, rank=4, seed=1)
    client.forward_backward(batch(), "cross_entropy")
    client.optim_step(AdamParams(learning_rate=0.01)).result(30)
    return client


def distance(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Relative, over all matrices."""
    return float((found - expected).norm() / expected.norm())


ERAS: dict[str, dict[str, Any]] = {
    "JSON only": {"protobuf": False},
    "protobuf": {},
    "in parts": {"chunks": ChunkLimits(max_datums=3)},
    "in parts, side by side": {
        "chunks": ChunkLimits(max_datums=1),
        "parallel_fwdbwd_chunks": True,
        "proto_compress_fwdbwd": True,
    },
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("num_targets", [None, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_custom_loss_has_the_gradient_of_the_engines_own(
    engine: InProcess, loss: LossFnType, num_targets: int | None, era: str
) -> None:
    engine.flags = ERAS[era]
    data = batch(num_targets)
    own, custom = trainee(engine), trainee(engine)
    expected = own.forward_backward(data, loss).result(30)
    found = custom.forward_backward_custom(data, LOSSES[loss]).result(30)
    assert 1e-5 > distance(engine.gradient(own.model_id), engine.gradient(custom.model_id))
    assert (
        pytest.approx(expected.metrics["loss:sum"], rel=1e-5, abs=1e-5) == found.metrics["loss:sum"]
    )
    assert [item["logprobs"].shape for item in expected.loss_fn_outputs] == [
        item["logprobs"].shape for item in found.loss_fn_outputs
    ]


@pytest.mark.parametrize("runs_at_the_service", [False, True])
def test_a_traced_loss_has_the_gradient_of_the_engines_own(
    engine: InProcess,
    runs_at_the_service: bool,  # noqa: FBT001
) -> None:
    engine.flags = {"custom_loss_server_side": runs_at_the_service}
    data = batch()
    renamed = [
        Datum(
            datum.model_input,
            {**datum.loss_fn_inputs, "logprobs_old": datum.loss_fn_inputs["logprobs"]},
        )
        for datum in data
    ]
    service = engine.service()
    ranks: Any = {"logprobs": 1, "logprobs_old": 1, "advantages": 1}
    handle = open_custom_loss(service._session, by_graph, ranks).result(30)
    assert runs_at_the_service == (handle.loss_id is not None)
    own, custom = trainee(engine), trainee(engine, service)
    own.forward_backward(data, "importance_sampling").result(30)
    output = custom.forward_backward_custom(renamed, handle).result(30)
    assert 1e-5 > distance(engine.gradient(own.model_id), engine.gradient(custom.model_id))
    means = [datum.loss_fn_inputs["advantages"].to_numpy().mean() for datum in data]
    assert pytest.approx(float(np.mean(means)), rel=1e-5) == output.metrics["custom/advantage:mean"]


def test_a_loss_that_fails_leaves_neither_a_gradient_nor_a_gap_at_the_service(
    engine: InProcess,
) -> None:
    def failing(_: list[Datum], __: Tensors) -> Any:  # noqa: ANN401
        message = "mine"
        raise ZeroDivisionError(message)

    engine.flags = {"chunks": ChunkLimits(max_datums=1)}
    client = trainee(engine)
    before = client.save_state("before").result(30)
    custom = client.forward_backward_custom(batch(), failing)
    step = client.optim_step(AdamParams(learning_rate=1.0))
    with pytest.raises(ZeroDivisionError):
        custom.result(30)
    with pytest.raises(errors.PoisonedClientError):
        step.result(30)
    assert not engine.gradient(client.model_id).any()
    operations = client._operations  # a copy in another process would go on from here
    after = SaveState(operations.order.hand_over(lambda number: number), "after")
    saved = Bridge.get().submit(operations.port.run(after)).result(30)
    assert before.path.replace("before", "after") == saved.path
