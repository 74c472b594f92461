import ast
import re

from tests.architecture.conftest import Module

VAGUE_WORD = re.compile(r"(^|_)(utils?|helpers?|common|manager|misc|impl)(_|$)")
VAGUE_PREFIX = re.compile(r"^_*(base_(?!model|url)|do_|process_)")
VAGUE_CLASS = re.compile(
    r"(Utils?|Helpers?|Common|Manager|Misc|Impl)($|[A-Z])|^_*Base(?!Model)[A-Z]"
)
"""``base_model`` and ``base_url`` are words of the API."""


def vague(name: str) -> bool:
    return bool(VAGUE_WORD.search(name) or VAGUE_PREFIX.search(name))


def test_modules_are_named_for_what_they_are(modules: list[Module], examples: list[Module]) -> None:
    parts = {
        part for module in [*modules, *examples] for part in module.path.with_suffix("").parts[-4:]
    }
    assert set() == {part for part in parts if vague(part)}


def test_functions_and_classes_are_named_for_what_they_do(modules: list[Module]) -> None:
    found = []
    for module in modules:
        for node in ast.walk(module.tree):
            match node:
                case ast.ClassDef(name=name) if VAGUE_CLASS.search(name):
                    found.append(f"{module.where}:{node.lineno} class {name}")
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if vague(name):
                    found.append(f"{module.where}:{node.lineno} def {name}")
    assert [] == found
