"""Records what the adapter for ``verifiers`` relies on, from the library itself.

Run with an interpreter that has verifiers, this package and ``uv`` on the path:

    python -m tests.contract.record_verifiers tests/contract/golden/verifiers.json

Plays three episodes of a small taskset against an endpoint whose answers are written here.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from tinker_ray.environments.endpoint import Completion, Endpoint

TASKSETS = Path(__file__).parent / "scripts" / "verifiers"
ANSWERS = {"What is 12+34?": "46", "What is 7+15?": "21"}
"""One right, one wrong; the third task is asked with a broken score."""
NAMES = {
    "load_environment": (),
    "EnvConfig": ("env_id", "taskset"),
    "SingleAgentEnvConfig": ("taskset", "agent"),
    "Env": ("run_episode", "serving"),
    "EvalClientConfig": ("base_url", "api_key_var"),
    "ModelContext": ("model", "client"),
    "Episode": ("ok", "errors", "traces"),
    "Trace": ("agent", "rewards", "metrics", "errors", "stop_condition"),
    "AgentInfo": ("trainable",),
    "Reward": ("score", "weight"),
    "Error": ("type", "message"),
    "TaskData": ("idx",),
}


def surface() -> dict[str, Any]:
    """Return the signatures and fields that the adapter uses."""
    vf: Any = importlib.import_module("verifiers.v1")
    found: dict[str, Any] = {}
    for name, members in NAMES.items():
        value = getattr(vf, name)
        if not members:
            found[name] = list(inspect.signature(value).parameters)
            continue
        fields = getattr(value, "model_fields", getattr(value, "__dataclass_fields__", {}))
        for member in members:
            attribute = getattr(value, member, None)
            found[f"{name}.{member}"] = (
                list(inspect.signature(attribute).parameters)
                if inspect.isfunction(attribute)
                else "field"
                if member in fields or attribute is not None
                else "missing"
            )
    return found


async def episodes() -> list[Any]:
    """Play the tasks and return the episodes as JSON."""
    sys.path.insert(0, str(TASKSETS))
    vf: Any = importlib.import_module("verifiers.v1")
    config = vf.SingleAgentEnvConfig(
        taskset={"id": "small_sums"},
        agent={"harness": {"id": "null"}, "runtime": {"type": "subprocess"}},
    )
    env = vf.load_environment(config)
    endpoint = Endpoint()
    await endpoint.start()
    answering = asyncio.create_task(_answer(endpoint))
    client = vf.EvalClientConfig(base_url=endpoint.url, api_key_var="TINKER_RAY_NO_KEY")
    context = vf.ModelContext(model="policy", client=client)
    try:
        async with env.serving():
            return [
                json.loads((await env.run_episode(task, context)).model_dump_json())
                for task in env.taskset
            ]
    finally:
        answering.cancel()
        await endpoint.aclose()


async def _answer(endpoint: Endpoint) -> None:
    while True:
        request = await endpoint.requests.get()
        content = request.messages[-1]["content"]
        request.answer.set_result(Completion(ANSWERS.get(str(content), "0")))


def main() -> None:
    """Write the record."""
    record = {
        "version": importlib.metadata.version("verifiers"),
        "surface": surface(),
        "episodes": [_without_places(episode) for episode in asyncio.run(episodes())],
    }
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _without_places(episode: dict[str, Any]) -> dict[str, Any]:
    """Keep what is read, and not where and when it was recorded."""
    trace_fields = (*NAMES["Trace"], "is_completed", "ok")
    for error in (*episode["errors"], *(e for t in episode["traces"] for e in t["errors"])):
        error.pop("traceback", None)
    traces = [{name: trace[name] for name in trace_fields} for trace in episode["traces"]]
    for trace in traces:
        trace["agent"] = {"trainable": trace["agent"]["trainable"]}
    return {"ok": episode["ok"], "errors": episode["errors"], "traces": traces}


if __name__ == "__main__":
    main()
