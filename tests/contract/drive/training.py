"""Steps that train."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

from tests.contract.drive.plan import BASE_MODEL, NEW, OLD, Drive, ready, refused, step


@step()
def capabilities_name_the_base_model(drive: Drive) -> None:
    served = drive.service.get_server_capabilities().supported_models
    assert BASE_MODEL in [model.model_name for model in served]


@step()
def a_model_is_created_with_its_tokenizer(drive: Drive) -> None:
    drive.training = ready(
        drive.service.create_lora_training_client(
            BASE_MODEL, rank=8, seed=1, user_metadata={"drive": "training"}
        )
    )
    info = drive.training.get_info()
    assert info.model_data.model_name == BASE_MODEL
    assert info.model_id == drive.training.model_id
    drive.tokenizer = drive.training.get_tokenizer()
    assert drive.tokenizer.decode(drive.tokenizer.encode("12+34=46")) == "12+34=46"


@step()
def forward_changes_nothing(drive: Drive) -> None:
    data = drive.sums(10, 3)
    first = drive.training.forward(data, "cross_entropy").result()
    again = drive.training.forward(data, "cross_entropy").result()
    assert first.metrics["loss:sum"] == again.metrics["loss:sum"] > 0
    assert len(first.loss_fn_outputs) == 3


@step()
def the_loss_falls_over_steps_that_overlap(drive: Drive) -> None:
    data = drive.sums(10, 8)
    futures = []
    for _ in range(6):
        futures.append(drive.training.forward_backward(data, "cross_entropy"))
        drive.training.optim_step(drive.tinker.AdamParams(learning_rate=2e-3))
    losses = [future.result().metrics["loss:sum"] for future in futures]
    assert losses[-1] < losses[0]


@step()
def policy_losses_agree_at_ratio_one(drive: Drive) -> None:
    datum = drive.datum("3+4=", "7")
    targets = datum.loss_fn_inputs["target_tokens"].data
    forward = drive.training.forward([datum], "cross_entropy").result()
    logprobs = list(forward.loss_fn_outputs[0]["logprobs"].data)
    advantages = [1.0] * len(targets)
    policy = drive.datum("3+4=", "7", logprobs=logprobs, advantages=advantages)
    names = ["importance_sampling", "ppo"] + ["cispo", "dro"] * _knows(drive, "cispo")
    for name in names:
        output = drive.training.forward([policy], name).result()
        expected = -len(targets) if name in {"importance_sampling", "ppo"} else -sum(logprobs)
        assert math.isclose(output.metrics["loss:sum"], expected, rel_tol=1e-4), name


def _knows(drive: Drive, loss_fn: str) -> bool:
    """Whether the client's own check of names lets a loss pass; all do but the oldest."""
    from typing import get_args

    return loss_fn in get_args(drive.tinker.types.LossFnType)


@step()
def loss_settings_reach_the_service(drive: Drive) -> None:
    size = len(drive.datum("3+4=", "7").loss_fn_inputs["target_tokens"].data)
    far = drive.datum("3+4=", "7", logprobs=[-60.0] * size, advantages=[1.0] * size)
    config = {"clip_low_threshold": 0.5, "clip_high_threshold": 2.0}
    output = drive.training.forward([far], "ppo", config).result()
    assert math.isclose(output.metrics["loss:sum"], -2.0 * size, rel_tol=1e-4)


@step()
def a_batch_larger_than_one_request_adds_up(drive: Drive) -> None:
    data = drive.sums(10, 300)
    whole = drive.training.forward(data, "cross_entropy").result()
    halves = [
        drive.training.forward(part, "cross_entropy").result() for part in (data[:150], data[150:])
    ]
    assert len(whole.loss_fn_outputs) == 300
    parts = sum(half.metrics["loss:sum"] for half in halves)
    assert math.isclose(whole.metrics["loss:sum"], parts, rel_tol=1e-5)


