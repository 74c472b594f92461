"""Every command line of upstream's is one of ours: the same commands, arguments and options.

``golden/upstream_cli.json`` is what both of its generations have, recorded by ``record_cli.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from tinker_ray.cli.app import app

GOLDEN: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(
    (Path(__file__).parent / "golden" / "upstream_cli.json").read_text()
)
COMMANDS = [
    pytest.param(release, name, id=f"{release} {name}")
    for release, commands in sorted(GOLDEN.items())
    for name in sorted(commands)
]


def ours(name: str) -> Any:  # noqa: ANN401 - typer keeps its classes to itself
    """Find our command of a name."""
    command: Any = typer.main.get_command(app)
    for part in [] if name == "tinker" else name.split():
        command = command.commands[part]
    return command


@pytest.mark.parametrize("release, name", COMMANDS)
def test_a_command_takes_upstreams_options(release: str, name: str) -> None:
    known = {
        option: bool(parameter.is_flag)
        for parameter in ours(name).params
        if parameter.param_type_name == "option"
        for option in parameter.opts
    }
    expected = {
        option: parameter["flag"]
        for parameter in GOLDEN[release][name]
        if parameter["kind"] == "option"
        for option in parameter["options"]
    }
    assert expected == {option: known.get(option) for option in expected}


@pytest.mark.parametrize("release, name", COMMANDS)
def test_a_command_takes_upstreams_arguments_in_their_order(release: str, name: str) -> None:
    mine = [
        (parameter.nargs == -1, parameter.required)
        for parameter in ours(name).params
        if parameter.param_type_name == "argument"
    ]
    theirs = [
        (parameter["many"], parameter["required"])
        for parameter in GOLDEN[release][name]
        if parameter["kind"] == "argument"
    ]
    # The older generation asks for at least one path where the newer one has another way to choose.
    assert [many for many, _required in theirs] == [many for many, _required in mine]
    assert all(
        not ours or upstreams for (_, upstreams), (_, ours) in zip(theirs, mine, strict=True)
    )


@pytest.mark.parametrize("release", sorted(GOLDEN))
def test_an_option_that_is_repeatable_upstream_is_repeatable_here(release: str) -> None:
    for name, parameters in GOLDEN[release].items():
        many = {
            option
            for parameter in ours(name).params
            if parameter.param_type_name == "option" and parameter.multiple
            for option in parameter.opts
        }
        expected = {
            option
            for parameter in parameters
            if parameter["kind"] == "option" and parameter["many"]
            for option in parameter["options"]
        }
        assert expected == expected & many, name
