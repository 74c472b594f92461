"""Housekeeping in the style of SDK 0.6: runs, checkpoints, sessions, samplers, an archive."""

import json
import urllib.request

import tinker
from tinker import types

service_client = tinker.ServiceClient(user_metadata={"script": "rest_sync"})
rest_client = service_client.create_rest_client()
base_model = service_client.get_server_capabilities().supported_models[0].model_name
training_client = service_client.create_lora_training_client(
    base_model, rank=4, seed=1, user_metadata={"kept": "here"}
)
state = training_client.save_state("first").result().path
weights = training_client.save_weights_for_sampler("second").result().path
run_id = training_client.model_id

run = rest_client.get_training_run(run_id).result()
same = rest_client.get_training_run_by_tinker_path(state).result()
runs = rest_client.list_training_runs(limit=50, offset=0).result()
listed = rest_client.list_checkpoints(run_id).result().checkpoints
mine = [
    checkpoint.tinker_path
    for checkpoint in rest_client.list_user_checkpoints(limit=100).result().checkpoints
]
info = rest_client.get_weights_info_by_tinker_path(state).result()

rest_client.publish_checkpoint_from_tinker_path(weights).result()
published = {
    each.checkpoint_id: each.public
    for each in rest_client.list_checkpoints(run_id).result().checkpoints
}
rest_client.unpublish_checkpoint_from_tinker_path(weights).result()

archive = rest_client.get_checkpoint_archive_url_from_tinker_path(state).result()
with urllib.request.urlopen(archive.url, timeout=30) as response:  # noqa: S310 - the service's
    archive_head = response.read(265)[257:262].decode()

sampling_client = service_client.create_sampling_client(model_path=weights)
prompt = types.ModelInput.from_ints([5, 6, 7])
sampling_client.sample(prompt, 1, types.SamplingParams(max_tokens=2)).result()
session_id = next(
    each
    for each in rest_client.list_sessions(limit=100).result().sessions
    if run_id in rest_client.get_session(each).result().training_run_ids
)
session = rest_client.get_session(session_id).result()
sampler = rest_client.get_sampler(session.sampler_ids[-1]).result()

rest_client.delete_checkpoint_from_tinker_path(state).result()
try:
    rest_client.delete_checkpoint(run_id, "weights/first").result()
except tinker.NotFoundError as error:
    gone = error.status_code

print(
    json.dumps(
        {
            "run": [run.base_model == base_model, run.is_lora, run.lora_rank, run.user_metadata],
            "same": same.training_run_id == run_id,
            "listed": run_id in [each.training_run_id for each in runs.training_runs],
            "checkpoints": sorted([each.checkpoint_id, each.checkpoint_type] for each in listed),
            "mine": [path in mine for path in (state, weights)],
            "info": [info.base_model == base_model, info.is_lora, info.lora_rank],
            "published": published,
            "archive": archive_head,
            "sampler": [sampler.base_model == base_model, sampler.model_path == weights],
            "gone": gone,
            "left": [
                each.checkpoint_id
                for each in rest_client.list_checkpoints(run_id).result().checkpoints
            ],
        }
    )
)
