"""Steps that sample."""

from __future__ import annotations

import asyncio
import math
import pickle
from typing import Any

from tests.contract.drive.plan import BASE_MODEL, NEW, Drive, ready, refused, step


def _draw(drive: Drive, sampler: Any, text: str = "12+34=", **options: Any) -> Any:  # noqa: ANN401
    num_samples = options.pop("num_samples", 1)
    asked = {key: options.pop(key) for key in list(options) if key in _ARGUMENTS}
    params = drive.tinker.SamplingParams(**{"max_tokens": 6, "seed": 3, **options})
    return sampler.sample(drive.prompt(text), num_samples, params, **asked).result()


_ARGUMENTS = {
    "include_prompt_logprobs",
    "topk_prompt_logprobs",
    "topk_sample_logprobs",
    "target_prompt_logprobs",
    "prompt_alt_tokens_k",
    "prompt_logprobs_last_n",
}


@step()
def a_sampler_of_the_base_model_draws(drive: Drive) -> None:
    sampler = ready(drive.service.create_sampling_client(base_model=BASE_MODEL))
    drive.kept["base"] = sampler
    response = _draw(drive, sampler, num_samples=3, temperature=1.0)
    assert len(response.sequences) == 3
    for sequence in response.sequences:
        assert len(sequence.tokens) == len(sequence.logprobs) <= 6
        assert sequence.stop_reason in {"length", "stop"}


@step()
def seeds_repeat_and_greed_is_sure(drive: Drive) -> None:
    sampler = drive.kept["base"]
    first, again = (_draw(drive, sampler, num_samples=2, temperature=1.0) for _ in range(2))
    assert [s.tokens for s in first.sequences] == [s.tokens for s in again.sequences]
    greedy = [_draw(drive, sampler, temperature=0.0, seed=seed) for seed in (1, 2)]
    assert greedy[0].sequences[0].tokens == greedy[1].sequences[0].tokens


@step()
def stops_end_a_sequence(drive: Drive) -> None:
    sampler = drive.kept["base"]
    free = _draw(drive, sampler, temperature=0.0).sequences[0].tokens
    text = drive.tokenizer.decode(free[:1])
    for stop in (text, [text], [free[0]]):
        sequence = _draw(drive, sampler, temperature=0.0, stop=stop).sequences[0]
        assert sequence.stop_reason == "stop"
        assert sequence.tokens == free[:1]


@step()
def prompt_logprobs_come_with_their_rivals(drive: Drive) -> None:
    response = _draw(
        drive, drive.kept["base"], include_prompt_logprobs=True, topk_prompt_logprobs=2
    )
    length = len(drive.tokenizer.encode("12+34="))
    assert len(response.prompt_logprobs) == len(response.topk_prompt_logprobs) == length
    assert response.prompt_logprobs[0] is None
    assert all(len(pairs) == 2 for pairs in response.topk_prompt_logprobs[1:])
    for logprob, pairs in zip(
        response.prompt_logprobs[1:], response.topk_prompt_logprobs[1:], strict=True
    ):
        assert pairs[0][1] >= pairs[1][1]
        assert logprob <= pairs[0][1] + 1e-4


@step()
def samplers_and_the_trainer_see_the_same_logprobs(drive: Drive) -> None:
    sampler = ready(drive.training.save_weights_and_get_sampling_client())
    drive.kept["snapshot"] = sampler
    datum = drive.datum("12+34=", "46")
    trained = drive.training.forward([datum], "cross_entropy").result()
    by_trainer = list(trained.loss_fn_outputs[0]["logprobs"].data)[:-1]
    by_sampler = sampler.compute_logprobs(datum.model_input).result()[1:]
    assert all(
        math.isclose(a, b, abs_tol=1e-3) for a, b in zip(by_trainer, by_sampler, strict=True)
    )


@step()
def named_weights_are_sampled_by_path(drive: Drive) -> None:
    path = drive.training.save_weights_for_sampler("published").result().path
    drive.kept["sampler_path"] = path
    for create in (drive.service.create_sampling_client, drive.training.create_sampling_client):
        sampler = ready(create(model_path=path))
        own = _draw(drive, sampler, temperature=0.0).sequences[0].tokens
        assert own == _draw(drive, drive.kept["snapshot"], temperature=0.0).sequences[0].tokens


@step()
def many_samples_at_once_all_return(drive: Drive) -> None:
    sampler = drive.kept["snapshot"]

    async def draw() -> list[Any]:
        params = drive.tinker.SamplingParams(max_tokens=8, temperature=1.0)
        prompts = [drive.prompt(f"{index}+{index}=") for index in range(96)]
        return await asyncio.gather(
            *(sampler.sample_async(prompt, 2, params) for prompt in prompts)
        )

    responses = asyncio.run(draw())
    assert [len(response.sequences) for response in responses] == [2] * 96


@step()
def training_goes_on_while_samples_are_drawn(drive: Drive) -> None:
    params = drive.tinker.SamplingParams(max_tokens=40, temperature=1.0, stop=[])
    sampler = drive.kept["base"]
    drawing = [sampler.sample(drive.prompt("1+1="), 4, params) for _ in range(16)]
    output = drive.training.forward(drive.sums(10, 4), "cross_entropy").result()
    assert output.metrics["loss:sum"] > 0
    assert all(len(future.result().sequences) == 4 for future in drawing)


