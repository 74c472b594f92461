"""The project's own modules as text and syntax tree."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Module:
    """A Python file of the repository."""

    path: Path

    @property
    def where(self) -> str:
        """The path from the repository's root, as ``tinker_ray/wire/codec.py``."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.where)

    def qualified(self, node: ast.AST) -> str:
        """The dotted expression of a name or attribute, such as ``os.environ``; else empty."""
        match node:
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=value, attr=attr):
                return f"{self.qualified(value)}.{attr}"
            case _:
                return ""

    def imports(self) -> list[str]:
        """Every import, as ``path:line dotted.name``; what ``from`` imports counts as a part."""
        found = []
        for node in ast.walk(self.tree):
            match node:
                case ast.ImportFrom(module=str(module), level=0, names=aliases):
                    names = [module, *(f"{module}.{alias.name}" for alias in aliases)]
                case ast.Import(names=aliases):
                    names = [alias.name for alias in aliases]
                case _:
                    continue
            found += [f"{self.where}:{node.lineno} {name}" for name in names]
        return found

    def mentions(self, *names: str) -> list[str]:
        """Places where one of the dotted names is used or imported, as ``path:line name``."""
        used = [
            f"{self.where}:{node.lineno} {self.qualified(node)}"
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Attribute)
        ]
        return [place for place in [*used, *self.imports()] if place.split(" ")[1] in names]


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    """Every module of the two packages, less what protoc wrote."""
    paths = [
        path for package in ("tinker_ray", "actors") for path in (ROOT / package).rglob("*.py")
    ]
    return [Module(path) for path in sorted(paths) if not path.stem.endswith("_pb2")]


@pytest.fixture(scope="session")
def examples() -> list[Module]:
    return [Module(path) for path in sorted((ROOT / "examples").glob("*.py"))]
