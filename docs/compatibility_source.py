"""What the rows of the compatibility table are made from: upstream's record, and what is here."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import typer

import tinker_ray
from docs import compatibility_facts as facts
from docs.compatibility_row import Row, Section
from tests.contract.record_surface import CLASSES
from tests.contract.test_surface import DEFAULTS, ELSEWHERE, MISSING
from tests.contract.test_types import OTHER_DEFAULTS, OTHER_FIELDS
from tinker_ray.wire import endpoint
from tinker_ray.wire.endpoint import Endpoint

GOLDEN = Path(__file__).parents[1] / "tests" / "contract" / "golden"
HERE = "✓"
SURFACE_TESTS = ("contract/test_surface.py",)
TYPE_TESTS = ("contract/test_types.py",)
COMMAND_TESTS = ("contract/test_cli_surface.py",)
_NEAR = {
    "ServiceClient": ("unit/clients/test_service", "e2e/test_surface"),
    "TrainingClient": ("unit/clients/test_training", "e2e/test_surface"),
    "SamplingClient": ("unit/clients/test_sampling", "e2e/test_surface"),
    "RestClient": ("unit/clients/test_rest", "e2e/test_surface"),
    "AdminClient": ("unit/clients/test_admin", "unit/clients/test_rest", "e2e/test_surface"),
    "LossHandle": ("unit/clients/test_loss", "contract/test_custom"),
    "RetryConfig": ("unit/core/test_retry", "unit/types/test_sampling"),
    "Telemetry": ("unit/clients/test_telemetry", "unit/core/test_reporter"),
}
_ENGINE_NEAR = ("contract/engine", "e2e/test_serve", "contract/test_status")


def sections() -> list[Section]:
    """Make every section, rows without tests."""
    tinker_ray.install()
    return [*_clients(), _exports(), _types(), _errors(), _commands(), _environment(), _endpoints()]


@cache
def _record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return record


def _releases(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(release for release in facts.BOTH if release in record)


def _by_name(record: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Turn names by release into releases by name."""
    names = sorted({name for entry in record.values() for name in entry})
    return {
        name: tuple(release for release in facts.BOTH if name in record.get(release, {}))
        for name in names
    }


# --- clients ------------------------------------------------------------------------------------


def _clients() -> Iterator[Section]:
    surface = {release: entry["classes"] for release, entry in _record("upstream_surface").items()}
    for name in CLASSES:
        members = {release: classes.get(name, {}) for release, classes in surface.items()}
        rows = [_member(name, member, releases) for member, releases in _by_name(members).items()]
        words = (inspect.getdoc(_found(CLASSES[name], name)) or "").partition("\n\n")[0]
        near = _NEAR.get(name, ())
        yield Section(name, _plain(words), rows, near, SURFACE_TESTS, about=name)


def _plain(words: str) -> str:
    """Take the markup of docstrings out of words."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", words).replace("\n", " ").replace("``", "`")


def _member(cls: str, member: str, releases: tuple[str, ...]) -> Row:
    reasons = [facts.DIFFERENCES.get(f"{cls}.{member}"), MISSING.get((cls, member))]
    for (of, name, parameter), reason in ELSEWHERE.items():
        if (of, name) == (cls, member):
            reasons.append(f"`{parameter}`: {reason}")
    for (of, name, parameter), reason in DEFAULTS.items():
        if (of, name) == (cls, member):
            reasons.append(f"default of `{parameter}`: {reason}")
    here = HERE if hasattr(_found(CLASSES[cls], cls), member) else ""
    word = cls if member == "__init__" else member
    return Row(member, releases, here, (word,), "; ".join(filter(None, reasons)))


def _found(module: str, name: str) -> Any:  # noqa: ANN401
    """Find what a script finds that imports a name of upstream's; None if there is nothing."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


# --- names that modules export ------------------------------------------------------------------


def _exports() -> Section:
    modules: dict[str, dict[str, Any]] = {
        release: {
            f"{module}.{name}": None for module, names in entry["modules"].items() for name in names
        }
        for release, entry in _record("upstream_surface").items()
    }
    rows = []
    for full_name, releases in _by_name(modules).items():
        module, _, name = full_name.rpartition(".")
        if _is_exception(_found(module, name)):
            continue
        here = HERE if _found(module, name) is not None else ""
        rows.append(Row(full_name, releases, here, (name,), facts.DIFFERENCES.get(full_name, "")))
    words = (
        "What `import tinker`, `tinker.auth` and `tinker.lib.public_interfaces` export, but for "
        "the exceptions below."
    )
    return Section("Exported names", words, rows, ("unit/test", "unit/clients"), SURFACE_TESTS)


def _types() -> Section:
    record = {
        release: entry["exported"] | entry["in_modules"]
        for release, entry in _record("upstream_types").items()
    }
    rows = [
        Row(name, releases, HERE if _type(name) else "", (name,), _type_note(name))
        for name, releases in _by_name(record).items()
    ]
    words = (
        "What `tinker.types` and its modules have. Fields, defaults and methods are compared one "
        "by one by the test that every row cites."
    )
    return Section("Types", words, rows, ("unit/types", "unit/wire"), TYPE_TESTS)


def _type(name: str) -> bool:
    if _found("tinker.types", name) is not None:
        return True
    from tinker_ray import types

    modules = [f"{types.__name__}.{info.name}" for info in pkgutil.iter_modules(types.__path__)]
    return any(hasattr(importlib.import_module(module), name) for module in modules)


