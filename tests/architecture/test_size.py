import ast

from tests.architecture.conftest import Module

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_EXAMPLE_LINES = 80

LARGE: dict[str, str] = {}
"""What may be larger and why: ``path`` or ``path:function``, and a reason that a reader accepts."""


def outsized(modules: list[Module]) -> dict[str, int]:
    """Lines of each module and function above its guide."""
    sizes = {module.where: module.text.count("\n") for module in modules}
    found = {where: lines for where, lines in sizes.items() if lines > MAX_MODULE_LINES}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found[f"{module.where}:{node.name}"] = lines
    return found


def test_modules_and_functions_keep_to_their_size_or_have_a_reason(modules: list[Module]) -> None:
    without_reason = {
        where: lines for where, lines in outsized(modules).items() if where not in LARGE
    }
    assert {} == without_reason


def test_no_reason_is_left_for_what_is_small_again(modules: list[Module]) -> None:
    assert set() == set(LARGE) - set(outsized(modules))


def test_an_example_fits_on_two_screens(examples: list[Module]) -> None:
    sizes = {example.where: example.text.count("\n") for example in examples}
    assert {} == {where: lines for where, lines in sizes.items() if lines > MAX_EXAMPLE_LINES}
