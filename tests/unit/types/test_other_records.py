"""Records whose parts are told apart by a key, and those with something of their own."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from tinker_ray import types

HOUR = {"bucket_start": "2025-12-04T09:00:00Z", "bucket_end": "2025-12-04T10:00:00Z"}
EVENT = {
    "event_id": "e",
    "event_session_index": 0,
    "severity": "INFO",
    "timestamp": "2025-12-04T10:00:00Z",
}


@pytest.mark.parametrize(
    "info,expected",
    [
        ({"type": "training", "token_count": 5}, types.TrainingBillingEvent(token_count=5)),
        (
            {"type": "sampling_prefill", "cached": True, "token_count": 5},
            types.SamplingPrefillBillingEvent(cached=True, token_count=5),
        ),
        (
            {"type": "sampling_sample", "token_count": 5},
            types.SamplingSampleBillingEvent(token_count=5),
        ),
        ({"type": "checkpoint", "count": 1}, types.CheckpointBillingEvent(count=1)),
        ({"type": "storage", "gigabyte_hours": 0.5}, types.StorageBillingEvent(gigabyte_hours=0.5)),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_what_was_billed_is_known_by_its_type(info: dict[str, Any], expected: BaseModel) -> None:
    usage = types.BillingUsageResponse.model_validate({"data": [HOUR | {"event_info": info}]})
    assert expected == usage.data[0].event_info
    assert {} == usage.sessions


@pytest.mark.parametrize(
    "fields,cls",
    [
        ({"event": "SESSION_START"}, types.SessionStartEvent),
        ({"event": "SESSION_END", "duration": "0:00:05"}, types.SessionEndEvent),
        (
            {"event": "UNHANDLED_EXCEPTION", "error_type": "E", "error_message": "m"},
            types.UnhandledExceptionEvent,
        ),
        ({"event": "GENERIC_EVENT", "event_name": "n"}, types.GenericEvent),
    ],
    ids=lambda value: value["event"] if isinstance(value, dict) else "",
)
def test_events_keep_their_fields(fields: dict[str, Any], cls: type[BaseModel]) -> None:
    batch = types.TelemetrySendRequest.model_validate(
        {"events": [EVENT | fields], "platform": "Linux", "sdk_version": "1", "session_id": "S1"}
    )
    sent = batch.model_dump(mode="json")["events"][0]
    assert cls.model_validate(EVENT | fields) == cls.model_validate(sent)
    assert set(fields) <= set(sent)


def test_completions_are_known_by_their_state() -> None:
    answer = types.FuturesRetrieveResponse.model_validate(
        {
            "completions": [
                {"state": "finished", "request_id": "a", "response_payload_uncompressed_size": 9},
                {"state": "failed", "request_id": "b"},
            ],
            "cursor": 2,
        }
    )
    finished = types.FutureFinished(request_id="a", response_payload_uncompressed_size=9)
    assert [finished, types.FutureFailed(request_id="b")] == answer.completions
    with pytest.raises(ValidationError, match="state"):
        types.FuturesRetrieveResponse.model_validate(
            {"completions": [{"request_id": "a"}], "cursor": 1}
        )


@pytest.mark.parametrize(
    "fields,cls",
    [
        (
            {"type": "try_again", "request_id": "a", "queue_state": "active"},
            types.TryAgainResponse,
        ),
        ({"error": "no", "category": "user"}, types.RequestFailedResponse),
        (
            {"loss_fn_output_type": "x", "loss_fn_outputs": [], "metrics": {}},
            types.ForwardBackwardOutput,
        ),
    ],
    ids=["pending", "failed", "done"],
)
def test_the_answer_to_a_poll_is_one_of_many(fields: dict[str, Any], cls: type) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(types.FutureRetrieveResponse)
    assert cls is type(adapter.validate_python(fields))


@pytest.mark.parametrize(
    "word,state",
    [("active", "ACTIVE"), ("paused_capacity", "PAUSED_CAPACITY"), ("x", "UNKNOWN")],
)
def test_a_queue_state_that_is_not_known_is_unknown(word: str, state: str) -> None:
    assert types.QueueState[state] is types.QueueState.of(word)


def test_a_token_stays_out_of_reprs() -> None:
    answer = types.AuthTokenResponse(jwt="eyJsecret")
    assert "secret" not in f"{answer!r} {answer}"
    load = types.LoadWeightsRequest(path="p", optimizer=False, weights_access_token="secret")  # noqa: S106
    copy = types.CopyWeightsRequest(source_path="p", weights_access_token="secret")  # noqa: S106
    assert "secret" not in f"{load!r} {load} {copy!r} {copy}"
    assert "secret" == load.model_dump()["weights_access_token"]


def test_saved_weights_have_an_address_in_the_console() -> None:
    console = "https://tinker.thinkingmachines.ai"
    checkpoint = f"{console}/checkpoints/S1%3Atrain%3A0"
    state = types.SaveWeightsResponse(path="tinker://S1:train:0/weights/a")
    assert f"{checkpoint}/weights%2Fa" == state.get_console_url()
    sampler = types.SaveWeightsForSamplerResponse(path="tinker://S1:train:0/sampler_weights/a")
    assert f"{checkpoint}/sampler_weights%2Fa" == sampler.get_console_url()
    query = "mode=checkpoint&checkpoint=tinker%3A%2F%2FS1%3Atrain%3A0%2Fsampler_weights%2Fa"
    assert f"{console}/playground?{query}" == sampler.get_playground_url()


def test_a_misspelt_key_of_a_request_is_refused() -> None:
    with pytest.raises(ValidationError, match="ttl"):
        types.SaveWeightsRequest.model_validate({"model_id": "m", "ttl": 5})
