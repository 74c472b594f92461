"""Hypothesis strategies for what travels: prompts, tensors, batches, results, samples."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinker_ray.types import (
    Datum,
    DmelChunk,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ImageAssetPointerChunk,
    ImageChunk,
    ImageFormat,
    ModelInput,
    PromptAltTokens,
    PromptProvenanceSpan,
    ProvenanceSpans,
    SampledProvenanceSpan,
    SampledSequence,
    SampleResponse,
    SamplingParams,
    StopReason,
    TensorData,
    TopkLogprobs,
)
from tinker_ray.wire.request import ForwardBackwardRequest, SampleRequest

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ANY_FLOAT = st.floats(width=32, allow_nan=True)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
OFFSETS = st.integers(0, 2**40)
FORMATS: list[ImageFormat] = ["png", "jpeg"]
REASONS: list[StopReason] = ["stop", "length"]
EXPECTED_TOKENS = st.none() | st.integers(0, 1000)

text_chunks = st.builds(EncodedTextChunk, st.lists(INT32, max_size=5))
image_chunks = st.builds(
    ImageChunk, st.binary(max_size=8), st.sampled_from(FORMATS), EXPECTED_TOKENS
)
audio_chunks = st.builds(DmelChunk, st.binary(max_size=8))
pointer_chunks = st.builds(ImageAssetPointerChunk, NAMES, st.sampled_from(FORMATS), EXPECTED_TOKENS)


def prompts(*, pointers: bool) -> st.SearchStrategy[ModelInput]:
    """Prompts of all kinds of chunks."""
    chunks = st.one_of(text_chunks, image_chunks, audio_chunks)
    if pointers:
        return st.builds(ModelInput, st.lists(chunks | pointer_chunks, max_size=4))
    return st.builds(ModelInput, st.lists(chunks, max_size=4))


@st.composite
def sparse_tensors(draw: st.DrawFn, values: st.SearchStrategy[float]) -> TensorData:
    """Float tensors in CSR form."""
    rows, columns = draw(st.integers(0, 4)), draw(st.integers(1, 4))
    columns_of_rows = draw(
        st.lists(
            st.lists(st.integers(0, columns - 1), unique=True, max_size=columns).map(sorted),
            min_size=rows,
            max_size=rows,
        )
    )
    col = [column for row in columns_of_rows for column in row]
    crow = [0, *np.cumsum([len(row) for row in columns_of_rows], dtype=int).tolist()]
    data = draw(st.lists(values, min_size=len(col), max_size=len(col)))
    return TensorData(data, "float32", [rows, columns], crow, col)


def tensors(values: st.SearchStrategy[float]) -> st.SearchStrategy[TensorData]:
    """Tensors of both dtypes and both layouts, scalars and empty ones too."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    return st.one_of(
        hnp.arrays(np.float32, shapes, elements=values).map(TensorData.from_numpy),
        hnp.arrays(np.int64, shapes, elements=INT64).map(TensorData.from_numpy),
        sparse_tensors(values),
    )


@st.composite
def tilings(draw: st.DrawFn, num_tokens: int) -> ProvenanceSpans:
    """Runs that cover so many tokens; an empty one only where there is nothing to cover."""
    spans: ProvenanceSpans = []
    while num_tokens or not spans:
        length = draw(st.integers(min(1, num_tokens), num_tokens))
        kind = SampledProvenanceSpan if draw(st.booleans()) else PromptProvenanceSpan
        spans.append(kind(sequence_id=draw(NAMES), offset=draw(OFFSETS), length=length))
        num_tokens -= length
    return spans


@st.composite
def traced_datums(draw: st.DrawFn) -> Datum:
    """Datums that say where their tokens come from."""
    tokens = draw(st.lists(INT32, max_size=5))
    targets = TensorData(tokens, "int64", [len(tokens)])
    datum = Datum(ModelInput.from_ints(tokens), {"target_tokens": targets})
    return datum.with_provenance(draw(tilings(len(tokens))), draw(tilings(len(tokens))))


def batches(*, proto: bool) -> st.SearchStrategy[ForwardBackwardRequest]:
    """Training batches that an encoding can carry."""
    values = ANY_FLOAT if proto else FINITE
    datums = st.builds(
        Datum,
        prompts(pointers=not proto),
        st.dictionaries(NAMES, tensors(values), max_size=3),
    )
    return st.builds(
        ForwardBackwardRequest,
        model_id=NAMES,
        data=st.lists(datums | traced_datums() if proto else datums, max_size=3),
        loss_fn=NAMES,
        seq_id=st.none() | st.integers(1, 2**31 - 1),
        loss_fn_config=st.dictionaries(
            NAMES, st.floats(allow_nan=False, allow_infinity=False) | NAMES, max_size=3
        ),
        forward_only=st.booleans(),
    )


