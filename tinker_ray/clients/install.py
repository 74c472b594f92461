"""``tinker_ray.install()``: scripts that say ``import tinker`` get this package, here and on Ray.

A finder in front of all others makes ``tinker`` and its modules, whose names are looked up in this
package when they are first used. What has no counterpart is an import error that says so, never the
other package's code. Knows nothing of which names there are (see :mod:`.upstream_modules`).
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tinker_ray.clients import upstream_modules as table
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

PACKAGE = "tinker"
WORKER_HOOK = "tinker_ray.clients.install.install_in_worker"
"""For ``runtime_env={"worker_process_setup_hook": …}`` of a ``ray.init`` of your own."""


class UpstreamModule(ModuleType):
    """A module whose names are looked up in this package."""

    __path__: list[str]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Find a name when it is first used."""
        if name == "__all__":
            return [listed for listed in dir(self) if not listed.startswith("_")]
        if name.startswith("__") and name not in table.NAMES.get(self.__name__, {}):
            raise AttributeError(name)
        if f"{self.__name__}.{name}" in _known_modules():
            return importlib.import_module(f"{self.__name__}.{name}")
        value = _find(self.__name__, name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        """List what the sources offer."""
        listed = set(table.NAMES.get(self.__name__, ())) | set(vars(self))
        for source in _sources(self.__name__):
            offered = getattr(importlib.import_module(source), "__all__", ())
            listed.update(name for name in offered if not name.startswith("_"))
        return sorted(listed)


class UpstreamFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes the modules of the package ``tinker``."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the protocol
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module of the package; leave others to others.

        Raises:
            ModuleNotFoundError: The package has no such module here.
        """
        if fullname != PACKAGE and not fullname.startswith(f"{PACKAGE}."):
            return None
        if fullname not in _known_modules():
            message = (
                f"No module named {fullname!r}: `tinker` is tinker-ray here, by "
                "tinker_ray.install(), which offers the upstream SDK's interface, not its inside"
            )
            raise ModuleNotFoundError(message, name=fullname)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Make an empty module."""
        return UpstreamModule(spec.name, f"{spec.name}, as tinker-ray offers it.")

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty: names are found when they are used."""

    def find_distributions(
        self,
        context: importlib.metadata.DistributionFinder.Context | None = None,
    ) -> Iterable[importlib.metadata.Distribution]:
        """Tell ``importlib.metadata`` which release this stands for."""
        return [_Distribution()] if context is not None and context.name == PACKAGE else []


class _Distribution(importlib.metadata.Distribution):
    """What ``importlib.metadata.version("tinker")`` reads."""

    def read_text(self, filename: str) -> str | None:
        """Give the metadata, which is all there is."""
        if filename != "METADATA":
            return None
        return f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {table.COMPATIBLE_VERSION}\n"

    def locate_file(self, path: str | PathLike[str]) -> Any:  # noqa: ANN401
        """Refuse: there are no files.

        Raises:
            FileNotFoundError: Always.
        """
        raise FileNotFoundError(path)


def install(*, force: bool = False) -> None:
    """Let ``import tinker`` mean this package, in this process and in Ray workers.

    Call it before anything imports ``tinker``, and before Ray is connected to: ``tinker_ray.init``
    and clients then pass it on to the workers. Idempotent.

    Args:
        force: Replace an upstream ``tinker`` that was imported already; modules that hold names of
            it keep them.

    Raises:
        ConfigurationError: The upstream package was imported already, or this process is connected
            to a Ray whose workers would not know ``tinker``.
    """
    loaded = sys.modules.get(PACKAGE)
    if loaded is not None and not isinstance(loaded, UpstreamModule):
        if not force:
            message = (
                f"`tinker` was imported already, from {getattr(loaded, '__file__', None)}: call "
                "tinker_ray.install() before the first import of it, or install(force=True)"
            )
            raise ConfigurationError(message)
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
    _check_ray()
    install_in_worker()


def install_in_worker() -> None:
    """Let ``import tinker`` mean this package in this process; what Ray runs in each worker."""
    if not is_installed():
        sys.meta_path.insert(0, UpstreamFinder())
        importlib.invalidate_caches()


def is_installed() -> bool:
    """Tell whether ``import tinker`` means this package."""
    return any(isinstance(finder, UpstreamFinder) for finder in sys.meta_path)


def uninstall() -> None:
    """Undo :func:`install` in this process; idempotent. What was imported stays as it is."""
    sys.meta_path[:] = [found for found in sys.meta_path if not isinstance(found, UpstreamFinder)]
    for name, module in list(sys.modules.items()):
        if isinstance(module, UpstreamModule):
            del sys.modules[name]


def _check_ray() -> None:
    ray = sys.modules.get("ray")
    if ray is not None and bool(getattr(ray, "is_initialized", bool)()):
        from actors import cluster

        cluster.check_worker_hook(WORKER_HOOK)


def _known_modules() -> frozenset[str]:
    return _KNOWN


_KNOWN = frozenset([*table.NAMES, *(f"tinker.types.{name}" for name in table.TYPES)])


def _sources(module: str) -> tuple[str, ...]:
    if module.startswith("tinker.types."):
        return table.SOURCES["tinker.types"]
    return table.SOURCES.get(module, ())


def _find(module: str, name: str) -> Any:  # noqa: ANN401
    """Find a name of an upstream module in this package.

    Raises:
        AttributeError: It has no counterpart.
    """
    target = table.NAMES.get(module, {}).get(name)
    if target is not None:
        source, _, attribute = target.partition(":")
        return getattr(importlib.import_module(source), attribute)
    for source in _sources(module):
        found = getattr(importlib.import_module(source), name, None)
        if found is not None:
            return found
    message = (
        f"module {module!r} has no attribute {name!r}: `tinker` is tinker-ray here, by "
        "tinker_ray.install()"
    )
    raise AttributeError(message)
