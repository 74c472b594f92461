"""The base models of an engine, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinker_ray.engine.serving.rejection import RequestRejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tinker_ray.engine.served_model import ServedModel


class Shelf:
    """The base models that are served."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {model.base.name: model for model in models}

    def __iter__(self) -> Iterator[ServedModel]:
        """Go through the models in the order in which they were given."""
        return iter(self._models.values())

    def find(self, name: str, *, field: str = "base_model") -> ServedModel:
        """Look a base model up.

        Raises:
            RequestRejected: It is not served.
        """
        if name not in self._models:
            served = ", ".join(self._models)
            message = f"the base model {name!r} is not served here (served: {served})"
            raise RequestRejected(message, field=field)
        return self._models[name]