@step()
def what_cannot_be_sampled_is_refused(drive: Drive) -> None:
    sampler = drive.kept["base"]
    create = drive.service.create_sampling_client
    refused(lambda: ready(create()))
    refused(lambda: _opened(drive, create(base_model="no/model")), "no/model")
    refused(lambda: _opened(drive, create(model_path="tinker://x:train:0/sampler_weights/y")))
    refused(lambda: ready(create(model_path="x:train:0/sampler_weights/y")))
    wrong = drive.tinker.ModelInput.from_ints([99_999])
    params = drive.tinker.SamplingParams(max_tokens=1)
    refused(lambda: sampler.sample(wrong, 1, params).result(), "99999")
    long = drive.tinker.ModelInput.from_ints([5] * 100_000)
    refused(lambda: sampler.sample(long, 1, params).result())
    assert len(_draw(drive, sampler).sequences) == 1


def _opened(drive: Drive, client: Any) -> Any:  # noqa: ANN401
    """Use a client, for those that find out late."""
    return _draw(drive, ready(client))


@step(NEW)
def the_rivals_of_sampled_tokens_are_told(drive: Drive) -> None:
    response = _draw(drive, drive.kept["base"], temperature=0.0, topk_sample_logprobs=3)
    sequence = response.sequences[0]
    assert sequence.sequence_id
    assert len(sequence.topk_logprobs) == len(sequence.tokens)
    for token, pairs in zip(sequence.tokens, sequence.topk_logprobs, strict=True):
        assert len(pairs) == 3
        assert pairs[0][0] == token


@step(NEW)
def targets_of_a_prompt_are_scored(drive: Drive) -> None:
    tokens = drive.tokenizer.encode("12+34=")
    follow = tokens[1:]
    targets = drive.tinker.TensorData(
        data=[item for token in follow for item in (token, -1)],
        dtype="int64",
        shape=[len(follow), 2],
    )
    response = _draw(
        drive,
        drive.kept["base"],
        include_prompt_logprobs=True,
        target_prompt_logprobs=targets,
    )
    scored = list(response.target_prompt_logprobs.data)
    assert scored[1::2] == [0.0] * len(follow)
    for mine, theirs in zip(scored[::2], response.prompt_logprobs[1:], strict=True):
        assert math.isclose(mine, theirs, abs_tol=1e-4)


@step(NEW)
def alternatives_to_a_prompt_are_drawn(drive: Drive) -> None:
    response = _draw(drive, drive.kept["base"], prompt_alt_tokens_k=4)
    length = len(drive.tokenizer.encode("12+34="))
    assert list(response.prompt_alt_tokens.tokens.shape) == [length - 1, 4]
    assert list(response.prompt_alt_tokens.logprobs.shape) == [length - 1, 4]
    assert max(response.prompt_alt_tokens.logprobs.data) <= 0


@step(NEW)
def only_the_end_of_a_prompt_is_scored(drive: Drive) -> None:
    sampler = drive.kept["base"]
    whole = sampler.compute_logprobs(drive.prompt("12+34=")).result()
    end = sampler.compute_logprobs(drive.prompt("12+34="), prompt_logprobs_last_n=2).result()
    assert end[:-2] == [None] * (len(end) - 2)
    assert all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(whole[-2:], end[-2:], strict=True))


@step(NEW)
def samplers_travel_by_pickle_and_by_handle(drive: Drive) -> None:
    sampler = drive.kept["snapshot"]
    expected = _draw(drive, sampler, temperature=0.0).sequences[0].tokens
    copies = [
        pickle.loads(pickle.dumps(sampler)),  # noqa: S301 - our own
        type(sampler).from_sampler_handle(sampler.get_sampler_handle()),
    ]
    for copy in copies:
        assert _draw(drive, copy, temperature=0.0).sequences[0].tokens == expected


@step(NEW)
def a_sampler_knows_its_base_model(drive: Drive) -> None:
    for sampler in (drive.kept["base"], drive.kept["snapshot"]):
        assert sampler.get_base_model() == BASE_MODEL


@step(NEW)
def stable_samples_train_with_their_provenance(drive: Drive) -> None:
    types = drive.tinker.types
    model = drive.model()
    sampler = ready(model.save_weights_and_get_sampling_client(record_stability_info=True))
    prompt = drive.prompt("12+34=")
    params = drive.tinker.SamplingParams(max_tokens=4, stop=[])
    drawn = sampler.sample(prompt, 1, params).result().sequences[0]
    head, tail = prompt.to_ints(), list(drawn.tokens)
    tokens = head + tail

    def span(kind: str, offset: int, length: int) -> Any:  # noqa: ANN401
        of = {"prompt": types.PromptProvenanceSpan, "sampled": types.SampledProvenanceSpan}[kind]
        return of(sequence_id=drawn.sequence_id, offset=offset, length=length)

    datum = drive.tinker.Datum(
        model_input=drive.tinker.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": drive.ints(tokens[1:]),
            "logprobs": drive.floats([0.0] * (len(head) - 1) + list(drawn.logprobs)),
            "advantages": drive.floats([0.0] * (len(head) - 1) + [1.0] * len(tail)),
        },
        model_input_spans=[
            span("prompt", 0, len(head)),
            span("sampled", 0, len(tail) - 1),
        ],
        loss_fn_input_spans=[
            span("prompt", 1, len(head) - 1),
            span("sampled", 0, len(tail)),
        ],
    )
    output = model.forward_backward([datum], "stable_reinforce").result()
    assert math.isfinite(output.metrics["loss:sum"])


@step(NEW)
def inflight_samplers_follow_the_model(drive: Drive) -> None:
    model = drive.model()
    sampler = ready(model.save_weights_and_get_sampling_client(kind="inflight"))
    assert len(_draw(drive, sampler).sequences) == 1
