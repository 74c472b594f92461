from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tinker_ray.types import (
    Checkpoint,
    CheckpointsListResponse,
    GetInfoResponse,
    GetSamplerResponse,
    GetServerCapabilitiesResponse,
    GetSessionResponse,
    ParsedCheckpointTinkerPath,
    TrainingRunsResponse,
    WeightsInfoResponse,
)

CHECKPOINT: dict[str, Any] = {
    "checkpoint_id": "weights/step-10",
    "checkpoint_type": "training",
    "time": "2025-12-04T09:58:00Z",
    "tinker_path": "tinker://7c0e:train:0/weights/step-10",
    "size_bytes": 1048576,
    "public": False,
}
RUN: dict[str, Any] = {
    "training_run_id": "7c0e:train:0",
    "base_model": "Qwen/Qwen3-8B",
    "model_owner": "u1",
    "is_lora": True,
    "corrupted": False,
    "lora_rank": 32,
    "last_request_time": "2025-12-04T10:00:00Z",
    "last_checkpoint": CHECKPOINT,
}
CURSOR = {"offset": 0, "limit": 20, "total_count": 1}


def test_a_page_of_training_runs_is_read_as_the_contract_shows_it() -> None:
    page = TrainingRunsResponse.model_validate({"training_runs": [RUN], "cursor": CURSOR})
    run = page.training_runs[0]
    assert (32, 1) == (run.lora_rank, page.cursor.total_count)
    assert datetime(2025, 12, 4, 10, tzinfo=UTC) == run.last_request_time
    assert Checkpoint.model_validate(CHECKPOINT) == run.last_checkpoint


def test_keys_that_a_newer_service_adds_are_ignored() -> None:
    later = CHECKPOINT | {"colour": "blue", "checkpoint_type": "external"}
    assert "external" == Checkpoint.model_validate(later).checkpoint_type


@pytest.mark.parametrize(
    "record,body,field",
    [
        (TrainingRunsResponse, {"training_runs": []}, "cursor"),
        (CheckpointsListResponse, {}, "checkpoints"),
        (Checkpoint, CHECKPOINT | {"checkpoint_type": "other"}, "checkpoint_type"),
        (Checkpoint, CHECKPOINT | {"time": "yesterday"}, "time"),
        (GetInfoResponse, {"model_id": "m"}, "model_data"),
        (GetServerCapabilitiesResponse, {}, "supported_models"),
        (GetSessionResponse, {"training_run_ids": []}, "sampler_ids"),
        (GetSamplerResponse, {"sampler_id": "s"}, "base_model"),
        (WeightsInfoResponse, {"base_model": "b"}, "is_lora"),
    ],
)
def test_a_record_without_what_it_needs_is_refused(
    record: type[BaseModel], body: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError, match=field):
        record.model_validate(body)


@pytest.mark.parametrize(
    "segment,kind",
    [("weights", "training"), ("sampler_weights", "sampler"), ("external_weights", "external")],
)
def test_a_tinker_path_tells_its_run_kind_and_checkpoint(segment: str, kind: str) -> None:
    path = f"tinker://7c0e:train:0/{segment}/step-10"
    assert ParsedCheckpointTinkerPath(
        tinker_path=path,
        training_run_id="7c0e:train:0",
        checkpoint_type=kind,
        checkpoint_id=f"{segment}/step-10",
    ) == ParsedCheckpointTinkerPath.from_tinker_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "run/weights/a",
        "http://run/weights/a",
        "tinker://run/weights",
        "tinker://run/weights/",
        "tinker:///weights/a",
        "tinker://run/weights/a/b",
        "tinker://run/states/a",
    ],
)
def test_another_shape_is_no_tinker_path(path: str) -> None:
    with pytest.raises(ValueError, match="invalid checkpoint path"):
        ParsedCheckpointTinkerPath.from_tinker_path(path)


RUNS = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(RUNS, st.sampled_from(["weights", "sampler_weights", "external_weights"]), RUNS)
def test_any_run_and_name_make_a_path_that_gives_them_back(
    run: str, segment: str, name: str
) -> None:
    parsed = ParsedCheckpointTinkerPath.from_tinker_path(f"tinker://{run}/{segment}/{name}")
    assert (run, f"{segment}/{name}") == (parsed.training_run_id, parsed.checkpoint_id)
    assert f"tinker://{parsed.training_run_id}/{parsed.checkpoint_id}" == parsed.tinker_path


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20) | st.text(max_size=20).map("tinker://".__add__))
def test_any_text_is_a_path_or_is_refused(text: str) -> None:
    try:
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(text)
    except ValueError:
        return
    assert text == f"tinker://{parsed.training_run_id}/{parsed.checkpoint_id}"