@step()
def a_custom_loss_trains_as_its_formula_says(drive: Drive) -> None:
    models = [drive.model(), drive.model()]
    data = drive.sums(20, 4)

    def loss(data: Any, logprobs: Any) -> Any:  # noqa: ANN401
        weights = [_tensor(datum.loss_fn_inputs["weights"]) for datum in data]
        total = sum(-(w * p.flatten()).sum() for w, p in zip(weights, logprobs, strict=True))
        return total, {"mine:sum": 1.5}

    custom = models[0].forward_backward_custom(data, loss).result()
    plain = models[1].forward_backward(data, "cross_entropy").result()
    assert custom.metrics["mine:sum"] == 1.5
    if NEW in drive.generations:
        assert math.isclose(custom.metrics["loss:sum"], plain.metrics["loss:sum"], rel_tol=1e-4)
    assert _after_step(drive, models[0]) == _after_step(drive, models[1])


def _tensor(value: Any) -> Any:  # noqa: ANN401
    return value.to_torch()


def _after_step(drive: Drive, model: Any) -> float:  # noqa: ANN401
    model.optim_step(drive.tinker.AdamParams(learning_rate=1e-3)).result()
    metrics = model.forward(drive.sums(20, 4), "cross_entropy").result().metrics
    return round(float(metrics["loss:sum"]), 3)


@step()
def optimizer_settings_are_applied(drive: Drive) -> None:
    model = drive.model()
    before = model.forward(drive.sums(10, 2), "cross_entropy").result().metrics["loss:sum"]
    model.forward_backward(drive.sums(10, 2), "cross_entropy")
    model.optim_step(drive.tinker.AdamParams(learning_rate=0.0, beta1=0.8)).result()
    after = model.forward(drive.sums(10, 2), "cross_entropy").result().metrics["loss:sum"]
    assert before == after


@step()
def states_are_saved_and_loaded(drive: Drive) -> None:
    training = drive.training
    saved = training.save_state("kept").result().path
    drive.kept["state"] = saved
    assert saved.endswith("/weights/kept")
    before = training.forward(drive.sums(10, 2), "cross_entropy").result().metrics["loss:sum"]
    training.forward_backward(drive.sums(30, 4), "cross_entropy")
    training.optim_step(drive.tinker.AdamParams(learning_rate=5e-3)).result()
    for load in (training.load_state, training.load_state_with_optimizer):
        load(saved).result()
        again = training.forward(drive.sums(10, 2), "cross_entropy").result()
        assert math.isclose(again.metrics["loss:sum"], before, rel_tol=1e-5)


@step()
def new_models_begin_where_a_state_ends(drive: Drive) -> None:
    path = drive.kept["state"]
    known = drive.training.forward(drive.sums(10, 2), "cross_entropy").result()
    for create in (
        drive.service.create_training_client_from_state,
        drive.service.create_training_client_from_state_with_optimizer,
    ):
        model = ready(create(path))
        loss = model.forward(drive.sums(10, 2), "cross_entropy").result().metrics["loss:sum"]
        assert math.isclose(loss, known.metrics["loss:sum"], rel_tol=1e-5)
        assert model.get_info().lora_rank == 8


@step(NEW)
def a_state_is_replaced_only_when_asked(drive: Drive) -> None:
    model = drive.model()
    model.save_state("twice", user_metadata={"round": "1"}).result()
    refused(lambda: model.save_state("twice").result(), "twice")
    path = model.save_state("twice", overwrite=True, ttl_seconds=7200).result().path
    assert path.endswith("/weights/twice")


@step(OLD)
def a_name_is_saved_once(drive: Drive) -> None:
    model = drive.model()
    model.save_state("once").result()
    refused(lambda: model.save_state("once").result(), "once")


