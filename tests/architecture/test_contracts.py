"""The import contracts of pyproject.toml leave no package out."""

import tomllib
from typing import Any

import pytest

from tests.architecture.conftest import ROOT, Module

EXEMPT = {
    "engine-above": {"tinker_ray.cli", "tinker_ray.engine"},
    "ray": {"actors", "tinker_ray.rl"},
    "httpx": {"tinker_ray.transport"},
    "torch": {"tinker_ray.engine"},
}
"""By contract: the packages that may import what it forbids to all others."""


def contracts() -> dict[str, Any]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"]: contract for contract in pyproject["tool"]["importlinter"]["contracts"]}


def packages(modules: list[Module]) -> set[str]:
    """The packages and modules on the top level, as ``tinker_ray.wire`` and ``actors``."""
    inside = [module.path.relative_to(ROOT).with_suffix("").parts for module in modules]
    names = {".".join(parts[:2]) if parts[0] == "tinker_ray" else parts[0] for parts in inside}
    return names - {"tinker_ray.__init__"}


@pytest.mark.parametrize("contract", sorted(EXEMPT))
def test_a_contract_covers_every_package(contract: str, modules: list[Module]) -> None:
    covered = set(contracts()[contract]["source_modules"]) | EXEMPT[contract]
    assert set() == packages(modules) - covered


def test_every_package_but_the_engine_has_a_layer(modules: list[Module]) -> None:
    layers = {
        name.strip(" ()")
        for layer in contracts()["layers"]["layers"]
        for name in layer.replace(":", "|").split("|")
    }
    assert {"tinker_ray.engine"} == packages(modules) - layers
