"""Steps that look at what the service keeps, and at the ends of sessions."""

from __future__ import annotations

import io
import tarfile
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.contract.drive.plan import BASE_MODEL, NEW, OLD, Drive, ready, refused, step


def _rest(drive: Drive) -> Any:  # noqa: ANN401
    if "rest" not in drive.kept:
        drive.kept["rest"] = ready(drive.service.create_rest_client())
    return drive.kept["rest"]


def _run_id(drive: Drive) -> str:
    model_id: str = drive.training.model_id
    return model_id


@step()
def training_runs_are_listed(drive: Drive) -> None:
    rest = _rest(drive)
    page = rest.list_training_runs(limit=100).result()
    assert _run_id(drive) in [run.training_run_id for run in page.training_runs]
    assert page.cursor.total_count >= 1
    run = rest.get_training_run(_run_id(drive)).result()
    assert (run.base_model, run.lora_rank, run.corrupted) == (BASE_MODEL, 8, False)
    assert run.user_metadata == {"drive": "training"}
    assert rest.get_training_run_by_tinker_path(drive.kept["state"]).result() == run


@step()
def checkpoints_are_listed(drive: Drive) -> None:
    rest = _rest(drive)
    listed = rest.list_checkpoints(_run_id(drive)).result().checkpoints
    kinds = {item.tinker_path: item.checkpoint_type for item in listed}
    assert kinds[drive.kept["state"]] == "training"
    assert kinds[drive.kept["sampler_path"]] == "sampler"
    everywhere = rest.list_user_checkpoints(limit=100).result().checkpoints
    assert set(kinds) <= {item.tinker_path for item in everywhere}


@step()
def pages_follow_each_other(drive: Drive) -> None:
    rest = _rest(drive)
    whole = rest.list_training_runs(limit=4).result().training_runs
    pages = [rest.list_training_runs(2, offset).result().training_runs for offset in (0, 2)]
    expected = [run.training_run_id for run in whole]
    assert [run.training_run_id for page in pages for run in page] == expected


@step()
def weights_tell_what_they_need(drive: Drive) -> None:
    info = _rest(drive).get_weights_info_by_tinker_path(drive.kept["state"]).result()
    assert (info.base_model, info.is_lora, info.lora_rank) == (BASE_MODEL, True, 8)


@step()
def checkpoints_are_published_and_withdrawn(drive: Drive) -> None:
    rest, path = _rest(drive), drive.kept["state"]
    for change, expected in (
        (rest.publish_checkpoint_from_tinker_path, True),
        (rest.unpublish_checkpoint_from_tinker_path, False),
    ):
        change(path).result()
        listed = rest.list_checkpoints(_run_id(drive)).result().checkpoints
        assert {item.tinker_path: item.public for item in listed}[path] is expected


@step()
def sessions_and_samplers_are_found(drive: Drive) -> None:
    rest = _rest(drive)
    session_id = _run_id(drive).split(":train:")[0]
    assert session_id in rest.list_sessions().result().sessions
    session = rest.get_session(session_id).result()
    assert _run_id(drive) in session.training_run_ids
    assert session.sampler_ids
    sampler = rest.get_sampler(session.sampler_ids[0]).result()
    assert sampler.base_model == BASE_MODEL


@step(OLD)
def an_archive_holds_an_adapter(drive: Drive) -> None:
    rest = _rest(drive)
    answer = rest.get_checkpoint_archive_url_from_tinker_path(drive.kept["sampler_path"]).result()
    assert answer.expires.replace(tzinfo=UTC) > datetime.now(UTC)
    with urllib.request.urlopen(answer.url, timeout=30) as response:  # noqa: S310 - the service's
        content = io.BytesIO(response.read())
    with tarfile.open(fileobj=content) as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    same = rest.get_checkpoint_archive_url(_run_id(drive), "sampler_weights/published").result()
    assert same.url


@step(NEW)
def a_checkpoint_gets_and_loses_its_time_to_live(drive: Drive) -> None:
    rest, path = _rest(drive), drive.kept["state"]
    rest.set_checkpoint_ttl_from_tinker_path(path, 7200).result()
    assert _expiry(rest, drive, path) is not None
    rest.set_checkpoint_ttl_from_tinker_path(path, None).result()
    assert _expiry(rest, drive, path) is None


