from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tinker_ray.types import (
    AccessibleSearchOwner,
    ActiveSessionStatusQuery,
    ClientFinishedSessionStatusQuery,
    ClientSessionFinished,
    ClientSessionFinishErrored,
    OwnSearchOwner,
    SessionActive,
    SessionCancelled,
    SessionFailed,
    SessionFailedTrainingRunReason,
    SessionSearchRequest,
    SessionSearchResponse,
    UserSearchOwner,
)

SUMMARY: dict[str, Any] = {
    "session_id": "S1",
    "created_at": "2025-12-04T09:58:00Z",
    "owner": "urn:1",
    "project_id": "p",
    "checkpoints_count": 2,
}


@pytest.mark.parametrize(
    "status,expected",
    [
        (None, None),
        ({"type": "active"}, SessionActive()),
        ({"type": "cancelled", "detail": "idle"}, SessionCancelled(detail="idle")),
        (
            {"type": "client_finished", "reason": {"type": "errored"}},
            ClientSessionFinished(reason=ClientSessionFinishErrored()),
        ),
        (
            {
                "type": "failed",
                "category": "user",
                "message": "no",
                "reason": {"type": "training_run", "training_run_id": "S1:train:0"},
            },
            SessionFailed(
                category="user",
                message="no",
                reason=SessionFailedTrainingRunReason(training_run_id="S1:train:0"),
            ),
        ),
    ],
    ids=["unknown", "active", "cancelled", "finished", "failed"],
)
def test_a_session_that_was_found_says_what_became_of_it(status: object, expected: object) -> None:
    page = {"sessions": [SUMMARY | {"status": status}], "next_cursor": None}
    found = SessionSearchResponse.model_validate(page).sessions[0]
    assert expected == found.status


def test_a_search_is_for_ones_own_sessions_by_default() -> None:
    assert {
        "user_metadata": {},
        "owner": {"type": "own"},
        "limit": 50,
    } == SessionSearchRequest().model_dump(exclude_none=True)


def test_a_search_is_read_as_it_is_sent() -> None:
    request = SessionSearchRequest(
        owner=UserSearchOwner(owner_urns=["urn:1"]),
        statuses=[
            ActiveSessionStatusQuery(),
            ClientFinishedSessionStatusQuery(reasons=["errored"]),
        ],
        cursor={"last_created_at": "2025-12-04T09:58:00Z", "last_session_id": "S1"},
    )
    assert request == SessionSearchRequest.model_validate_json(request.model_dump_json())
    for owner in (OwnSearchOwner(), AccessibleSearchOwner()):
        dumped = SessionSearchRequest(owner=owner).model_dump()
        assert owner == SessionSearchRequest.model_validate(dumped).owner


@pytest.mark.parametrize(
    "field,value",
    [
        ("limit", 0),
        ("limit", 201),
        ("display_name", ""),
        ("statuses", []),
        ("statuses", [{"type": "sleeping"}]),
        ("owner", {"type": "user", "owner_urns": []}),
        ("owner", {"type": "user", "owner_urns": ["u"] * 11}),
        ("cursor", {"last_created_at": "2025-12-04T09:58:00", "last_session_id": "S1"}),
        ("colour", "blue"),
    ],
)
def test_a_search_refuses_what_cannot_work(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        SessionSearchRequest.model_validate({field: value})
