"""Record the public types of the installed upstream SDK: fields, defaults, literals, methods.

Run it with an interpreter that has a release of the ``tinker`` package, once per generation::

    python tests/contract/record_types.py tests/contract/golden/upstream_types.json

Each run replaces the entry of its release in the file and leaves the others. Needs nothing but the
standard library and the SDK.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import importlib.metadata
import inspect
import json
import pkgutil
import sys
import types
import typing
from pathlib import Path
from typing import Any

PACKAGE = "tinker.types"


def describe(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any type
    """Describe a type: its kind, and what can be compared of it."""
    if inspect.isclass(value) and hasattr(value, "model_fields"):
        return {"kind": "class", **_model(value), "methods": _methods(value)}
    if dataclasses.is_dataclass(value):
        return {"kind": "class", **_dataclass(value), "methods": _methods(value)}
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        return {"kind": "enum", "members": {item.name: item.value for item in value}}
    if typing.get_origin(value) is typing.Literal:
        return {"kind": "literal", "values": sorted(typing.get_args(value))}
    return {"kind": "alias"}


def _model(cls: Any) -> dict[str, Any]:  # noqa: ANN401
    fields = {}
    for name, info in cls.model_fields.items():
        fields[name] = {"required": info.is_required()}
        if not info.is_required():
            fields[name]["default"] = _shown(info.get_default(call_default_factory=True))
    return {"frozen": bool(cls.model_config.get("frozen")), "fields": fields}


def _dataclass(cls: Any) -> dict[str, Any]:  # noqa: ANN401
    """Describe by the constructor, as some dataclasses bring their own."""
    fields: dict[str, Any] = {}
    factories = {item.name: item.default_factory for item in dataclasses.fields(cls)}
    for name, parameter in inspect.signature(cls).parameters.items():
        if name.startswith("_"):
            continue
        has_default = parameter.default is not inspect.Parameter.empty
        fields[name] = {"required": not has_default}
        if has_default:
            factory = factories.get(name, dataclasses.MISSING)
            made = parameter.default if factory is dataclasses.MISSING else factory()
            fields[name]["default"] = _shown(made)
    return {"frozen": cls.__dataclass_params__.frozen, "fields": fields}


def _methods(cls: Any) -> dict[str, Any]:  # noqa: ANN401
    """Describe the methods and properties that a class defines itself."""
    methods: dict[str, Any] = {}
    decorators = getattr(cls, "__pydantic_decorators__", None)
    kinds = dataclasses.fields(decorators) if decorators else ()
    checks = {name for kind in kinds for name in getattr(decorators, kind.name)}
    for name, value in vars(cls).items():
        if name.startswith(("_", "model_")) or name in checks:
            continue
        if isinstance(value, classmethod | staticmethod | types.FunctionType):
            parameters = inspect.signature(getattr(cls, name)).parameters
            methods[name] = [item for item in parameters if item != "self"]
        elif isinstance(value, property) or type(value).__name__ == "cached_property":
            methods[name] = None
    return methods


def _shown(value: Any) -> Any:  # noqa: ANN401
    """Give a default as JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def exported(package: Any) -> dict[str, Any]:  # noqa: ANN401
    """Give what the package exports."""
    return {
        name: value
        for name, value in vars(package).items()
        if not name.startswith("_") and name != "annotations" and not inspect.ismodule(value)
    }


def beside(package: Any) -> dict[str, Any]:  # noqa: ANN401
    """Give the types that only the package's modules export."""
    found: dict[str, Any] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            if inspect.isclass(value) and value.__module__ == module.__name__:
                found[name] = value
    return found


def main() -> None:
    """Record the installed generation."""
    path = Path(sys.argv[1])
    package = importlib.import_module(PACKAGE)
    public = exported(package)
    inner = {name: value for name, value in beside(package).items() if name not in public}
    recorded = json.loads(path.read_text()) if path.exists() else {}
    recorded[importlib.metadata.version("tinker")] = {
        "exported": {name: describe(value) for name, value in sorted(public.items())},
        "in_modules": {name: describe(value) for name, value in sorted(inner.items())},
    }
    path.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(f"wrote {len(public)} types and {len(inner)} of modules to {path}\n")


if __name__ == "__main__":
    main()
