"""Every call of the clients, with arguments that work and what its answer must be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import tinker_ray
from tests.e2e.surface_world import (
    PROJECT,
    RANK,
    TOKEN,
    Arguments,
    Call,
    Check,
    World,
    computed,
    nothing,
    squared,
)
from tinker_ray import AdamParams, SamplingClient, SamplingParams
from tinker_ray.engine.tiny_adder import NAME
from tinker_ray.errors import UnfulfilledError
from tinker_ray.types import SessionSearchRequest, TensorData

# --- what answers must be -------------------------------------------------------------------------


def is_none(_: World, answer: Any) -> bool:  # noqa: ANN401
    return answer is None


def is_telemetry(_: World, answer: Any) -> bool:  # noqa: ANN401
    return bool(answer.log("surface"))


def trains(_: World, answer: Any) -> bool:  # noqa: ANN401
    return answer.forward is not None and answer.get_info().model_data.model_name == NAME


def samples(world: World, answer: Any) -> bool:  # noqa: ANN401
    params = SamplingParams(max_tokens=1)
    drawn = answer.sample(world.prompt, 1, params).result(60)
    return 1 == len(drawn.sequences) and NAME == answer.get_base_model()


def has_loss(world: World, answer: Any) -> bool:  # noqa: ANN401
    return len(world.data) == len(answer.loss_fn_outputs) and answer.metrics["loss:sum"] > 0


def offers_model(_: World, answer: Any) -> bool:  # noqa: ANN401
    return NAME in [model.model_name for model in answer.supported_models]


def is_tokenizer(_: World, answer: Any) -> bool:  # noqa: ANN401
    return bool(answer.decode(answer.encode("1+2=3")) == "1+2=3")


def is_path(kind: str) -> Check:
    def check(world: World, answer: Any) -> bool:  # noqa: ANN401
        path: str = getattr(answer, "path", answer)
        return path.startswith(f"tinker://{world.run_id}/{kind}/")

    return check


def is_copy(world: World, answer: Any) -> bool:  # noqa: ANN401
    return bool(answer.startswith("tinker://") and answer != world.state)


def is_run(world: World, answer: Any) -> bool:  # noqa: ANN401
    return (world.run_id, NAME) == (answer.training_run_id, answer.base_model)


def has_checkpoints(world: World, answer: Any) -> bool:  # noqa: ANN401
    paths = {checkpoint.tinker_path for checkpoint in answer.checkpoints}
    return world.weights in paths


def drew(count: int) -> Check:
    def check(_: World, answer: Any) -> bool:  # noqa: ANN401
        return count == len(answer.sequences)

    return check


def scored(world: World, answer: Any) -> bool:  # noqa: ANN401
    return world.prompt.length == len(answer) and answer[0] is None and answer[-1] < 0


# --- the calls ------------------------------------------------------------------------------------

ADAM = AdamParams(learning_rate=1e-4)
ONE = SamplingParams(max_tokens=2)

SERVICE = [
    Call("ServiceClient", "get_server_capabilities", nothing, offers_model),
    Call("ServiceClient", "get_telemetry", nothing, is_telemetry),
    Call(
        "ServiceClient",
        "get_console_url",
        nothing,
        lambda world, url: world.session_id in url,
    ),
    Call(
        "ServiceClient",
        "create_lora_training_client",
        lambda _: (NAME, 2, 1, True, True, False, {"a": "b"}),
        trains,
    ),
    Call("ServiceClient", "create_training_client_from_state", lambda w: (w.state,), trains),
    Call(
        "ServiceClient",
        "create_training_client_from_state",
        lambda w: (w.state, {"older": "generation"}),
        trains,
        {"weights_access_token": TOKEN},
    ),
    Call(
        "ServiceClient",
        "create_training_client_from_state_with_optimizer",
        lambda w: (w.state, NAME, {"newer": "generation"}),
        trains,
    ),
    Call("ServiceClient", "create_sampling_client", lambda w: (w.weights,), samples),
    Call(
        "ServiceClient",
        "create_sampling_client",
        nothing,
        samples,
        {"base_model": NAME, "record_stability_info": True},
    ),
    Call(
        "ServiceClient",
        "create_rest_client",
        nothing,
        lambda world, rest: rest.get_session(world.session_id).result(60),
    ),
    Call(
        "ServiceClient",
        "create_custom_loss",
        lambda _: (squared, {"logprobs": 1}),
        lambda world, loss: (world.session_id, "squared") == (loss.session_id, loss.name),
    ),
    Call(
        "ServiceClient",
        "copy_weights",
        lambda w: (w.state,),
        is_copy,
        target=lambda w: w.another(project_id=PROJECT),
    ),
    Call(
        "ServiceClient",
        "close",
        lambda _: ("success", "a test"),
        is_none,
        target=lambda w: w.another(),
    ),
]

TRAINING = [
    Call("TrainingClient", "forward", lambda w: (w.data, "cross_entropy"), has_loss),
    Call("TrainingClient", "forward_backward", lambda w: (w.data, "cross_entropy", {}), has_loss),
    Call("TrainingClient", "forward_backward_custom", lambda w: (w.data, computed), has_loss),
    Call("TrainingClient", "forward_backward_custom", lambda w: (w.data, w.loss), has_loss),
    Call("TrainingClient", "optim_step", lambda _: (ADAM,), lambda _, answer: answer is not None),
    Call("TrainingClient", "optim_step", nothing, lambda *_: True, {"adam_params": ADAM}),
    Call("TrainingClient", "save_state", lambda w: (w.name(), 3600), is_path("weights")),
    Call(
        "TrainingClient",
        "save_weights_for_sampler",
        lambda w: (w.name(), 3600),
        is_path("sampler_weights"),
    ),
    Call(
        "TrainingClient",
        "save_weights_external",
        lambda w: (w.name(), 3600),
        is_path("external_weights"),
    ),
    Call("TrainingClient", "load_state", lambda w: (w.state,), lambda *_: True),
    Call("TrainingClient", "load_state", lambda w: (w.state, TOKEN), lambda *_: True),
    Call("TrainingClient", "load_state_with_optimizer", lambda w: (w.state,), lambda *_: True),
    Call("TrainingClient", "create_sampling_client", lambda w: (w.weights,), samples),
    Call("TrainingClient", "save_weights_and_get_sampling_client", nothing, samples),
    Call(
        "TrainingClient",
        "save_weights_and_get_sampling_client",
        lambda w: (w.name(),),
        samples,
    ),
    Call("TrainingClient", "save_weights_and_get_sampling_client_submit", nothing, samples),
    Call(
        "TrainingClient",
        "get_info",
        nothing,
        lambda world, info: (world.run_id, RANK) == (info.model_id, info.lora_rank),
    ),
    Call("TrainingClient", "get_tokenizer", nothing, is_tokenizer),
    Call("TrainingClient", "get_telemetry", nothing, is_telemetry),
    Call(
        "TrainingClient",
        "get_console_url",
        nothing,
        lambda world, url: world.run_id.partition(":")[0] in url,
    ),
    Call(
        "TrainingClient",
        "on_queue_state_change",
        lambda _: (tinker_ray.types.QueueState.PAUSED_CAPACITY,),
        is_none,
    ),
]


def _targets(world: World) -> TensorData:
    length = world.prompt.length - 1
    return TensorData(data=[3] * length, dtype="int64", shape=[length, 1])


SAMPLING = [
    Call("SamplingClient", "sample", lambda w: (w.prompt, 3, ONE), drew(3)),
    Call(
        "SamplingClient",
        "sample",
        lambda w: (w.prompt, 1, ONE, True, 2),
        lambda world, answer: (
            world.prompt.length == len(answer.prompt_logprobs) == len(answer.topk_prompt_logprobs)
        ),
    ),
    Call(
        "SamplingClient",
        "sample",
        lambda w: (w.prompt, 1, ONE, True, 0, 2, _targets(w), 1, 3),
        lambda _, answer: answer.sequences[0].topk_logprobs is not None,
    ),
    Call("SamplingClient", "compute_logprobs", lambda w: (w.prompt,), scored),
    Call(
        "SamplingClient",
        "compute_logprobs",
        lambda w: (w.prompt, 1),
        lambda _, answer: answer[-2] is None and answer[-1] < 0,
    ),
    Call("SamplingClient", "get_base_model", nothing, lambda _, name: name == NAME),
    Call("SamplingClient", "get_tokenizer", nothing, is_tokenizer),
    Call("SamplingClient", "get_telemetry", nothing, is_telemetry),
    Call(
        "SamplingClient",
        "get_sampler_handle",
        nothing,
        lambda w, handle: samples(w, SamplingClient.from_sampler_handle(handle)),
    ),
    Call(
        "SamplingClient",
        "from_sampler_handle",
        lambda w: (w.sampler.get_sampler_handle(),),
        samples,
        {"api_key": "tml-local"},
    ),
    Call(
        "SamplingClient",
        "create",
        lambda w: (w.service.holder,),
        samples,
        {"base_model": NAME},
    ),
    Call(
        "SamplingClient",
        "on_queue_state_change",
        lambda _: (tinker_ray.types.QueueState.PAUSED_RATE_LIMIT, "slow down"),
        is_none,
    ),
]


def _hour() -> Arguments:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return now - timedelta(hours=1), now + timedelta(hours=1)


def _by_run(w: World) -> Arguments:
    return tuple(w.new_state().removeprefix("tinker://").split("/", 1))


def _finds(world: World, answer: Any) -> bool:  # noqa: ANN401
    return [world.session_id] == [session.session_id for session in answer.sessions]


REST = [
    Call("RestClient", "get_training_run", lambda w: (w.run_id,), is_run),
    Call("RestClient", "get_training_run_by_tinker_path", lambda w: (w.state, "owned"), is_run),
    Call(
        "RestClient",
        "list_training_runs",
        lambda _: (100, 0),
        lambda world, page: world.run_id in [run.training_run_id for run in page.training_runs],
    ),
    Call("RestClient", "list_checkpoints", lambda w: (w.run_id,), has_checkpoints),
    Call("RestClient", "list_user_checkpoints", lambda _: (1000, 0), has_checkpoints),
    Call(
        "RestClient",
        "get_weights_info_by_tinker_path",
        lambda w: (w.state,),
        lambda _, info: (NAME, RANK) == (info.base_model, info.lora_rank),
    ),
    Call(
        "RestClient",
        "get_checkpoint_archive_url",
        lambda w: tuple(w.state.removeprefix("tinker://").split("/", 1)),
        lambda _, answer: answer.url.startswith("http"),
    ),
    Call(
        "RestClient",
        "get_checkpoint_archive_url_from_tinker_path",
        lambda w: (w.weights,),
        lambda _, answer: answer.url.startswith("http"),
    ),
    Call(
        "RestClient",
        "download_checkpoint_archive",
        lambda w: (w.state, w.folder / w.name()),
        lambda _, answer: answer.verified and answer.path.stat().st_size == answer.num_bytes,
    ),
    Call(
        "RestClient",
        "get_external_weights_urls",
        lambda w: (w.new_export(),),
        lambda _, answer: "adapter_config.json" in answer.urls,
    ),
    Call("RestClient", "delete_checkpoint", _by_run, is_none),
    Call("RestClient", "delete_checkpoint_from_tinker_path", lambda w: (w.new_state(),), is_none),
    Call("RestClient", "publish_checkpoint_from_tinker_path", lambda w: (w.new_state(),), is_none),
    Call(
        "RestClient",
        "unpublish_checkpoint_from_tinker_path",
        lambda w: (published(w),),
        is_none,
    ),
    Call(
        "RestClient",
        "set_checkpoint_ttl_from_tinker_path",
        lambda w: (w.new_state(), 3600),
        is_none,
    ),
    Call(
        "RestClient",
        "copy_weights",
        lambda w: (w.state, PROJECT),
        is_copy,
        {"ttl_seconds": 3600, "weights_access_token": TOKEN},
    ),
    Call(
        "RestClient",
        "list_sessions",
        lambda _: (1000, 0),
        lambda world, page: world.session_id in page.sessions,
    ),
    Call(
        "RestClient",
        "get_session",
        lambda w: (w.session_id,),
        lambda world, session: world.run_id in session.training_run_ids,
    ),
    Call(
        "RestClient",
        "search_sessions",
        lambda w: (SessionSearchRequest(session_id=w.session_id),),
        _finds,
    ),
    Call(
        "RestClient",
        "assign_session_project",
        lambda w: (w.session_id, PROJECT),
        is_none,
    ),
    Call(
        "RestClient",
        "export_session_trace",
        lambda w: (w.session_id,),
        lambda _, url: url.startswith("http"),
    ),
    Call(
        "RestClient",
        "get_sampler",
        lambda w: (w.sampler.sampling_session_id,),
        lambda _, sampler: sampler.base_model == NAME,
    ),
    Call("RestClient", "get_server_capabilities", nothing, offers_model),
    Call("RestClient", "whoami", nothing, lambda *_: False, fails=UnfulfilledError),
    Call("RestClient", "get_telemetry", nothing, is_telemetry),
]

ADMIN = [
    Call(client, name, given, check)
    for client in ("AdminClient", "RestClient")
    for name, given, check in (
        ("get_audit_log", lambda _: ("checkpoints",), lambda _, log: log.entries is not None),
        ("get_billing_usage", lambda _: _hour(), lambda _, usage: usage.data is not None),
        (
            "get_current_checkpoint_storage_usage",
            nothing,
            lambda _, usage: sum(row.checkpoint_count for row in usage.data) > 0,
        ),
    )
] + [Call("AdminClient", "get_telemetry", nothing, is_telemetry)]


def published(world: World) -> str:
    path = world.new_state()
    world.rest.publish_checkpoint_from_tinker_path(path).result(60)
    return path


CALLS = [*SERVICE, *TRAINING, *SAMPLING, *REST, *ADMIN]