@st.composite
def outputs(draw: st.DrawFn, *, proto: bool) -> ForwardBackwardOutput:
    """Training results whose datums agree in keys, dtypes and trailing shapes."""
    values = ANY_FLOAT if proto else FINITE
    keys = draw(st.lists(NAMES, unique=True, max_size=3))
    trailing = {key: tuple(draw(st.lists(st.integers(1, 3), max_size=2))) for key in keys}
    is_float = {key: draw(st.booleans()) for key in keys}
    datums = [
        {
            key: TensorData.from_numpy(
                draw(hnp.arrays(np.float32, shape, elements=values))
                if is_float[key]
                else draw(hnp.arrays(np.int64, shape, elements=INT64))
            )
            for key in keys
            for shape in [(draw(st.integers(0, 3)), *trailing[key])]
        }
        for _ in range(draw(st.integers(0, 3)))
    ]
    metric_values = st.floats(allow_nan=False, allow_infinity=False)
    metrics = draw(st.dictionaries(NAMES, metric_values, max_size=3))
    return ForwardBackwardOutput(draw(NAMES.filter(lambda name: ":" not in name)), datums, metrics)


sampling_params = st.builds(
    SamplingParams,
    max_tokens=st.none() | st.integers(0, 1000),
    seed=st.none() | st.integers(0, 2**63 - 1),
    stop=st.one_of(st.none(), NAMES, st.lists(NAMES, max_size=3), st.lists(INT32, max_size=3)),
    temperature=st.floats(0, 10),
    top_k=st.integers(-1, 100),
    top_p=st.floats(0, 1),
)
sample_requests = st.builds(
    SampleRequest,
    prompt=prompts(pointers=True),
    sampling_params=sampling_params,
    num_samples=st.integers(1, 100),
    sampling_session_id=st.none() | NAMES,
    seq_id=st.none() | st.integers(0, 10**18),
    base_model=st.none() | NAMES,
    model_path=st.none() | NAMES,
    prompt_logprobs=st.booleans(),
    topk_prompt_logprobs=st.integers(0, 20),
    topk_sample_logprobs=st.integers(0, 20),
    target_prompt_logprobs=st.none() | tensors(FINITE),
    prompt_alt_tokens_k=st.integers(0, 20),
    prompt_logprobs_last_n=st.none() | st.integers(1, 20),
    record_stability_info=st.booleans(),
)


@st.composite
def sequences(draw: st.DrawFn, *, proto: bool) -> SampledSequence:
    """Drawn sequences of at least one token, with or without logprobs."""
    num_tokens = draw(st.integers(1, 4))
    logprobs = draw(st.none() | hnp.arrays(np.float32, num_tokens, elements=FINITE))
    return SampledSequence(
        draw(st.sampled_from(REASONS)),
        "",
        draw(hnp.arrays(np.int32, num_tokens, elements=INT32)),
        logprobs,
        draw(st.none() | likeliest(num_tokens)) if proto else None,
    )


@st.composite
def likeliest(draw: st.DrawFn, length: int) -> TopkLogprobs:
    """Rows that are empty, short or full."""
    k = draw(st.integers(1, 3))
    token_ids = np.zeros((length, k), dtype=np.int32)
    logprobs = np.full((length, k), -99999.0, dtype=np.float32)
    for row in range(length):
        # One row is full, so that the JSON form, which has no k, keeps the width.
        filled = k if row == length - 1 else draw(st.integers(0, k))
        token_ids[row, :filled] = draw(hnp.arrays(np.int32, filled, elements=INT32))
        scores = hnp.arrays(np.float32, filled, elements=st.floats(-100, 0, width=32))
        logprobs[row, :filled] = draw(scores)
    return TopkLogprobs(token_ids, logprobs)


@st.composite
def alternatives(draw: st.DrawFn, length: int) -> PromptAltTokens:
    """Draws at each position."""
    shape = (length, draw(st.integers(1, 3)))
    return PromptAltTokens(
        TensorData.from_numpy(draw(hnp.arrays(np.int64, shape, elements=INT32))),
        TensorData.from_numpy(draw(hnp.arrays(np.float32, shape, elements=FINITE))),
    )


@st.composite
def sample_responses(draw: st.DrawFn, *, proto: bool) -> SampleResponse:
    """Responses whose prompt was scored, or not."""
    length = draw(st.integers(1, 4))
    scores = hnp.arrays(np.float32, length, elements=FINITE | st.just(float("nan")))
    return SampleResponse(
        draw(st.lists(sequences(proto=proto), max_size=3)),
        draw(st.none() | scores),
        draw(st.none() | likeliest(length)),
        draw(st.none() | tensors(FINITE)) if proto else None,
        draw(st.integers(0, 2**31 - 1)) if proto else 0,
        draw(st.none() | alternatives(length)) if proto else None,
    )
