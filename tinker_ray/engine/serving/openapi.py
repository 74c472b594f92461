"""The engine's description of itself (OpenAPI 3.1): what it answers, and what it reads.

The values are in :mod:`tinker_ray.engine.serving.answer_schema`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from tinker_ray.engine.serving.answer_schema import (
    ForwardBackwardBody,
    ForwardBody,
    Refusal,
    SampleBody,
    Value,
)
from tinker_ray.wire import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from pydantic import BaseModel

_REF = "#/components/schemas/{model}"


_BODIES = (SampleBody, ForwardBody, ForwardBackwardBody)


def told(
    model: type[BaseModel] | None, *refusals: int, success: int = 200
) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of an endpoint: a value, and the statuses with which it refuses."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": Refusal} for status in sorted({401, 413, 422, *refusals})
    }
    described: dict[str, Any] = {"description": "done"}
    if model is not None:
        described["model"] = model
    return {success: described, **answers}


def told_outcome(*refusals: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers with the outcome of a promise."""
    answers = told(Value, *refusals)
    answers[200]["content"] = {codec.PROTOBUF: {"schema": {"type": "string", "format": "binary"}}}
    answers[408] = {"model": Value, "description": "not done yet: ask again"}
    return answers


def told_file(*refusals: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers with a file."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    types = ("application/json", "application/octet-stream", "application/x-tar")
    content = dict.fromkeys(types, binary)
    answers = told(None, *refusals)
    answers[200] = {"description": "the file", "content": content}
    answers[206] = {"description": "a part of the file", "content": content}
    return answers


def body_of(model: type[BaseModel], *, protobuf: bool = False) -> dict[str, Any]:
    """Describe a body that the endpoint reads by itself."""
    content: dict[str, Any] = {codec.JSON: {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    if protobuf:
        content[codec.PROTOBUF] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> None:
    """Let an app describe itself truthfully: optional keys may be null."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _add_bodies(schema)
            _allow_nulls(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # how FastAPI has it extended


def _add_bodies(schema: dict[str, Any]) -> None:
    components = schema["components"]["schemas"]
    for model in _BODIES:
        described = model.model_json_schema(ref_template=_REF)
        components |= described.pop("$defs", {})
        components[model.__name__] = described


def _allow_nulls(schema: dict[str, Any]) -> None:
    """Say of requests what they do: a null is a key that is not there."""
    bodies = [
        operation["requestBody"]
        for path in schema["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
    ]
    components = schema["components"]["schemas"]
    for name in _referred(bodies, components):
        required = components[name].get("required", [])
        for key, item in components[name].get("properties", {}).items():
            if key not in required:
                components[name]["properties"][key] = {"anyOf": [item, {"type": "null"}]}


def _referred(value: object, components: Mapping[str, Any]) -> set[str]:
    """Name the components that a description refers to, and those that they refer to."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        match waiting.pop():
            case {"$ref": str(reference)}:
                name = reference.rpartition("/")[2]
                if name not in found:
                    found.add(name)
                    waiting.append(components[name])
            case dict(fields):
                waiting.extend(fields.values())
            case list(items):
                waiting.extend(items)
    return found
