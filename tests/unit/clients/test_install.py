from __future__ import annotations

import importlib
import importlib.metadata
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tinker_ray
from tinker_ray.clients import install as module
from tinker_ray.clients import upstream_modules
from tinker_ray.errors import ConfigurationError

RECORDED = json.loads(
    (Path(__file__).parents[2] / "contract" / "golden" / "upstream_surface.json").read_text()
)


@pytest.fixture
def installed() -> Iterator[None]:
    module.install()
    yield
    module.uninstall()


@pytest.mark.usefixtures("installed")
def test_tinker_is_this_package() -> None:
    import tinker  # type: ignore[import-not-found]
    from tinker import types
    from tinker.types.tensor_data import TensorData  # type: ignore[import-not-found]

    assert tinker_ray.ServiceClient is tinker.ServiceClient
    assert tinker_ray.types.Datum is types.Datum is tinker.types.Datum
    assert tinker_ray.types.TensorData is TensorData
    assert upstream_modules.COMPATIBLE_VERSION == tinker.__version__
    assert upstream_modules.COMPATIBLE_VERSION == importlib.metadata.version("tinker")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("version", sorted(RECORDED))
def test_every_exported_name_is_there(version: str) -> None:
    for name, exported in RECORDED[version]["modules"].items():
        found = importlib.import_module(name)
        assert [] == [item for item in exported if not hasattr(found, item)], name


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "name", [*upstream_modules.NAMES, *(f"tinker.types.{name}" for name in upstream_modules.TYPES)]
)
def test_every_name_of_the_table_leads_somewhere(name: str) -> None:
    found = importlib.import_module(name)
    listed = set(upstream_modules.NAMES.get(name, ())) | set(dir(found))
    assert [] == [item for item in listed if getattr(found, item, None) is None]


IMPORTS = """
from tinker.lib.retry_handler import RetryConfig, is_retryable_status_code
from tinker.lib.retryable_exception import RetryableException
from tinker.lib.public_interfaces import APIFuture, ServiceClient
from tinker.lib.public_interfaces.service_client import RetryConfig, ServiceClient
from tinker.lib.public_interfaces.training_client import TrainingClient
from tinker.lib.public_interfaces.sampling_client import QueueState, SamplingClient
from tinker.lib.public_interfaces.rest_client import RestClient
from tinker.lib.public_interfaces.api_future import APIFuture, AwaitableConcurrentFuture
from tinker.lib.client_connection_pool_type import ClientConnectionPoolType
from tinker.lib.internal_client_holder import ClientConnectionPoolType, InternalClientHolder
from tinker.lib.api_future_impl import QueueState, QueueStateObserver, _APIFuture
from tinker.lib.telemetry import Telemetry, capture_exceptions, is_user_error
from tinker.lib.telemetry_provider import TelemetryProvider
from tinker.lib.sync_only import sync_only
from tinker._exceptions import APIConnectionError, APIStatusError, RequestFailedError
from tinker._types import NOT_GIVEN, NotGiven
from tinker._version import __version__
from tinker.types import *
from tinker.types.loss_fn_type import LossFnType
import tinker.types as t, tinker.lib.retry_handler, tinker.auth
"""
"""What published scripts import by path."""


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("line", IMPORTS.strip().splitlines())
def test_scripts_find_what_they_import_by_path(line: str) -> None:
    exec(line, {})  # noqa: S102 - an import of the list above


@pytest.mark.usefixtures("installed")
def test_modules_are_reached_as_attributes_too() -> None:
    import tinker

    assert tinker_ray.types.RetryConfig is tinker.lib.retry_handler.RetryConfig


@pytest.mark.usefixtures("installed")
def test_the_inside_of_the_upstream_package_is_not_there_and_says_so() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"tinker-ray here"):
        importlib.import_module("tinker._base_client")
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'.*tinker-ray"):
        _ = importlib.import_module("tinker.types").nonsense
    assert not hasattr(importlib.import_module("tinker"), "__path_hooks__")


@pytest.mark.usefixtures("installed")
def test_what_is_made_under_either_name_pickles_for_processes_without_the_other() -> None:
    from tinker import types

    assert b"tinker_ray" in pickle.dumps(types.SamplingParams(max_tokens=1))


def test_installing_twice_and_undoing_it() -> None:
    module.install()
    module.install()
    assert 1 == sum(isinstance(finder, module.UpstreamFinder) for finder in sys.meta_path)
    importlib.import_module("tinker.types")
    module.uninstall()
    module.uninstall()
    assert not module.is_installed()
    assert [] == [name for name in sys.modules if name.partition(".")[0] == "tinker"]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tinker")
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("tinker")


def test_an_upstream_package_that_was_imported_is_replaced_by_force_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upstream = ModuleType("tinker")
    upstream.__file__ = "/site-packages/tinker/__init__.py"
    monkeypatch.setitem(sys.modules, "tinker", upstream)
    monkeypatch.setitem(sys.modules, "tinker.types", ModuleType("tinker.types"))
    with pytest.raises(ConfigurationError, match=r"/site-packages/tinker.*force=True"):
        module.install()
    assert not module.is_installed()
    module.install(force=True)
    try:
        assert tinker_ray.ServiceClient is importlib.import_module("tinker").ServiceClient
        assert tinker_ray.types.Datum is importlib.import_module("tinker.types").Datum
    finally:
        module.uninstall()


def test_installing_loads_neither_ray_nor_torch_nor_the_clients() -> None:
    script = (
        "import sys, tinker_ray; tinker_ray.install(); import tinker; from tinker import types; "
        "print([n for n in ('ray', 'torch', 'tinker_ray.clients.service') if n in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "[]" == run.stdout.strip()