@step()
def two_models_train_side_by_side(drive: Drive) -> None:
    models = [drive.model(rank=rank) for rank in (2, 16)]
    losses: list[float] = []

    def train(model: Any) -> None:  # noqa: ANN401
        for _ in range(4):
            future = model.forward_backward(drive.sums(10, 4), "cross_entropy")
            model.optim_step(drive.tinker.AdamParams(learning_rate=1e-3)).result()
        losses.append(future.result().metrics["loss:sum"])

    threads = [threading.Thread(target=train, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(losses) == 2


@step()
def the_async_twins_train_too(drive: Drive) -> None:
    async def train() -> float:
        created = await drive.service.create_lora_training_client_async(BASE_MODEL, rank=4)
        forward = await created.forward_backward_async(drive.sums(10, 4), "cross_entropy")
        step_ = await created.optim_step_async(drive.tinker.AdamParams(learning_rate=1e-3))
        output = await forward
        await step_
        saved = await (await created.save_state_async("from-async"))
        await (await created.load_state_async(saved.path))
        loss: float = output.metrics["loss:sum"]
        return loss

    assert asyncio.run(train()) > 0


@step(NEW)
def two_dimensional_targets_have_logprobs_of_their_shape(drive: Drive) -> None:
    tokens = drive.tokenizer.encode("12+34=4")
    pairs = [[token, token + 1] for token in tokens]
    tensor = drive.tinker.TensorData
    datum = drive.tinker.Datum(
        model_input=drive.tinker.ModelInput.from_ints(tokens),
        loss_fn_inputs={
            "target_tokens": tensor(
                data=[token for pair in pairs for token in pair],
                dtype="int64",
                shape=[len(pairs), 2],
            ),
            "weights": tensor(data=[0.5] * 2 * len(pairs), dtype="float32", shape=[len(pairs), 2]),
        },
    )
    output = drive.training.forward([datum], "cross_entropy").result()
    assert list(output.loss_fn_outputs[0]["logprobs"].shape) == [len(pairs), 2]


@step(NEW)
def a_traced_loss_runs_by_its_handle(drive: Drive) -> None:
    def mine(logprobs: Any, weights: Any) -> Any:  # noqa: ANN401
        return -(logprobs * weights).sum(), {"custom/tokens:sum": weights.sum()}

    handle = drive.service.create_custom_loss(mine, {"logprobs": 1, "weights": 1}).result()
    model = drive.model()
    data = drive.sums(20, 4)
    plain = model.forward(data, "cross_entropy").result().metrics["loss:sum"]
    output = model.forward_backward_custom(data, handle).result()
    assert math.isclose(output.metrics["loss:sum"], plain, rel_tol=1e-4)
    weights = sum(sum(datum.loss_fn_inputs["weights"].data) for datum in data)
    assert output.metrics["custom/tokens:sum"] == weights


@step()
def what_cannot_be_trained_is_refused(drive: Drive) -> None:
    training = drive.training
    refused(lambda: ready(drive.service.create_lora_training_client("no/model")), "no/model")
    refused(lambda: ready(drive.service.create_training_client_from_state("tinker://x/weights/y")))
    refused(lambda: training.load_state("tinker://nobody:train:0/weights/none").result())
    wrong = drive.tinker.Datum(
        model_input=drive.tinker.ModelInput.from_ints([5, 99_999]),
        loss_fn_inputs={"target_tokens": drive.ints([1, 2]), "weights": drive.floats([1.0, 1.0])},
    )
    refused(lambda: training.forward([wrong], "cross_entropy").result(), "99999")
    short = drive.tinker.Datum(
        model_input=drive.tinker.ModelInput.from_ints([5, 6, 7]),
        loss_fn_inputs={"target_tokens": drive.ints([1, 2]), "weights": drive.floats([1.0, 1.0])},
    )
    refused(lambda: training.forward([short], "cross_entropy").result())
    good = training.forward(drive.sums(10, 1), "cross_entropy").result()
    assert good.metrics["loss:sum"] > 0
