"""A ``RestClient`` over records in memory, and what opens it for the command line."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.errors import AuthenticationError, NotFoundError, TinkerError
from tinker_ray.types import (
    Checkpoint,
    CheckpointArchiveUrlResponse,
    CheckpointsListResponse,
    Cursor,
    ExternalWeightsUrlsResponse,
    GetServerCapabilitiesResponse,
    GetSessionResponse,
    ListSessionsResponse,
    ParsedCheckpointTinkerPath,
    SupportedModel,
    TrainingRun,
    TrainingRunsResponse,
    WeightsInfoResponse,
    WhoamiResponse,
)
from tinker_ray.types.service import SelfApiKeyResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tinker_ray.clients.admin import AdminClient
    from tinker_ray.clients.rest import RestClient
    from tinker_ray.clients.service import ServiceClient

T = TypeVar("T")
NEVER = datetime(9000, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def a_run(run_id: str = "s:train:0", **more: object) -> TrainingRun:
    known: dict[str, Any] = {
        "training_run_id": run_id,
        "base_model": "tiny",
        "model_owner": "me",
        "is_lora": True,
        "lora_rank": 8,
        "last_request_time": NOON,
    }
    return TrainingRun(**{**known, **more})


def a_checkpoint(path: str = "tinker://s:train:0/weights/a", **more: object) -> Checkpoint:
    parsed = ParsedCheckpointTinkerPath.from_tinker_path(path)
    known: dict[str, Any] = {
        "checkpoint_id": parsed.checkpoint_id,
        "checkpoint_type": parsed.checkpoint_type,
        "time": NOON,
        "tinker_path": path,
        "size_bytes": 3 * 1024**2,
    }
    return Checkpoint(**{**known, **more})


@dataclass
class FakeRest:
    """Holds what a service would; names in ``failing`` raise instead.

    Attributes:
        files: Of every export.
        expires: When the addresses of its files do.
        archives: Whether the service gives archives out.
        calls: Each call's name and arguments.
    """

    runs: list[TrainingRun] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    sessions: dict[str, GetSessionResponse] = field(default_factory=dict)
    models: list[SupportedModel] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    expires: datetime = NEVER
    archives: bool = True
    failing: dict[str, BaseException] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def list_training_runs(self, **arguments: object) -> APIFuture[TrainingRunsResponse]:
        def answer() -> TrainingRunsResponse:
            page, cursor = _page(self.runs, arguments)
            return TrainingRunsResponse(training_runs=page, cursor=cursor)

        return self._answer("list_training_runs", arguments, answer)

    def get_training_run(self, run_id: str, **arguments: object) -> APIFuture[TrainingRun]:
        return self._answer(
            "get_training_run",
            {"run_id": run_id, **arguments},
            lambda: _first(run for run in self.runs if run.training_run_id == run_id),
        )

    def list_checkpoints(self, run_id: str) -> APIFuture[CheckpointsListResponse]:
        prefix = f"tinker://{run_id}/"
        return self._answer(
            "list_checkpoints",
            {"run_id": run_id},
            lambda: CheckpointsListResponse(
                checkpoints=[c for c in self.checkpoints if c.tinker_path.startswith(prefix)]
            ),
        )

    def list_user_checkpoints(self, **arguments: object) -> APIFuture[CheckpointsListResponse]:
        def answer() -> CheckpointsListResponse:
            page, cursor = _page(self.checkpoints, arguments)
            return CheckpointsListResponse(checkpoints=page, cursor=cursor)

        return self._answer("list_user_checkpoints", arguments, answer)

    def delete_checkpoint_from_tinker_path(self, path: str) -> APIFuture[None]:
        def answer() -> None:
            self.checkpoints.remove(_first(c for c in self.checkpoints if c.tinker_path == path))

        return self._answer("delete", {"path": path}, answer)

    def publish_checkpoint_from_tinker_path(self, path: str) -> APIFuture[None]:
        return self._answer("publish", {"path": path}, lambda: self._change(path, public=True))

    def unpublish_checkpoint_from_tinker_path(self, path: str) -> APIFuture[None]:
        return self._answer("unpublish", {"path": path}, lambda: self._change(path, public=False))

    def set_checkpoint_ttl_from_tinker_path(
        self, path: str, ttl_seconds: int | None
    ) -> APIFuture[None]:
        arguments = {"path": path, "ttl_seconds": ttl_seconds}
        return self._answer("set_ttl", arguments, lambda: self._change(path))

    def list_sessions(self, **arguments: object) -> APIFuture[ListSessionsResponse]:
        def answer() -> ListSessionsResponse:
            page, _cursor = _page(list(self.sessions), arguments)
            return ListSessionsResponse(sessions=page)

        return self._answer("list_sessions", arguments, answer)

    def get_session(self, session_id: str, **arguments: object) -> APIFuture[GetSessionResponse]:
        return self._answer(
            "get_session",
            {"session_id": session_id, **arguments},
            lambda: _first(s for name, s in self.sessions.items() if name == session_id),
        )

    def get_server_capabilities(self) -> APIFuture[GetServerCapabilitiesResponse]:
        return self._answer(
            "get_server_capabilities",
            {},
            lambda: GetServerCapabilitiesResponse(supported_models=self.models),
        )

    def whoami(self) -> APIFuture[WhoamiResponse]:
        return self._answer(
            "whoami",
            {},
            lambda: WhoamiResponse(user_urn="u", org_urn="tml:organization:o", email="me@x.org"),
        )

    def get_weights_info_by_tinker_path(self, path: str) -> APIFuture[WeightsInfoResponse]:
        def answer() -> WeightsInfoResponse:
            _first(c for c in self.checkpoints if c.tinker_path == path)
            return WeightsInfoResponse(
                base_model="org/tiny",
                is_lora=True,
                lora_rank=8,
                train_attn=True,
                train_mlp=True,
                train_unembed=False,
            )

        return self._answer("get_weights_info", {"path": path}, answer)

    def get_checkpoint_archive_url_from_tinker_path(
        self, path: str
    ) -> APIFuture[CheckpointArchiveUrlResponse]:
        def answer() -> CheckpointArchiveUrlResponse:
            if not self.archives:
                raise NotFoundError("Error code: 404 - no such route", status_code=404)
            _first(c for c in self.checkpoints if c.tinker_path == path)
            return CheckpointArchiveUrlResponse(url=f"signed:{path}", expires=NOON)

        return self._answer("get_checkpoint_archive_url", {"path": path}, answer)

    def get_external_weights_urls(self, path: str) -> APIFuture[ExternalWeightsUrlsResponse]:
        return self._answer(
            "get_external_weights_urls",
            {"path": path},
            lambda: ExternalWeightsUrlsResponse(
                urls={name: f"signed:{name}" for name in self.files}, expires=self.expires
            ),
        )

    def export_session_trace(self, session_id: str) -> APIFuture[str]:
        return self._answer(
            "export_session_trace",
            {"session_id": session_id},
            lambda: f"signed:trace-{len(self.calls)}",
        )

    def _change(self, path: str, **changes: object) -> None:
        old = _first(c for c in self.checkpoints if c.tinker_path == path)
        place = self.checkpoints.index(old)
        self.checkpoints[place] = old.model_copy(update=changes)

    def _answer(
        self, name: str, arguments: dict[str, Any], answer: Callable[[], T]
    ) -> APIFuture[T]:
        self.calls.append((name, arguments))
        if isinstance(error := self.failing.get(name), BaseException) and not isinstance(
            error, TinkerError
        ):
            raise error
        return APIFuture(_settled(answer, error))


@dataclass
class FakeClients:
    """Opens the fakes, and keeps what commands asked for.

    Attributes:
        asked: The addresses, and the keys that were given by hand.
        known_keys: What the service knows of keys; None stands for the environment's.
        revoked: Keys that the service forgot.
    """

    fake_rest: FakeRest = field(default_factory=FakeRest)
    fake_admin: Any = None
    fake_service: Any = None
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    known_keys: dict[str | None, SelfApiKeyResponse] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)

    def rest(self, base_url: str | None) -> RestClient:
        self.asked.append((base_url, None))
        return cast("RestClient", self.fake_rest)

    def admin(self, base_url: str | None) -> AdminClient:
        self.asked.append((base_url, None))
        return cast("AdminClient", self.fake_admin)

    def service(self, base_url: str | None) -> ServiceClient:
        self.asked.append((base_url, None))
        return cast("ServiceClient", self.fake_service)

    def probe(
        self, base_url: str | None, api_key: str | None = None, *, timeout_s: float
    ) -> list[SupportedModel]:
        assert timeout_s > 0
        self.asked.append((base_url, api_key))
        return self.fake_rest.get_server_capabilities().result().supported_models

    def describe_key(self, base_url: str | None, api_key: str | None) -> SelfApiKeyResponse:
        self.asked.append((base_url, api_key))
        if api_key not in self.known_keys:
            raise AuthenticationError("Error code: 401 - unknown key", status_code=401)
        return self.known_keys[api_key]

    def revoke_key(self, base_url: str | None, api_key: str) -> None:
        self.asked.append((base_url, api_key))
        if api_key not in self.known_keys:
            raise AuthenticationError("Error code: 401 - unknown key", status_code=401)
        self.revoked.append(api_key)


def _settled(answer: Callable[[], T], error: BaseException | None) -> Future[T]:
    future: Future[T] = Future()
    try:
        if error is not None:
            raise error
        future.set_result(answer())
    except TinkerError as failure:
        future.set_exception(failure)
    return future


def _page(items: list[T], arguments: dict[str, Any]) -> tuple[list[T], Cursor]:
    offset, limit = arguments["offset"], arguments["limit"]
    cursor = Cursor(offset=offset, limit=limit, total_count=len(items))
    return items[offset : offset + limit], cursor


def _first(found: Iterable[T]) -> T:
    for item in found:
        return item
    raise NotFoundError("Error code: 404 - no such thing", status_code=404)
