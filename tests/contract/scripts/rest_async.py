"""Housekeeping in the style of SDK 0.38: a RestClient by itself, lifetimes, projects, searches."""

import asyncio
import json
import warnings

import tinker
from tinker import types


async def main() -> None:
    rest_client = tinker.RestClient()
    capabilities = await rest_client.get_server_capabilities()
    base_model = capabilities.supported_models[0].model_name
    with tinker.ServiceClient(
        user_metadata={"script": "rest_async"}, project_id="project-a", display_name="housekeeping"
    ) as service_client:
        training_client = await service_client.create_lora_training_client(
            base_model=base_model, rank=4, seed=1
        )
        saved = await training_client.save_state(
            "first", ttl_seconds=7200, user_metadata={"note": "kept"}
        )
        weights = await training_client.save_weights_for_sampler("second")
        run_id = training_client.model_id

        checkpoints = (await rest_client.list_checkpoints(run_id)).checkpoints
        (first,) = [each for each in checkpoints if each.tinker_path == saved.path]
        await rest_client.set_checkpoint_ttl_from_tinker_path(saved.path, None)
        checkpoints = (await rest_client.list_checkpoints(run_id)).checkpoints
        (kept,) = [each for each in checkpoints if each.tinker_path == saved.path]

        info = await rest_client.get_weights_info_by_tinker_path(saved.path)
        runs = await rest_client.list_training_runs(limit=50, access_scope="owned")
        copied = await rest_client.copy_weights(weights.path, "project-b", ttl_seconds=3600)
        export = await training_client.save_weights_external("third")
        urls = await rest_client.get_external_weights_urls(export.path)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the search is experimental
            request = types.SessionSearchRequest(user_metadata={"script": "rest_async"}, limit=5)
            found = await rest_client.search_sessions(request)
        session_id = found.sessions[0].session_id
        session = await rest_client.get_session(session_id)
        await rest_client.assign_session_project(session_id, "project-c")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            request = types.SessionSearchRequest(session_id=session_id)
            (moved,) = (await rest_client.search_sessions(request)).sessions
        trace = await rest_client.export_session_trace(session_id)
        await rest_client.delete_checkpoint_from_tinker_path(weights.path)

    admin_client = tinker.AdminClient()
    audit = await admin_client.get_audit_log("checkpoints")
    storage = await admin_client.get_current_checkpoint_storage_usage()
    gone = None
    try:
        await rest_client.get_training_run("no-such-run")
    except tinker.NotFoundError as error:
        gone = error.status_code
    print(
        json.dumps(
            {
                "expires": [first.expires_at is not None, kept.expires_at is None],
                "metadata": first.user_metadata,
                "info": [info.base_model == base_model, info.is_lora, info.lora_rank],
                "listed": run_id in [each.training_run_id for each in runs.training_runs],
                "copied": copied.startswith("tinker://"),
                "files": sorted(urls.urls),
                "session": [
                    run_id in session.training_run_ids,
                    session.display_name,
                    session.user_metadata,
                    found.sessions[0].project_id,
                    moved.project_id,
                ],
                "trace": trace.startswith("http"),
                "audited": weights.path in [entry.tinker_path for entry in audit.entries],
                "stored": sum(item.checkpoint_count for item in storage.data) > 0,
                "gone": gone,
            }
        )
    )


asyncio.run(main())
