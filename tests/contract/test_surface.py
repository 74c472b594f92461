"""Every call that either upstream generation allows can be made here, and means the same.

The upstream surface is recorded by ``record_surface.py``. What differs on purpose is listed below
with its reason; a difference that is no longer one fails, too.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tinker_ray
from tinker_ray import auth
from tinker_ray.clients.telemetry import Telemetry

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "upstream_surface.json").read_text()
)
OURS: dict[str, type] = {
    name: getattr(tinker_ray, name, None) or getattr(tinker_ray.types, name, None) or Telemetry
    for entry in RECORDED.values()
    for name in entry["classes"]
    if name != "AwaitableConcurrentFuture"
} | {"AwaitableConcurrentFuture": tinker_ray.APIFuture}

MADE_BY_OTHERS = "objects of this class are made by the clients, from parts of our own"
MISSING: dict[tuple[str, str], str] = {
    ("TrainingClient", "__init__"): MADE_BY_OTHERS,
    ("SamplingClient", "__init__"): MADE_BY_OTHERS,
    ("BackcompatSamplingClientFuture", "__init__"): MADE_BY_OTHERS,
    ("BackcompatTrainingClientFuture", "__init__"): MADE_BY_OTHERS,
    ("Telemetry", "__init__"): MADE_BY_OTHERS,
    ("RestClient", "__init__"): "holder is passed by position, as the newer generation does",
}
"""Members whose calls do not bind here."""
SECOND = "second in the older generation, third in the newer: told apart by type, see below"
RENAMED = "the newer generation's name; the older one works by keyword"
ELSEWHERE: dict[tuple[str, str, str], str] = {
    ("ServiceClient", f"create_training_client_from_state{suffix}", "user_metadata"): SECOND
    for suffix in ("", "_async", "_with_optimizer", "_with_optimizer_async")
} | {
    ("TrainingClient", "optim_step", "adam_params"): RENAMED,
    ("TrainingClient", "optim_step_async", "adam_params"): RENAMED,
    ("RetryConfig", "__init__", "retryable_exceptions"): (
        "the eighth of the older generation is the ninth of the newer"
    ),
}
"""Arguments that land on a parameter of another name."""
DEFAULTS: dict[tuple[str, str, str], str] = {
    ("RetryConfig", "__init__", "progress_timeout"): "the same number of seconds, as a float",
    ("RetryConfig", "__init__", "retryable_exceptions"): (
        "our classes; what upstream takes of httpx is an APITimeoutError here"
    ),
}
"""Parameters whose default is another one."""


def members() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Give every recorded member: generation, class, name, description."""
    for version, entry in RECORDED.items():
        for class_name, found in entry["classes"].items():
            for name, described in found.items():
                kinds = {parameter["kind"] for parameter in described.get("parameters", ())}
                if "VAR_POSITIONAL" not in kinds:  # forwards to a class that is recorded itself
                    yield version, class_name, name, described


def calls(parameters: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """Give the ways to call a function; every argument is the name of its parameter."""
    listed = [entry["name"] for entry in parameters if entry["kind"] == "POSITIONAL_OR_KEYWORD"]
    named = {
        entry["name"]: entry["name"] for entry in parameters if entry["kind"] == "KEYWORD_ONLY"
    }
    required = [
        entry["name"]
        for entry in parameters
        if entry["kind"] == "POSITIONAL_OR_KEYWORD" and "default" not in entry
    ]
    for count in range(len(required), len(listed) + 1):
        yield tuple(listed[:count]), {}
        yield tuple(listed[:count]), named
    yield (), {name: name for name in listed} | named
    yield (), {name: name for name in required}


def ours(class_name: str, name: str) -> Any:  # noqa: ANN401 - whatever is there
    return inspect.getattr_static(OURS[class_name], name, None)


def bound(member: Any, call: tuple[tuple[str, ...], dict[str, str]]) -> dict[str, Any]:  # noqa: ANN401
    """Bind a call to a member and return what lands where."""
    function: Callable[..., Any] = getattr(member, "__func__", member)
    is_static = isinstance(member, staticmethod)
    positional, named = call
    signature = inspect.signature(function)
    arguments = signature.bind(*(() if is_static else (None,)), *positional, **named).arguments
    return {name: value for name, value in arguments.items() if name != "self"}


@pytest.mark.parametrize("version", sorted(RECORDED))
def test_every_exported_name_is_exported_here(version: str) -> None:
    modules = RECORDED[version]["modules"]
    assert set() == set(modules["tinker"]) - set(tinker_ray.__all__)
    assert set() == set(modules.get("tinker.auth", ())) - set(auth.__all__)


def test_every_member_is_there_in_its_kind() -> None:
    wrong = []
    for version, class_name, name, described in members():
        member = ours(class_name, name)
        kind = described["kind"]
        if kind == "attribute":  # of upstream's inside, unless it is a field
            continue
        is_coroutine = inspect.iscoroutinefunction(
            inspect.unwrap(getattr(member, "__func__", member))
        )
        right = member is not None and is_coroutine == (kind == "coroutine")
        if not right and (class_name, name) not in MISSING:
            wrong.append(f"{version} {class_name}.{name}: a {kind} there, {member} here")
    assert [] == wrong


def test_every_call_can_be_made_and_every_argument_lands_on_its_parameter() -> None:
    wrong, needless = [], set(MISSING) | {(cls, name) for cls, name, _ in ELSEWHERE}
    for version, class_name, name, described in members():
        if "parameters" not in described:
            continue
        for call in calls(described["parameters"]):
            where = f"{version} {class_name}.{name}{call}"
            try:
                landed = bound(ours(class_name, name), call)
            except (TypeError, ValueError) as error:
                needless.discard((class_name, name))
                if (class_name, name) not in MISSING:
                    wrong.append(f"{where}: {error}")
                continue
            for parameter, value in landed.items():
                if parameter != value and parameter not in {"args", "kwargs"}:
                    needless.discard((class_name, name))
                    known = (class_name, name) in MISSING or (class_name, name, value) in ELSEWHERE
                    if not known:
                        wrong.append(f"{where}: {value} lands on {parameter}")
    assert [] == wrong
    assert set() == needless


def test_defaults_are_the_same() -> None:
    wrong = []
    for version, class_name, name, described in members():
        if (class_name, name) in MISSING or "parameters" not in described:
            continue
        member = ours(class_name, name)
        signature = inspect.signature(getattr(member, "__func__", member))
        for parameter in described["parameters"]:
            here = signature.parameters.get(parameter["name"])
            if here is None or "default" not in parameter:
                continue
            key = (class_name, name, parameter["name"])
            if repr(here.default) != parameter["default"] and key not in DEFAULTS:
                there = parameter["default"]
                wrong.append(f"{version} {'.'.join(key)}: {there} there, {here.default!r} here")
    assert [] == wrong


def test_the_second_argument_of_from_state_may_be_either_generations() -> None:
    from tinker_ray.clients.model_making import _second

    assert ("base", {"a": "b"}) == _second("base", {"a": "b"})
    assert (None, {"a": "b"}) == _second({"a": "b"}, None)
    assert (None, None) == _second(None, None)
    with pytest.raises(TypeError, match="twice"):
        _second({"a": "b"}, {"c": "d"})
