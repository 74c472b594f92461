"""Both sides of our wire share their codecs, so the truth comes from upstream's own clients.

``golden/upstream-*.json`` is what they sent and how they read our results, recorded by
``record_golden.py``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from tests.contract import our_results
from tinker_ray.core.flags import JSON_ONLY, ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.operation import (
    ForwardBackward,
    LoadState,
    Operation,
    OptimStep,
    SaveForSampler,
    SaveState,
    encode,
)
from tinker_ray.core.session import SessionCore, create_session
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.scripted import ScriptedTransport, answer
from tinker_ray.types import (
    AdamParams,
    Datum,
    DmelChunk,
    EncodedTextChunk,
    ImageAssetPointerChunk,
    ImageChunk,
    LoraConfig,
    ModelInput,
    PromptProvenanceSpan,
    SampledProvenanceSpan,
    SamplingParams,
    TensorData,
)
from tinker_ray.version import SDK_VERSION
from tinker_ray.wire import codec
from tinker_ray.wire import tinker_public_pb2 as pb
from tinker_ray.wire.request import ForwardBackwardRequest, SampleRequest

GOLDEN = Path(__file__).parent / "golden"
NEWER, OLDER = "0.38.0", "0.6.3"
MODEL = "S1:train:0"
STATE = "tinker://S1:train:0/weights/a"
SNAPSHOT = "tinker://S1:train:0/sampler_weights/b"
Recorded = dict[str, Any]


def recorded(version: str) -> Recorded:
    content: Recorded = json.loads((GOLDEN / f"upstream-{version}.json").read_text())
    return content


def requests_of(version: str, *names: str) -> list[Recorded]:
    paths = {f"/api/v1/{name}" for name in names}
    return [item for item in recorded(version)["requests"] if item["path"] in paths]


def content_of(request: Recorded) -> bytes:
    if "base64" in request:
        return base64.b64decode(request["base64"])
    text: str = request["text"]
    return text.encode()


def bodies(version: str, *names: str) -> list[Recorded]:
    return [json.loads(content_of(request)) for request in requests_of(version, *names)]


# --- training batches -----------------------------------------------------------------------------

TEXT = Datum(
    ModelInput.from_ints([1, 2, 3]),
    {
        "target_tokens": TensorData([2, 3, 4], "int64", [3]),
        "weights": TensorData([1.0, 0.5, 0.0], "float32", [3]),
    },
)
MIXED = ModelInput([ImageChunk(b"\x89PNG", "png", expected_tokens=2), EncodedTextChunk([7])])
SPARSE = Datum(MIXED, {"weights": TensorData([0.25], "float32", [2, 3], [0, 1, 1], [2])})
TRACED = Datum(
    ModelInput([EncodedTextChunk([1, 2]), DmelChunk(b"\x02\x01\x03")]), {"target_tokens": [5, 6]}
).with_provenance(
    [
        PromptProvenanceSpan(sequence_id="q/0", length=2),
        SampledProvenanceSpan(sequence_id="q/1", offset=4, length=3),
    ],
    [SampledProvenanceSpan(sequence_id="q/1", offset=5, length=2)],
)
CLIP = {"clip_low_threshold": 0.75, "clip_high_threshold": 1.25}


def batches(*others: Datum) -> list[ForwardBackwardRequest]:
    return [
        ForwardBackwardRequest(MODEL, [TEXT, *others], "cross_entropy", 1),
        ForwardBackwardRequest(MODEL, [TEXT, *others], "ppo", 2, CLIP),
        ForwardBackwardRequest(MODEL, [TEXT], "cross_entropy", 3, forward_only=True),
    ]


BATCHES = {NEWER: batches(SPARSE, TRACED), OLDER: batches(Datum(MIXED))}


@pytest.mark.parametrize("version", [NEWER, OLDER])
def test_we_read_upstreams_training_batches(version: str) -> None:
    sent = requests_of(version, "forward", "forward_backward")
    assert BATCHES[version] == [
        codec.decode_forward_backward(content_of(request), request["content_type"])
        for request in sent
    ]


def test_upstream_reads_our_training_batches_as_its_own_in_protobuf() -> None:
    for request, sent in zip(BATCHES[NEWER], requests_of(NEWER, "forward_backward"), strict=True):
        body = codec.encode_forward_backward(request, proto=True)
        ours = pb.ForwardBackwardRequest.FromString(body.content)
        theirs = pb.ForwardBackwardRequest.FromString(content_of(sent))
        assert theirs == ours
        assert sent["content_type"] == body.content_type
        # Maps have no order on the wire; in one order the bytes are the same.
        assert theirs.SerializeToString(deterministic=True) == ours.SerializeToString(
            deterministic=True
        )


def test_our_training_batches_in_json_are_upstreams_with_discriminators() -> None:
    sent = requests_of(OLDER, "forward", "forward_backward")
    for request, theirs in zip(BATCHES[OLDER], sent, strict=True):
        ours = json.loads(codec.encode_forward_backward(request, proto=False).content)
        assert json.loads(content_of(theirs)) == without_types(ours)


def without_types(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: without_types(item) for key, item in value.items() if key != "type"}
    return [without_types(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("version", [NEWER, OLDER])
def test_our_training_batches_go_where_upstreams_go(version: str) -> None:
    sent = requests_of(version, "forward", "forward_backward")
    for request, theirs in zip(BATCHES[version], sent, strict=True):
        operation = ForwardBackward(
            request.seq_id or 0,
            request.data,
            request.loss_fn,
            request.loss_fn_config,
            request.forward_only,
        )
        assert theirs["path"] == encode(operation, MODEL, protobuf=version == NEWER).endpoint.path


# --- samples --------------------------------------------------------------------------------------

SESSION = "S1:sample:0"
POINTER = ModelInput(
    [ImageAssetPointerChunk("s3://image", "jpeg", expected_tokens=3), EncodedTextChunk([5])]
)
SAMPLES = [
    SampleRequest(
        ModelInput.from_ints([5, 6, 7]),
        SamplingParams(max_tokens=4, seed=9, stop=[1, 2], temperature=0.5),
        num_samples=2,
        sampling_session_id=SESSION,
        seq_id=0,
        prompt_logprobs=True,
        topk_prompt_logprobs=2,
    ),
    SampleRequest(
        POINTER,
        SamplingParams(stop="\n"),
        num_samples=2,
        sampling_session_id=SESSION,
        seq_id=1,
    ),
    SampleRequest(
        ModelInput.from_ints([5, 6, 7]),
        SamplingParams(max_tokens=1),
        sampling_session_id=SESSION,
        seq_id=2,
        prompt_logprobs=True,
    ),
]
EVERYTHING = SampleRequest(
    ModelInput.from_ints([5, 6, 7]),
    num_samples=2,
    sampling_session_id=SESSION,
    seq_id=2,
    prompt_logprobs=True,
    topk_sample_logprobs=2,
    target_prompt_logprobs=TensorData([9], "int64", [2, 3], [0, 1, 1], [2]),
    prompt_alt_tokens_k=2,
    prompt_logprobs_last_n=2,
)
ASKED = {NEWER: [*SAMPLES[:2], EVERYTHING, replace(SAMPLES[2], seq_id=3)], OLDER: SAMPLES}
LEFT_OUT = {
    "topk_sample_logprobs": 0,
    "prompt_alt_tokens_k": 0,
    "record_stability_info": False,
}
"""What the newer generation sends though it is the default."""


@pytest.mark.parametrize("version", [NEWER, OLDER])
def test_we_read_upstreams_sampling_requests(version: str) -> None:
    sent = requests_of(version, "asample")
    assert ASKED[version] == [codec.decode_sample(content_of(request)) for request in sent]


def test_our_sampling_requests_are_upstreams() -> None:
    ours = [json.loads(codec.encode_sample(request).content) for request in ASKED[NEWER]]
    assert bodies(NEWER, "asample") == [LEFT_OUT | body for body in ours]


def test_services_of_the_older_generation_meet_no_field_that_they_do_not_know() -> None:
    known = {key for body in bodies(OLDER, "asample") for key in body} | {"type"}
    ours = {key for item in SAMPLES for key in json.loads(codec.encode_sample(item).content)}
    assert set() == ours - known


# --- other operations -----------------------------------------------------------------------------

OPERATIONS: list[Operation] = [
    OptimStep(4, AdamParams(learning_rate=0.5)),
    OptimStep(5, AdamParams()),
    SaveState(6, "a"),
    LoadState(7, STATE, optimizer=False),
    LoadState(8, STATE, optimizer=True),
    SaveForSampler(9, "b"),
    SaveForSampler(10, sampling_session_seq_id=0),
]
DEFAULTS = {"overwrite": False, "kind": "snapshot"}
"""Keys that upstream sends with their defaults and we leave out."""


def test_our_operations_are_upstreams() -> None:
    names = ("optim_step", "save_weights", "load_weights", "save_weights_for_sampler")
    sent = [item for item in requests_of(NEWER, *names) if "model_id" in item["text"]]
    for operation, theirs in zip(OPERATIONS, sent, strict=True):
        ours = encode(operation, MODEL, protobuf=True)
        body = json.loads(content_of(theirs))
        left_out = {key: value for key, value in DEFAULTS.items() if key in body}
        assert theirs["path"] == ours.endpoint.path
        assert body == left_out | json.loads(ours.body.content)


@pytest.mark.parametrize("version", [NEWER, OLDER])
def test_we_read_upstreams_optimizer_parameters(version: str) -> None:
    read = [AdamParams.model_validate(b["adam_params"]) for b in bodies(version, "optim_step")]
    assert [AdamParams(learning_rate=0.5), AdamParams()] == read


# --- sessions -------------------------------------------------------------------------------------


def service() -> ScriptedTransport:
    """A service that makes everything that it is asked for."""

    def keep(request: Request) -> Response:
        return answer({"path": STATE, "model_id": json.loads(request.content)["request_id"]})

    def promise(request: Request) -> Response:
        body = json.loads(request.content)
        return answer({"request_id": body.get("model_id") or f"S1:train:{body['model_seq_id']}"})

    v1 = "/api/v1/"
    return ScriptedTransport(
        {
            f"{v1}create_session": [answer({"session_id": "S1"})],
            f"{v1}create_model": [promise],
            f"{v1}load_weights": [promise],
            f"{v1}retrieve_future": [keep],
            f"{v1}create_sampling_session": [answer({"sampling_session_id": "S1:sample:1"})],
            f"{v1}weights_info": [answer({"base_model": "base", "is_lora": True, "lora_rank": 8})],
            f"{v1}sessions/S1/finish": [answer({})],
        }
    )


async def use(transport: ScriptedTransport, flags: ServerFlags) -> None:
    """Do with a session what the recorded clients did."""
    link = Link(transport, VirtualClock(), flags)
    session_id = await create_session(link, tags=[], user_metadata={"team": "rl"})
    session = SessionCore(link, session_id)
    await session.create_model(0, "base", LoraConfig(rank=8, seed=3, train_unembed=False))
    await session.create_sampling_session(1, base_model="base")
    await session.create_sampling_session(2, model_path=SNAPSHOT)
    await session.create_model_from_state(1, STATE, optimizer=False)
    await session.create_model_from_state(2, STATE, optimizer=True)
    await session.finish("success", "recorded")


SESSION_CALLS = (
    "create_session",
    "create_model",
    "create_sampling_session",
    "weights_info",
    "load_weights",
    "sessions/S1/finish",
)


def without_nulls(value: Recorded) -> Recorded:
    return {
        key: without_nulls(item) if isinstance(item, dict) else item
        for key, item in value.items()
        if item is not None
    }


@pytest.mark.parametrize("version,flags", [(NEWER, ServerFlags()), (OLDER, JSON_ONLY)])
async def test_our_sessions_make_upstreams_requests(version: str, flags: ServerFlags) -> None:
    transport = service()
    await use(transport, flags)
    # A load of an existing model is an operation, compared above.
    theirs = [
        (request["path"], without_nulls(json.loads(content_of(request))))
        for request in requests_of(version, *SESSION_CALLS)
        if json.loads(content_of(request)).get("model_id") != MODEL
    ]
    ours = [
        (sent.request.path, sent.json())
        for sent in transport.sent
        if not sent.request.path.endswith("/retrieve_future")
    ]
    if version == OLDER:
        ours = [(path, without_types(body)) for path, body in ours if "finish" not in path]
    for (their_path, their_body), (our_path, our_body) in zip(theirs, ours, strict=True):
        their_body.pop("optimizer_config", None)
        if "sdk_version" in their_body:
            assert (version, SDK_VERSION) == (their_body["sdk_version"], our_body["sdk_version"])
            their_body["sdk_version"] = our_body["sdk_version"]
        assert (their_path, their_body) == (our_path, our_body)


# --- results --------------------------------------------------------------------------------------


def test_the_recorded_results_are_what_we_encode() -> None:
    stored = json.loads((GOLDEN / "ours.json").read_text())
    for kind, message in (
        ("ForwardBackward", pb.ForwardBackwardOutput),
        ("Sample", pb.SampleResponse),
    ):
        content = base64.b64decode(stored["protobuf"][kind])
        today = base64.b64decode(our_results.encoded()["protobuf"][kind])
        assert message.FromString(content) == message.FromString(today)
    assert stored["json"] == our_results.encoded()["json"]


NEWER_READS = {
    "topk_logprobs": [[[[11, -0.125]], [[4, -0.0625], [12, -0.25]]], [[[13, -0.75]]]],
    "prompt_cache_hit_tokens": 2,
    "target_prompt_logprobs": [[0.0, 0.0, -4.0], [0.0, 0.0, 0.0]],
    "target_columns": [2],
    "prompt_alt_tokens": [[7, 8], [9, 10]],
    "prompt_alt_logprobs": [[-1.0, -2.0], [-3.0, -4.0]],
}


@pytest.mark.parametrize("version", [NEWER, OLDER])
def test_upstream_reads_our_results_as_they_are(version: str) -> None:
    read = recorded(version)["read"]
    trained, sampled = our_results.TRAINED, our_results.SAMPLED
    assert {
        "loss_fn_output_type": trained.loss_fn_output_type,
        "loss_fn_outputs": [
            {
                key: {"data": tensor.data, "dtype": tensor.dtype, "shape": tensor.shape}
                for key, tensor in item.items()
            }
            for item in trained.loss_fn_outputs
        ],
        "metrics": trained.metrics,
    } == read["ForwardBackward"]
    assert {
        "sequences": [
            {"stop_reason": item.stop_reason, "tokens": item.tokens, "logprobs": item.logprobs}
            for item in sampled.sequences
        ],
        "prompt_logprobs": sampled.prompt_logprobs,
        "topk_prompt_logprobs": [
            None if row is None else [list(pair) for pair in row]
            for row in sampled.topk_prompt_logprobs or ()
        ],
        **(NEWER_READS if version == NEWER else {}),
    } == read["Sample"]


def test_upstream_asks_for_bulk_results_in_protobuf_since_it_sends_it() -> None:
    bulk = requests_of(NEWER, "forward_backward", "asample")
    polls = requests_of(NEWER, "retrieve_future")
    assert len(bulk) == sum(codec.is_protobuf(poll["accept"]) for poll in polls)
    assert not any(
        codec.is_protobuf(poll["accept"]) for poll in requests_of(OLDER, "retrieve_future")
    )


# --- the schema -----------------------------------------------------------------------------------


def fields_of(
    messages: Iterable[DescriptorProto], prefix: str = ""
) -> dict[str, set[tuple[object, ...]]]:
    """Describe each message by its fields, whatever package it is in."""
    described: dict[str, set[tuple[object, ...]]] = {}
    for message in messages:
        name = f"{prefix}{message.name}"
        described[name] = {
            (
                field.number,
                field.name,
                field.type,
                field.label,
                field.type_name.rpartition(".")[2],
                field.proto3_optional,
                message.oneof_decl[field.oneof_index].name
                if field.HasField("oneof_index")
                else None,
            )
            for field in message.field
        }
        described |= fields_of(message.nested_type, f"{name}.")
    return described


def test_our_schema_is_upstreams() -> None:
    theirs = FileDescriptorProto.FromString(base64.b64decode(recorded(NEWER)["descriptor"]))
    ours = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    their_fields = fields_of(theirs.message_type)
    unused = {"SamplingParams", "StopStrings", "StopTokens"}
    assert {name: fields for name, fields in their_fields.items() if name not in unused} == (
        fields_of(ours.message_type)
    )
    their_enums, our_enums = (
        {enum.name: {value.name: value.number for value in enum.value} for enum in file.enum_type}
        for file in (theirs, ours)
    )
    assert their_enums == our_enums


@pytest.mark.parametrize("name", ["ours.json", f"upstream-{NEWER}.json", f"upstream-{OLDER}.json"])
def test_no_secret_was_recorded(name: str) -> None:
    text = (GOLDEN / name).read_text().lower()
    for word in ("tml-", "api-key", "authorization", "cookie"):
        assert word not in text
