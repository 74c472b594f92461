"""Record the public surface of the installed upstream SDK: names, kinds, parameters and defaults.

Run it with an interpreter that has a release of the ``tinker`` package, once per generation::

    python tests/contract/record_surface.py tests/contract/golden/upstream_surface.json

Each run replaces the entry of its release in the file and leaves the others. Needs nothing but the
standard library and the SDK.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

CLASSES = {
    "ServiceClient": "tinker.lib.public_interfaces.service_client",
    "TrainingClient": "tinker.lib.public_interfaces.training_client",
    "SamplingClient": "tinker.lib.public_interfaces.sampling_client",
    "RestClient": "tinker.lib.public_interfaces.rest_client",
    "AdminClient": "tinker.lib.public_interfaces.admin_client",
    "APIFuture": "tinker.lib.public_interfaces.api_future",
    "AwaitableConcurrentFuture": "tinker.lib.public_interfaces.api_future",
    "BackcompatSamplingClientFuture": (
        "tinker.lib.public_interfaces.backcompat_sampling_client_future"
    ),
    "BackcompatTrainingClientFuture": (
        "tinker.lib.public_interfaces.backcompat_training_client_future"
    ),
    "LossHandle": "tinker.lib.public_interfaces.custom_loss",
    "RetryConfig": "tinker.lib.retry_handler",
    "Telemetry": "tinker.lib.telemetry",
}
"""Public classes and where they are; one that a generation lacks is left out."""
MODULES = ("tinker", "tinker.auth", "tinker.lib.public_interfaces")
"""Modules whose exported names count."""
SPECIAL = ("__await__", "__enter__", "__exit__", "__reduce__")


def parameters(function: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Describe the parameters of a function, without self."""
    described = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        entry = {"name": parameter.name, "kind": parameter.kind.name}
        if parameter.default is not inspect.Parameter.empty:
            entry["default"] = _shown(parameter.default)
        described.append(entry)
    return described


def _shown(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, enum.Enum):
        return str(value)
    text = repr(value)
    return "<object>" if " at 0x" in text else text


def member(name: str, value: Any) -> dict[str, Any] | None:  # noqa: ANN401
    """Describe one member of a class; None for what is no part of its surface."""
    if isinstance(value, property):
        return {"kind": "property"}
    static = isinstance(value, staticmethod | classmethod)
    function = value.__func__ if static else value
    if not inspect.isfunction(function):
        return None if name.startswith("_") else {"kind": "attribute"}
    kind = "coroutine" if inspect.iscoroutinefunction(inspect.unwrap(function)) else "method"
    return {"kind": "static" if static else kind, "parameters": parameters(function)}


def members(cls: type) -> dict[str, Any]:
    """Describe the public members that a class and its own bases define."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("tinker"):
            continue
        for name, value in vars(base).items():
            if name == "__init__" or name in SPECIAL or not name.startswith("_"):
                described = member(name, value)
                if described is not None:
                    found[name] = described
    return dict(sorted(found.items()))


def exported(module_name: str) -> list[str] | None:
    """List the names that a module exports; None if this generation lacks it."""
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        return None
    listed = getattr(module, "__all__", None)
    if listed is None:
        listed = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module_name
        ]
    return sorted(listed)


def surface() -> dict[str, Any]:
    """Describe what the installed release offers."""
    classes = {}
    for name, module_name in CLASSES.items():
        try:
            cls = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError):
            continue
        classes[name] = members(cls)
    modules = {name: exported(name) for name in MODULES}
    return {
        "classes": classes,
        "modules": {name: names for name, names in modules.items() if names is not None},
    }


def main(path: Path) -> None:
    """Write the entry of the installed release into a file."""
    version = importlib.import_module("tinker").__version__
    entries = json.loads(path.read_text()) if path.exists() else {}
    entries[version] = surface()
    path.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