def _type_note(name: str) -> str:
    differences = {**OTHER_DEFAULTS, **OTHER_FIELDS}
    notes = [f"`{field}`: {reason}" for (cls, field), reason in differences.items() if cls == name]
    return "; ".join([*notes, *filter(None, [facts.DIFFERENCES.get(name)])])


def _errors() -> Section:
    modules = {
        release: {
            name: None
            for name in entry["modules"]["tinker"]
            if _is_exception(_found("tinker", name))
        }
        for release, entry in _record("upstream_surface").items()
    }
    rows = [
        Row(name, releases, HERE, (name,), facts.DIFFERENCES.get(f"errors.{name}", ""))
        for name, releases in _by_name(modules).items()
    ]
    words = (
        "The tree of exceptions. All of them pickle here, and hold plain values: `.response` and "
        "`.request` are not kept across processes (ADR 4)."
    )
    return Section("Exceptions", words, rows, ("unit/types/test_errors", "contract/test_status"))


def _is_exception(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, type) and issubclass(value, Exception)


# --- the command line ---------------------------------------------------------------------------


def _commands() -> Section:
    known = _our_commands()
    record = {
        release: {name: None for name, parameters in entry.items() if _is_command(entry, name)}
        for release, entry in _record("upstream_cli").items()
    }
    rows = []
    for name, releases in _by_name(record).items():
        here = f"`tinker-ray {name}`" if name in known else ""
        group, _, command = name.rpartition(" ")
        mentioned = (f'"{group}", "{command}"', name, command)
        rows.append(
            Row(f"tinker {name}", releases, here, mentioned, facts.DIFFERENCES.get(name, ""))
        )
    words = (
        "The same commands with the same options, `-f/--format` and `--base-url` before or after "
        "them. Ours alone: `serve`, `train`, `demo`, `status`, `session list`, `session info`."
    )
    return Section("Commands", words, rows, ("unit/cli", "e2e/test_cli"), COMMAND_TESTS)


def _is_command(entry: Mapping[str, Any], name: str) -> bool:
    return name != "tinker" and not any(other.startswith(f"{name} ") for other in entry)


def _our_commands() -> set[str]:
    from tinker_ray.cli.app import app

    found: set[str] = set()

    def walk(command: Any, name: str) -> None:  # noqa: ANN401 - typer's
        for each, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {each}".strip())
        found.add(name)

    walk(typer.main.get_command(app), "")
    return found


# --- the environment and the wire ---------------------------------------------------------------


def _environment() -> Section:
    text = Path(inspect.getfile(tinker_ray.config)).read_text(encoding="utf-8")
    rows = [
        Row(
            name,
            releases,
            HERE if name in text else "",
            (name,),
            facts.DIFFERENCES.get(name, ""),
        )
        for name, releases in facts.ENVIRONMENT.items()
    ]
    words = "Variables that upstream reads. Ours alone: `TINKER_RAY_MODE`, `TINKER_RAY_HOME`."
    return Section("Environment variables", words, rows, ("unit/test_config", "unit/cli"))


def _endpoints() -> Section:
    names = {
        (value.method, _shape(value.path.removeprefix("/api/v1"))): name
        for name, value in vars(endpoint).items()
        if isinstance(value, Endpoint)
    }
    rows = []
    for each in facts.ENDPOINTS:
        client = names.get((each.method, _shape(each.path)), "")
        sides = [f"client (`{client}`)"] if client in _asked() else []
        sides += ["engine"] if _engine_has(each.method, each.path) else []
        static = [part for part in each.path.split("/")[1:] if not part.startswith("{")]
        mentioned = ("/".join(static[-2:]), static[-1])
        name = f"{each.method} {each.path}"
        rows.append(Row(name, each.releases, ", ".join(sides), mentioned, each.note))
    words = (
        "Below `/api/v1`. *S* and *N* say whose client calls it; *here* says whether ours does "
        "(by its row in `wire/endpoint.py`), and whether the embedded engine answers it."
    )
    return Section("Endpoints", words, rows, _ENGINE_NEAR)


@cache
def _asked() -> frozenset[str]:
    """The rows of ``wire/endpoint.py`` that some call of ours is made by."""
    package = Path(inspect.getfile(tinker_ray)).parent
    texts = [
        path.read_text()
        for folder in ("core", "transport")
        for path in (package / folder).glob("*.py")
    ]
    return frozenset(re.findall(r"\bendpoint\.([A-Z_]+)", "\n".join(texts)))


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


_EXAMPLES = {
    "run_id": "S:train:0",
    "checkpoint_id": "weights/a",
    "session_id": "S",
    "sampler_id": "S:sample:0",
}


def _engine_has(method: str, path: str) -> bool:
    from tinker_ray.engine.serving.route import PREFIX

    example = PREFIX + path.format(**_EXAMPLES)
    return any(method in route.methods and route.path_regex.match(example) for route in _routes())


@cache
def _routes() -> tuple[Any, ...]:
    from tinker_ray.engine.serving import routes

    modules = [f"{routes.__name__}.{info.name}" for info in pkgutil.iter_modules(routes.__path__)]
    return tuple(
        route for module in modules for route in importlib.import_module(module).router.routes
    )
