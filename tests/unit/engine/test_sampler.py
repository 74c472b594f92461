from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.fakes.tiny_model import (
    CONTEXT,
    EOS,
    VOCAB_SIZE,
    random_datum,
    random_tokens,
    scored_datum,
)
from tinker_ray.engine.model.adapter import Adapter
from tinker_ray.engine.model.adapter_file import load_adapter
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.sampling.sampler import SampleJob, Sampler
from tinker_ray.engine.training.trainer import Trainer
from tinker_ray.errors import EngineError
from tinker_ray.types import (
    AdamParams,
    LoraConfig,
    SampledSequence,
    SampleResponse,
    SamplingParams,
    TensorData,
)

PROMPT = random_tokens(np.random.default_rng(0), 6)


@pytest.fixture(scope="module")
def trained(base: BaseModel) -> Iterator[Trainer]:
    """A trainer whose models ``a`` and ``b`` have taken twenty steps."""
    trainer = Trainer(base)
    rng = np.random.default_rng(0)
    data = [random_datum(rng, 12) for _ in range(4)]
    for model_id, rank in (("a", 4), ("b", 2)):
        trainer.create(model_id, LoraConfig(rank=rank, seed=rank)).result()
        for _ in range(20):
            trainer.forward(model_id, data, "cross_entropy", None, backward=True)
            trainer.optim_step(model_id, AdamParams(learning_rate=3e-3))
    yield trainer
    trainer.close()


@pytest.fixture
def adapters(trained: Trainer) -> list[Adapter | None]:
    return [trained.snapshot("a").result(), trained.snapshot("b").result(), None]


def params(**changes: object) -> SamplingParams:
    return SamplingParams.model_validate({"max_tokens": 8, "stop": [], "seed": 1} | changes)


def job(
    prompt: np.ndarray = PROMPT, adapter: Adapter | None = None, **changes: object
) -> SampleJob:
    return SampleJob(prompt, adapter, params(**changes))


def only(future: Future[SampleResponse]) -> SampledSequence:
    (sequence,) = future.result(20).sequences
    return sequence


def content(response: SampleResponse) -> list[tuple[list[int], list[float] | None]]:
    return [(sequence.tokens, sequence.logprobs) for sequence in response.sequences]


def text(*tokens: int) -> str:
    from tests.fakes.tiny_model import CHARACTERS, SPECIAL

    return "".join((*SPECIAL, *CHARACTERS)[token] for token in tokens)


def trainer_logprobs(trainer: Trainer, model_id: str, tokens: np.ndarray) -> np.ndarray:
    data = [scored_datum(tokens)]
    output = trainer.forward(model_id, data, "cross_entropy", None, backward=False).result()
    return output.loss_fn_outputs[0]["logprobs"].to_numpy()


