"""Our types stand in for upstream's: the same names, fields, defaults and methods, or more.

``golden/upstream_types.json`` is what both of its generations have, recorded by
``record_types.py``. Each test collects what differs, by name, and expects nothing.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.contract import record_types
from tinker_ray import types

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "upstream_types.json").read_text()
)
NOT_ASKED = "what was not asked for is False, never None"
OTHER_DEFAULTS = {
    ("SampleRequest", "prompt_logprobs"): NOT_ASKED,
    ("SampleRequest", "record_stability_info"): NOT_ASKED,
}
"""Fields whose defaults are not upstream's, on purpose."""
OTHER_FIELDS = {
    ("OptimStepRequest", "adam_params"): "an alias of optim_params, as in the newer generation",
    ("SampleResponse", "type"): "shown, not taken: there is nothing to choose",
}
"""Fields that the constructor does not take by that name, on purpose."""

both_generations = pytest.mark.parametrize("version", sorted(GOLDEN))


def theirs(version: str, kind: str) -> dict[str, Any]:
    """What was recorded of a kind of types, those that only modules export too."""
    entry = GOLDEN[version]
    everything = entry["exported"] | entry["in_modules"]
    return {name: item for name, item in everything.items() if item["kind"] == kind}


@cache
def ours(name: str) -> Any:  # noqa: ANN401
    """Our type of a name, wherever in the package it is."""
    if name in types.__all__:
        return getattr(types, name)
    names = [f"{types.__name__}.{info.name}" for info in pkgutil.iter_modules(types.__path__)]
    modules = [importlib.import_module(module) for module in names]
    return next(getattr(module, name) for module in modules if hasattr(module, name))


@cache
def described(name: str) -> dict[str, Any]:
    """Our type of a name, described as upstream's are."""
    return record_types.describe(ours(name))


@both_generations
def test_every_name_of_upstream_is_exported(version: str) -> None:
    assert set() == set(GOLDEN[version]["exported"]) - set(types.__all__)


@both_generations
def test_a_type_is_of_upstreams_kind(version: str) -> None:
    kinds = ("class", "enum", "literal", "alias")
    expected = {name: kind for kind in kinds for name in theirs(version, kind)}
    assert expected == {name: described(name)["kind"] for name in expected}


@both_generations
def test_a_closed_set_holds_upstreams_values(version: str) -> None:
    missing = {
        name: set(item["values"]) - set(described(name)["values"])
        for name, item in theirs(version, "literal").items()
    }
    assert {} == {name: values for name, values in missing.items() if values}
    enums = {name: item["members"] for name, item in theirs(version, "enum").items()}
    assert enums == {name: described(name)["members"] for name in enums}


@both_generations
def test_a_class_takes_upstreams_fields(version: str) -> None:
    missing = {
        (name, field)
        for name, item in theirs(version, "class").items()
        for field in item["fields"]
        if field not in inspect.signature(ours(name)).parameters
        and field not in described(name)["fields"]
    }
    assert missing <= set(OTHER_FIELDS)


@both_generations
def test_a_class_shows_upstreams_fields(version: str) -> None:
    missing = {
        (name, field)
        for name, item in theirs(version, "class").items()
        for field in item["fields"]
        if field not in described(name)["fields"] and not hasattr(ours(name), field)
    }
    assert set() == missing


@both_generations
def test_a_field_has_upstreams_default(version: str) -> None:
    expected, found = {}, {}
    for name, item in theirs(version, "class").items():
        for field, entry in item["fields"].items():
            if not entry["required"] and (name, field) not in OTHER_DEFAULTS | OTHER_FIELDS:
                mine = described(name)["fields"].get(field, {})
                expected[name, field] = _nothing_as_none(entry["default"])
                found[name, field] = _nothing_as_none(mine.get("default", "no default"))
    assert expected == found


def _nothing_as_none(default: Any) -> Any:  # noqa: ANN401
    """An empty collection and None both say that there is nothing."""
    return None if default in ([], {}) else default


@both_generations
def test_a_frozen_class_is_frozen(version: str) -> None:
    expected = {name: item["frozen"] for name, item in theirs(version, "class").items()}
    assert expected == {name: described(name)["frozen"] for name in expected}


@both_generations
def test_a_class_has_upstreams_methods(version: str) -> None:
    expected, found = {}, {}
    for name, item in theirs(version, "class").items():
        for method, parameters in item["methods"].items():
            expected[name, method] = parameters
            found[name, method] = parameters_of(ours(name), method, parameters)
    assert expected == found


def parameters_of(cls: Any, method: str, expected: list[str] | None) -> list[str] | None:  # noqa: ANN401
    """Name as many parameters of a method as are expected; of a property, None."""
    if not callable(inspect.getattr_static(cls, method)) and expected is None:
        return None
    given = inspect.signature(getattr(cls, method)).parameters
    return [name for name in given if name != "self"][: len(expected or ())]


def test_every_difference_still_is_one() -> None:
    for name, field in OTHER_DEFAULTS:
        recorded = theirs("0.38.0", "class")[name]["fields"][field]["default"]
        assert recorded != described(name)["fields"][field]["default"]


def test_the_older_name_of_a_steps_parameters_is_taken() -> None:
    fields = {"adam_params": {"learning_rate": 0.5}, "model_id": "m"}
    request = types.OptimStepRequest.model_validate(fields)
    assert types.AdamParams(learning_rate=0.5) == request.optim_params == request.adam_params
