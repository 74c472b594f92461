import ast

from tests.architecture.conftest import Module


def exported(module: Module) -> list[str] | None:
    """The literal ``__all__`` of a module, if it has one."""
    for node in module.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                return list(ast.literal_eval(value))
    return None


def constants_classes_functions(name: str) -> tuple[int, str]:
    """Sort key: CONSTANTS, then Classes, then functions, each by the alphabet (ruff's RUF022)."""
    if name.isupper():
        return 0, name
    return (1 if name[:1].isupper() else 2), name


def bound(module: Module) -> set[str]:
    """The names that a module's body binds."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def test_dunder_all_is_sorted_and_without_duplicates(modules: list[Module]) -> None:
    lists = {module.where: exported(module) for module in modules}
    unsorted = {
        where
        for where, names in lists.items()
        if names and names != sorted(set(names), key=constants_classes_functions)
    }
    assert set() == unsorted


def test_dunder_all_names_only_what_exists(modules: list[Module]) -> None:
    missing = {
        module.where: sorted(set(exported(module) or ()) - bound(module))
        for module in modules
        if "__getattr__" not in bound(module)
    }
    assert {} == {where: names for where, names in missing.items() if names}