def test_greedy_tokens_are_those_of_generate(
    base: BaseModel, sampler: Sampler, tiny_model_dir: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.generation_config.eos_token_id = None
    for length in (1, 5, 33):
        prompt = random_tokens(np.random.default_rng(length), length)
        theirs = model.generate(
            torch.from_numpy(prompt)[None],
            attention_mask=torch.ones(1, length, dtype=torch.int64),
            do_sample=False,
            max_new_tokens=20,
        )
        ours = only(sampler.submit(job(prompt, temperature=0, max_tokens=20)))
        assert theirs[0, length:].tolist() == ours.tokens


@pytest.mark.parametrize("index", [0, 1])
def test_sampled_logprobs_are_the_trainers_after_twenty_steps(
    trained: Trainer, sampler: Sampler, adapters: list[Adapter | None], index: int
) -> None:
    request = SampleJob(PROMPT, adapters[index], params(max_tokens=30), 5, prompt_logprobs=True)
    response = sampler.submit(request).result(20)
    assert response.prompt_logprobs_np is not None
    for sequence in response.sequences:
        assert sequence.logprobs_np is not None
        tokens = np.concatenate([PROMPT, sequence.tokens_np])
        expected = trainer_logprobs(trained, "ab"[index], tokens)
        np.testing.assert_allclose(sequence.logprobs_np, expected[len(PROMPT) - 1 :], atol=2e-5)
        prompt_part = expected[: len(PROMPT) - 1]
        np.testing.assert_allclose(response.prompt_logprobs_np[1:], prompt_part, atol=2e-5)


def test_logprobs_ignore_temperature_and_truncation(
    trained: Trainer, sampler: Sampler, adapters: list[Adapter | None]
) -> None:
    sequence = only(sampler.submit(job(PROMPT, adapters[0], temperature=0.5, top_k=4, top_p=0.9)))
    tokens = np.concatenate([PROMPT, sequence.tokens_np])
    expected = trainer_logprobs(trained, "a", tokens)[len(PROMPT) - 1 :]
    assert sequence.logprobs == pytest.approx(expected, abs=2e-5)


def test_a_seeded_request_draws_the_same_alone_as_among_a_hundred(
    base: BaseModel, sampler: Sampler, adapters: list[Adapter | None]
) -> None:
    def request(seed: int, max_tokens: int) -> SampleJob:
        rng = np.random.default_rng(seed)
        return SampleJob(
            random_tokens(rng, int(rng.integers(1, 40))),
            adapters[seed % 3],
            params(
                seed=seed,
                max_tokens=max_tokens,
                temperature=float(rng.choice([0.0, 0.7, 1.0])),
                top_p=float(rng.choice([1.0, 0.9])),
                top_k=int(rng.choice([-1, 20])),
            ),
            num_samples=1 + seed % 3,
        )

    probes = [request(seed, 12) for seed in range(12)]
    alone = [content(sampler.submit(probe).result(20)) for probe in probes]
    rng = np.random.default_rng(0)
    others = [request(100 + index, int(rng.integers(1, 30))) for index in range(100)]
    crowd = [*enumerate(probes), *((None, other) for other in others)]
    rng.shuffle(crowd)
    small = Sampler(base, max_rows=24)
    futures = [(index, small.submit(item)) for index, item in crowd]
    among = {index: content(future.result(30)) for index, future in futures}
    small.close()
    assert alone == [among[index] for index in range(len(probes))]


def test_samples_of_a_request_differ_and_are_the_same_next_time(sampler: Sampler) -> None:
    request = SampleJob(PROMPT, None, params(max_tokens=10), num_samples=4)
    first, second = (content(sampler.submit(request).result(20)) for _ in range(2))
    assert first == second
    assert 4 == len({tuple(tokens) for tokens, _ in first})


def test_unseeded_requests_differ(sampler: Sampler) -> None:
    first, second = (only(sampler.submit(job(seed=None, max_tokens=20))) for _ in range(2))
    assert first.tokens != second.tokens


def test_a_request_of_more_samples_than_rows_is_complete(base: BaseModel) -> None:
    wide, narrow = Sampler(base), Sampler(base, max_rows=3)
    request = SampleJob(PROMPT, None, params(), num_samples=10)
    answers = [content(sampler.submit(request).result(20)) for sampler in (wide, narrow)]
    wide.close()
    narrow.close()
    assert answers[0] == answers[1]


def test_a_tight_memory_limit_changes_no_answer(base: BaseModel) -> None:
    requests = [job(seed=seed, max_tokens=5 + seed) for seed in range(12)]
    answers: list[list[list[int]]] = []
    for kv_bytes in (1 << 30, base.kv_bytes_per_token * 64):
        sampler = Sampler(base, kv_bytes=kv_bytes)
        futures = [sampler.submit(request) for request in requests]
        answers.append([only(future).tokens for future in futures])
        sampler.close()
    assert answers[0] == answers[1]


def test_the_end_of_sequence_token_stops_unless_stops_are_disabled(
    trainer: Trainer, sampler: Sampler
) -> None:
    trainer.create("ends", LoraConfig(rank=4, seed=0)).result()
    tokens = np.concatenate([PROMPT, [EOS, EOS]])
    for _ in range(30):
        trainer.forward("ends", [scored_datum(tokens)], "cross_entropy", None, backward=True)
        trainer.optim_step("ends", AdamParams(learning_rate=1e-2))
    adapter = trainer.snapshot("ends").result()
    implicit = only(sampler.submit(job(PROMPT, adapter, stop=None, temperature=0)))
    assert ("stop", [EOS]) == (implicit.stop_reason, implicit.tokens)
    explicit = only(sampler.submit(job(PROMPT, adapter, stop=["zzz"], temperature=0)))
    assert ("stop", [EOS]) == (explicit.stop_reason, explicit.tokens)
    disabled = only(sampler.submit(job(PROMPT, adapter, stop=[], temperature=0)))
    assert ("length", 8) == (disabled.stop_reason, len(disabled.tokens))


def test_a_stop_token_ends_the_sequence_and_belongs_to_it(sampler: Sampler) -> None:
    free = only(sampler.submit(job()))
    stopped = only(sampler.submit(job(stop=[free.tokens[3]])))
    first = free.tokens.index(free.tokens[3])
    assert ("stop", free.tokens[: first + 1]) == (stopped.stop_reason, stopped.tokens)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_stop_string_ends_the_sequence_where_it_is_complete(
    sampler: Sampler, length: int
) -> None:
    free = only(sampler.submit(job(max_tokens=20)))
    stop = text(*free.tokens[5 : 5 + length])
    stopped = only(sampler.submit(job(max_tokens=20, stop=["never", stop])))
    end = text(*free.tokens).index(stop) + length
    assert ("stop", free.tokens[:end]) == (stopped.stop_reason, stopped.tokens)
    assert free.logprobs is not None
    assert free.logprobs[:end] == stopped.logprobs


def test_a_stop_string_may_be_given_alone(sampler: Sampler) -> None:
    free = only(sampler.submit(job()))
    stopped = only(sampler.submit(job(stop=text(free.tokens[0]))))
    assert ("stop", free.tokens[:1]) == (stopped.stop_reason, stopped.tokens)


def test_without_a_limit_a_sequence_fills_the_context(sampler: Sampler) -> None:
    sequence = only(sampler.submit(job(max_tokens=None)))
    assert ("length", CONTEXT - len(PROMPT)) == (sequence.stop_reason, len(sequence.tokens))


@pytest.mark.parametrize("prompt_length, max_tokens", [(CONTEXT, 5), (4, 0)])
def test_no_room_gives_an_empty_sequence(
    sampler: Sampler, prompt_length: int, max_tokens: int
) -> None:
    prompt = random_tokens(np.random.default_rng(1), prompt_length)
    request = SampleJob(prompt, None, params(max_tokens=max_tokens), prompt_logprobs=True)
    response = sampler.submit(request).result(20)
    assert ("length", []) == (response.sequences[0].stop_reason, response.sequences[0].tokens)
    assert response.prompt_logprobs is not None
    assert prompt_length == len(response.prompt_logprobs)


def test_prompt_logprobs_start_with_none(sampler: Sampler) -> None:
    request = SampleJob(PROMPT, None, params(max_tokens=1), prompt_logprobs=True)
    logprobs = sampler.submit(request).result(20).prompt_logprobs
    assert logprobs is not None
    assert logprobs[0] is None
    assert all(isinstance(value, float) for value in logprobs[1:])
    assert len(PROMPT) == len(logprobs)


def test_top_k_prompt_logprobs_are_the_likeliest(sampler: Sampler) -> None:
    request = SampleJob(PROMPT, None, params(max_tokens=1), 1, True, VOCAB_SIZE)  # noqa: FBT003
    response = sampler.submit(request).result(20)
    topk, logprobs = response.topk_prompt_logprobs, response.prompt_logprobs
    assert topk is not None
    assert logprobs is not None
    assert topk[0] is None
    for position in range(1, len(PROMPT)):
        row = topk[position]
        assert row is not None
        values = [value for _, value in row]
        assert sorted(values, reverse=True) == values
        assert VOCAB_SIZE == len(row)
        assert dict(row)[int(PROMPT[position])] == pytest.approx(logprobs[position], abs=1e-6)


def test_top_k_prompt_logprobs_do_not_need_prompt_logprobs(sampler: Sampler) -> None:
    request = SampleJob(PROMPT, None, params(max_tokens=1), topk_prompt_logprobs=2)
    response = sampler.submit(request).result(20)
    assert response.prompt_logprobs is None
    assert response.topk_prompt_logprobs_np is not None
    assert (len(PROMPT), 2) == response.topk_prompt_logprobs_np.token_ids.shape


def test_each_drawn_position_tells_its_likeliest_tokens(sampler: Sampler) -> None:
    drawn = params(max_tokens=6, stop=[], seed=1)
    futures = [
        sampler.submit(SampleJob(PROMPT, None, drawn, 3, topk_sample_logprobs=k))
        for k in (0, 2, VOCAB_SIZE)
    ]
    plain, some, everything = (future.result(20).sequences for future in futures)
    for without, few, full in zip(plain, some, everything, strict=True):
        assert without.topk_logprobs_np is None
        assert few.topk_logprobs_np is not None
        assert full.topk_logprobs_np is not None
        assert without.tokens == few.tokens == full.tokens
        assert (6, 2) == few.topk_logprobs_np.token_ids.shape
        np.testing.assert_array_equal(
            few.topk_logprobs_np.logprobs, full.topk_logprobs_np.logprobs[:, :2]
        )
        assert full.topk_logprobs is not None
        assert full.logprobs is not None
        for token, logprob, row in zip(full.tokens, full.logprobs, full.topk_logprobs, strict=True):
            assert dict(row or ())[token] == pytest.approx(logprob, abs=1e-6)


def test_no_drawn_position_tells_nothing(sampler: Sampler) -> None:
    request = SampleJob(PROMPT, None, params(max_tokens=0), topk_sample_logprobs=2)
    (sequence,) = sampler.submit(request).result(20).sequences
    assert sequence.topk_logprobs_np is not None
    assert (0, 2) == sequence.topk_logprobs_np.token_ids.shape


def test_alternatives_depend_on_the_seed_and_on_nothing_else(sampler: Sampler) -> None:
    def alternatives(seed: int, num_samples: int = 1) -> list[list[int]]:
        drawn = params(seed=seed)
        request = SampleJob(PROMPT, None, drawn, num_samples, prompt_alt_tokens_k=3)
        told = sampler.submit(request).result(20).prompt_alt_tokens
        assert told is not None
        tokens: list[list[int]] = told.tokens.tolist()
        return tokens

    expected = alternatives(1)
    assert len(PROMPT) - 1 == len(expected)
    assert expected == alternatives(1, num_samples=5)
    assert expected != alternatives(2)
    crowd = [
        SampleJob(PROMPT[: 3 + i % 7], None, params(seed=i), prompt_alt_tokens_k=2)
        for i in range(20)
    ]
    futures = [sampler.submit(request) for request in crowd]
    assert expected == alternatives(1)
    for future in futures:
        future.result(20)


def test_what_is_told_of_a_prompt_is_what_the_model_says(sampler: Sampler) -> None:
    targets = np.full((len(PROMPT) - 1, 2), -1)
    targets[2], targets[4, 1] = (9, 8), 7
    request = SampleJob(
        PROMPT,
        None,
        params(max_tokens=1, seed=3),
        topk_prompt_logprobs=VOCAB_SIZE,
        target_prompt_logprobs=TensorData.from_numpy(targets),
        prompt_alt_tokens_k=4,
    )
    response = sampler.submit(request).result(20)
    assert response.topk_prompt_logprobs is not None
    assert response.target_prompt_logprobs is not None
    assert response.prompt_alt_tokens is not None
    table = [dict(row or ()) for row in response.topk_prompt_logprobs[1:]]
    told = response.target_prompt_logprobs.tolist()
    assert [table[2][9], table[2][8], 0.0, table[4][7]] == [*told[2], *told[4]]
    tokens = response.prompt_alt_tokens.tokens.tolist()
    logprobs = response.prompt_alt_tokens.logprobs.tolist()
    for row, ids, values in zip(table, tokens, logprobs, strict=True):
        assert [row[token] for token in ids] == values
    assert 0 == response.prompt_cache_hit_tokens


@pytest.mark.parametrize(
    "request_, message",
    [
        (job(np.zeros(0, np.int64)), "prompt has no tokens"),
        (job(np.zeros(CONTEXT + 1, np.int64)), f"prompt has {CONTEXT + 1} tokens"),
        (job(np.array([3, VOCAB_SIZE])), "prompt has a token outside of 0 to"),
        (job(np.array([-1])), "prompt has a token outside of 0 to"),
        (SampleJob(PROMPT, None, params(), num_samples=0), "num_samples"),
        (SampleJob(PROMPT, None, params(), topk_prompt_logprobs=-1), "topk_prompt_logprobs"),
        (
            SampleJob(PROMPT, None, params(), topk_prompt_logprobs=VOCAB_SIZE + 1),
            "topk_prompt_logprobs: must be from 0",
        ),
        (SampleJob(PROMPT, None, params(), topk_sample_logprobs=-1), "topk_sample_logprobs: must"),
        (
            SampleJob(PROMPT, None, params(), 10**6, topk_sample_logprobs=VOCAB_SIZE),
            "topk_sample_logprobs: asks for",
        ),
        (job(top_k=0), "top_k"),
        (job(stop=[""]), "stop must be non-empty strings"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    sampler: Sampler, request_: SampleJob, message: str
) -> None:
    with pytest.raises(EngineError, match=message) as raised:
        sampler.submit(request_).result(20)
    assert "user" == raised.value.category


def test_a_diverged_adapter_fails_alone(sampler: Sampler, adapters: list[Adapter | None]) -> None:
    healthy = [job(PROMPT, adapter, seed=seed) for seed, adapter in enumerate(adapters * 3)]
    expected = [only(sampler.submit(request)).tokens for request in healthy]
    assert adapters[0] is not None
    diverged = adapters[0].copy()
    diverged.flat.fill_(float("nan"))
    broken: list[Future[SampleResponse]] = []
    futures: list[Future[SampleResponse]] = []
    for request in healthy:
        broken.append(sampler.submit(SampleJob(PROMPT, diverged, params(), num_samples=2)))
        futures.append(sampler.submit(request))
    for future in broken:
        with pytest.raises(EngineError, match="not finite"):
            future.result(20)
    assert expected == [only(future).tokens for future in futures]


def test_numbers_that_overflow_midway_do_not_reach_later_rows(
    sampler: Sampler, adapters: list[Adapter | None]
) -> None:
    expected = only(sampler.submit(job(max_tokens=40))).tokens
    busy = [sampler.submit(job(seed=seed, max_tokens=30)) for seed in range(4)]
    step = sampler._lanes[0]._step
    for cache in (step._cache._keys, step._cache._values):
        for tensor in cache:
            tensor.fill_(float("nan"))
    for future in busy:
        future.exception(20)
    assert expected == only(sampler.submit(job(max_tokens=40))).tokens


def test_an_adapter_of_another_model_fails_alone(sampler: Sampler, base: BaseModel) -> None:
    adapter = Adapter.initial(base.targets, LoraConfig(rank=2, seed=0), base.device)
    pairs = {path: (a[:, :-1], b) for path, (a, b) in adapter.pairs.items()}
    misfit = Adapter(adapter.config, adapter.targets, adapter.flat, pairs)
    good = [sampler.submit(job(seed=seed)) for seed in range(3)]
    bad = sampler.submit(job(adapter=misfit))
    good += [sampler.submit(job(seed=seed)) for seed in range(3)]
    with pytest.raises(EngineError, match="the prompt's run failed"):
        bad.result(20)
    tokens = [only(future).tokens for future in good]
    assert tokens[:3] == tokens[3:]


def test_a_cancelled_request_frees_its_rows(base: BaseModel) -> None:
    sampler = Sampler(base, max_rows=2)
    endless = [sampler.submit(job(max_tokens=None, seed=seed)) for seed in range(40)]
    last = sampler.submit(job(max_tokens=2))
    for future in endless:
        future.cancel()
    assert 2 == len(only(last).tokens)
    cancelled = [future for future in endless if future.cancelled()]
    assert len(cancelled) > 20
    with pytest.raises(CancelledError):
        cancelled[0].result()
    sampler.close()
    assert 0 == sampler.active_sequences + sampler.queued_sequences


def test_a_closed_sampler_answers_everything(base: BaseModel) -> None:
    sampler = Sampler(base, max_rows=1)
    futures = [sampler.submit(job(max_tokens=None)) for _ in range(20)]
    sampler.close()
    sampler.close()
    futures.append(sampler.submit(job()))
    errors = [future.exception(20) for future in futures]
    assert all(error is None or "closed" in str(error) for error in errors)
    assert isinstance(errors[-1], EngineError)


def test_training_and_sampling_go_on_at_once_without_touching_each_other(
    trained: Trainer, sampler: Sampler
) -> None:
    snapshot = trained.snapshot("a").result()
    before = snapshot.flat.clone()
    weights = {name: value.clone() for name, value in sampler._base.model.state_dict().items()}
    request = SampleJob(PROMPT, snapshot, params(max_tokens=20), num_samples=4)
    expected = content(sampler.submit(request).result(20))
    data = [random_datum(np.random.default_rng(5), 10)]
    trained.create("other", LoraConfig(rank=4, seed=5)).result()
    answers: list[list[tuple[list[int], list[float] | None]]] = []

    def sample() -> None:
        answers.extend(content(sampler.submit(request).result(20)) for _ in range(5))

    thread = threading.Thread(target=sample)
    thread.start()
    for _ in range(5):
        trained.forward("other", data, "cross_entropy", None, backward=True).result()
        trained.optim_step("other", AdamParams(learning_rate=1e-2)).result()
    thread.join()
    trained.unload("other").result()
    assert [expected] * 5 == answers
    assert torch.equal(before, snapshot.flat)
    for name, value in sampler._base.model.state_dict().items():
        assert torch.equal(weights[name], value)


def test_an_old_snapshot_keeps_its_logprobs_after_later_steps_and_a_restart(
    trainer: Trainer, sampler: Sampler, tmp_path: Path
) -> None:
    trainer.create("m", LoraConfig(rank=4, seed=0)).result()
    data = [random_datum(np.random.default_rng(5), 10)]

    def train() -> None:
        trainer.forward("m", data, "cross_entropy", None, backward=True).result()
        trainer.optim_step("m", AdamParams(learning_rate=1e-2)).result()

    train()
    old = trainer.snapshot("m").result()
    trainer.save("m", tmp_path / "old", optimizer=False).result()
    before = content(sampler.submit(job(PROMPT, old)).result(20))
    train()
    assert before == content(sampler.submit(job(PROMPT, old)).result(20))
    assert before == content(sampler.submit(job(PROMPT, load_adapter(tmp_path / "old"))).result(20))
    new = trainer.snapshot("m").result()
    assert before != content(sampler.submit(job(PROMPT, new)).result(20))


def test_a_request_that_breaks_the_first_draw_is_answered_and_the_next_is_drawn(
    sampler: Sampler,
) -> None:
    broken = sampler.submit(job(top_k=10**400))
    with pytest.raises(EngineError):
        broken.result(20)
    assert len(only(sampler.submit(job())).tokens) == 8


def test_lanes_share_a_load_and_draw_the_same(
    base: BaseModel, adapters: list[Adapter | None]
) -> None:
    requests = [job(seed=seed, adapter=adapters[seed % 3], max_tokens=9) for seed in range(160)]
    answers: list[list[list[tuple[list[int], list[float] | None]]]] = []
    for num_lanes in (1, 3):
        sampler = Sampler(base, num_lanes=num_lanes)
        futures = [sampler.submit(request) for request in requests]
        answers.append([content(future.result(30)) for future in futures])
        sampler.close()
    assert answers[0] == answers[1]


def test_a_small_load_stays_in_one_lane_and_a_large_one_is_spread(base: BaseModel) -> None:
    sampler = Sampler(base, num_lanes=2)
    loads: list[list[int]] = []
    many = SampleJob(PROMPT, None, params(max_tokens=None), num_samples=40)
    for count in (3, 9):
        futures = [sampler.submit(many) for _ in range(count)]
        loads.append([lane.load for lane in sampler._lanes])
        for future in futures:
            future.cancel()
    sampler.close()
    assert [[120, 0], [200, 160]] == loads
    assert [0, 0] == [lane.load for lane in sampler._lanes]
