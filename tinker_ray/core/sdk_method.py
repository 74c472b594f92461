"""Which public method a request is made for: the service counts who still calls what.

The name travels in a context variable, so that it reaches every request that a call causes, in
whatever task. What lives longer than a call starts in :func:`own_context`.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import TYPE_CHECKING

from tinker_ray.version import SDK_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

_METHOD = "x-sdk-method"
_current: contextvars.ContextVar[str | None] = contextvars.ContextVar("sdk_method", default=None)


@contextlib.contextmanager
def sdk_method(name: str | None) -> Iterator[None]:
    """Attribute the requests of the block to a public method, such as ``RestClient.whoami``.

    A method that calls another one keeps its own name. None attributes nothing anew.
    """
    if name is None or _current.get() is not None:
        yield
        return
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


def current_method() -> str | None:
    """Return the method that requests are attributed to."""
    return _current.get()


def method_headers() -> dict[str, str]:
    """Return the headers of the present method; none outside of one."""
    name = _current.get()
    return {} if name is None else {"x-sdk-version": SDK_VERSION, _METHOD: name}


def carry(carrier: Mapping[str, str]) -> dict[str, str]:
    """Add the present method to a trace's carrier, to be taken up in another process."""
    name = _current.get()
    return dict(carrier) if name is None else {**carrier, _METHOD: name}


def carried(carrier: Mapping[str, str] | None) -> AbstractContextManager[None]:
    """Attribute the requests of a block to the method that came with a carrier, if one did."""
    return sdk_method((carrier or {}).get(_METHOD))


def own_context() -> contextvars.Context:
    """Return a context for a task of the background, which is no part of the call that starts it.

    Neither its requests nor its spans are that call's.
    """
    return contextvars.Context()
