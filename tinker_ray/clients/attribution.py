"""Every request says which public method it was made for: the service counts who calls what."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from tinker_ray.clients.ready import Ready
from tinker_ray.core.sdk_method import sdk_method

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", bound=type)


def attributed(cls: C) -> C:
    """Attribute the requests of a class's public methods to ``<class>.<method>``.

    Those that it inherits are its own, too, but for what makes a client a future. Only the
    outermost call counts: a method that calls another one keeps its own name.
    """
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if inspect.isfunction(member) and not name.startswith("_") and not hasattr(Ready, name):
            setattr(cls, name, _attributed(member, f"{cls.__name__}.{name}"))
    return cls


def _attributed(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def run_async(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the method's
            with sdk_method(name):
                return await method(*args, **kwargs)

        return run_async

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the method's
        with sdk_method(name):
            return method(*args, **kwargs)

    return run
