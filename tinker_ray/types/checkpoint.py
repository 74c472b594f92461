"""Checkpoints: their records, their paths, and where their files can be fetched.

Times are timezone-aware; sizes are in bytes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from tinker_ray.types.model import Record

CheckpointType: TypeAlias = Literal["training", "sampler", "external"]
_SEGMENTS: dict[str, CheckpointType] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}
_SCHEME = "tinker://"


class Cursor(Record):
    """Where a page stands in the whole list."""

    offset: int
    limit: int
    total_count: int


class Checkpoint(Record):
    """A saved state; ``checkpoint_id`` is ``<segment>/<name>``, ``expires_at`` None means never."""

    checkpoint_id: str
    checkpoint_type: CheckpointType
    time: datetime
    tinker_path: str
    size_bytes: int | None = None
    public: bool = False
    user_metadata: dict[str, str] | None = None
    expires_at: datetime | None = None


class CheckpointsListResponse(Record):
    """One page of checkpoints, or all of a run's."""

    checkpoints: list[Checkpoint]
    cursor: Cursor | None = None


class CheckpointArchiveUrlResponse(Record):
    """Where a checkpoint can be fetched as one tar file, and until when."""

    url: str
    expires: datetime


class ExternalWeightsUrlsResponse(Record):
    """Where the files of an external checkpoint can be fetched, by name, and until when."""

    urls: dict[str, str]
    expires: datetime


class ParsedCheckpointTinkerPath(Record):
    """The parts of ``tinker://<run>/<segment>/<name>``."""

    tinker_path: str
    training_run_id: str
    checkpoint_type: CheckpointType
    checkpoint_id: str

    @classmethod
    def from_tinker_path(cls, tinker_path: str) -> ParsedCheckpointTinkerPath:
        """Split a path.

        Raises:
            ValueError: It has another shape.
        """
        parts = tinker_path.removeprefix(_SCHEME).split("/")
        well_formed = tinker_path.startswith(_SCHEME) and len(parts) == 3 and all(parts)  # noqa: PLR2004
        if not well_formed or parts[1] not in _SEGMENTS:
            segments = "|".join(_SEGMENTS)
            form = f"{_SCHEME}<run>/<{segments}>/<name>"
            message = f"invalid checkpoint path {tinker_path!r}: expected {form}"
            raise ValueError(message)
        return cls(
            tinker_path=tinker_path,
            training_run_id=parts[0],
            checkpoint_type=_SEGMENTS[parts[1]],
            checkpoint_id=f"{parts[1]}/{parts[2]}",
        )