def _expiry(rest: Any, drive: Drive, path: str) -> Any:  # noqa: ANN401
    listed = rest.list_checkpoints(_run_id(drive)).result().checkpoints
    return {item.tinker_path: item.expires_at for item in listed}[path]


@step(NEW)
def weights_are_copied(drive: Drive) -> None:
    copied = _rest(drive).copy_weights(drive.kept["state"], "a-project").result()
    assert copied.startswith("tinker://")
    assert copied != drive.kept["state"]
    model = ready(drive.service.create_training_client_from_state(copied))
    assert model.get_info().lora_rank == 8


@step(NEW)
def external_weights_are_downloaded(drive: Drive) -> None:
    path = drive.training.save_weights_external("outside", ttl_seconds=3600).result().path
    urls = _rest(drive).get_external_weights_urls(path).result()
    assert urls.urls
    for url in urls.urls.values():
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310
            assert response.read()


@step(NEW)
def sessions_are_moved_and_traced(drive: Drive) -> None:
    rest = _rest(drive)
    session_id = _run_id(drive).split(":train:")[0]
    rest.assign_session_project(session_id, "a-project").result()
    url = rest.export_session_trace(session_id).result()
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310
        assert response.read()


@step(NEW)
def sessions_are_searched(drive: Drive) -> None:
    types = drive.tinker.types
    session_id = _run_id(drive).split(":train:")[0]
    request = types.SessionSearchRequest(session_id=session_id)
    found = _rest(drive).search_sessions(request).result()
    assert [session.session_id for session in found.sessions] == [session_id]


@step(NEW)
def usage_is_accounted_for(drive: Drive) -> None:
    admin = drive.tinker.AdminClient(base_url=drive.base_url, api_key="tml-drive")
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    usage = admin.get_billing_usage(now - timedelta(hours=1), now + timedelta(hours=1)).result()
    assert {event.event_info.type for event in usage.data} >= {"training", "sampling_sample"}
    storage = admin.get_current_checkpoint_storage_usage().result()
    assert sum(row.checkpoint_count for row in storage.data) >= 2
    assert admin.get_audit_log().result().entries


@step(NEW)
def a_rest_client_stands_alone(drive: Drive) -> None:
    rest = drive.tinker.RestClient(base_url=drive.base_url, api_key="tml-drive")
    served = rest.get_server_capabilities().result().supported_models
    assert BASE_MODEL in [model.model_name for model in served]


@step()
def what_is_not_there_is_not_found(drive: Drive) -> None:
    rest = _rest(drive)
    not_found = drive.tinker.NotFoundError
    for work in (
        lambda: rest.get_training_run("nobody:train:9").result(),
        lambda: rest.get_sampler("nobody:sample:9").result(),
        lambda: rest.get_session("nobody").result(),
        lambda: rest.delete_checkpoint_from_tinker_path("tinker://x:train:0/weights/y").result(),
    ):
        assert isinstance(refused(work), not_found)
    refused(lambda: rest.publish_checkpoint_from_tinker_path("nonsense").result())


@step()
def checkpoints_are_deleted(drive: Drive) -> None:
    rest, model = _rest(drive), drive.model()
    path = model.save_state("short-lived").result().path
    rest.delete_checkpoint_from_tinker_path(path).result()
    assert rest.list_checkpoints(model.model_id).result().checkpoints == []
    refused(lambda: model.load_state(path).result())


@step(NEW)
def a_session_ends_when_its_client_closes(drive: Drive) -> None:
    with drive.tinker.ServiceClient(base_url=drive.base_url, api_key="tml-drive") as service:
        model = ready(service.create_lora_training_client(BASE_MODEL, rank=2))
        session_id = model.model_id.split(":train:")[0]
    types = drive.tinker.types
    found = _rest(drive).search_sessions(types.SessionSearchRequest(session_id=session_id)).result()
    assert found.sessions[0].status.type == "client_finished"
