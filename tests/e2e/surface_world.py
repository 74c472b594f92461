"""What calls of the clients are made on and about, and the shape of a call."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import tinker_ray
from tests.fakes.workload import datums, supervised
from tinker_ray import LossHandle, ModelInput, SamplingClient
from tinker_ray.engine.tiny_adder import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from tinker_ray import AdminClient, Datum, RestClient, ServiceClient, TrainingClient

TOKEN = "tml-access-token"  # noqa: S105 - of nobody
PROJECT = "a-project"
RANK = 4


@dataclass
class World:
    """What the calls are made on and about.

    Attributes:
        run_id: Of the model that the training client trains.
        state: A training checkpoint of it.
        weights: A sampler checkpoint of it.
    """

    service: ServiceClient
    training: TrainingClient
    sampler: SamplingClient
    rest: RestClient
    admin: AdminClient
    folder: Path
    data: list[Datum] = field(init=False)
    state: str = field(init=False)
    weights: str = field(init=False)
    loss: LossHandle = field(init=False)
    _others: list[ServiceClient] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.data = supervised(datums(self.training.get_tokenizer(), 2, seed=1))
        self.state = self.new_state()
        self.weights = self.training.save_weights_for_sampler(self.name()).result(60).path
        self.loss = self.service.create_custom_loss(traced, {"logprobs": 1, "weights": 1}).result(
            60
        )

    @classmethod
    def of(cls, service: ServiceClient, folder: Path) -> World:
        """Make one of each client."""
        training = service.create_lora_training_client(NAME, rank=RANK)
        url = service.holder.session.settings.base_url
        return cls(
            service,
            training,
            service.create_sampling_client(base_model=NAME),
            service.create_rest_client(),
            tinker_ray.AdminClient(base_url=url, api_key="tml-local"),
            folder,
        )

    @property
    def run_id(self) -> str:
        return self.training.model_id

    @property
    def session_id(self) -> str:
        return self.service.holder.get_session_id()

    @property
    def prompt(self) -> ModelInput:
        return self.data[0].model_input

    def another(self, project_id: str | None = None) -> ServiceClient:
        """Make one more service client, which is closed with the world."""
        self._others.append(tinker_ray.ServiceClient(base_url="embedded", project_id=project_id))
        return self._others[-1]

    def close(self) -> None:
        """Close the service clients."""
        for service in (*self._others, self.service):
            service.close()

    def name(self) -> str:
        """Return a name that no checkpoint has."""
        return f"n{next(self._numbers)}"

    def new_state(self) -> str:
        return self.training.save_state(self.name()).result(60).path

    def new_export(self) -> str:
        return self.training.save_weights_external(self.name()).result(60).path


def traced(logprobs: Any, weights: Any) -> Any:  # noqa: ANN401 - traced, not computed with
    return -(logprobs * weights).sum(), {"custom/tokens:sum": weights.sum()}


def squared(logprobs: Any) -> Any:  # noqa: ANN401
    return (logprobs * logprobs).sum(), {}


def computed(data: list[Datum], logprobs: Any) -> Any:  # noqa: ANN401 - torch's
    return -sum(row.sum() for row in logprobs), {}


Arguments: TypeAlias = tuple[Any, ...]
Make: TypeAlias = Callable[[World], Arguments]
Check: TypeAlias = Callable[[World, Any], object]


def nothing(_: World) -> Arguments:
    return ()


@dataclass(frozen=True)
class Call:
    """A call, and what must be true of its answer.

    Attributes:
        on: The class.
        name: The method; its async twin, if there is one, must answer the same.
        given: Makes the arguments anew each time.
        check: Judges the answer.
        named: Arguments by keyword.
        target: Gives the object, if it is not the world's own client.
        fails: What it must raise: this engine's keys are plain, and tell nothing of their owners.
    """

    on: str
    name: str
    given: Make
    check: Check
    named: dict[str, Any] = field(default_factory=dict)
    target: Callable[[World], Any] | None = None
    fails: type[Exception] | None = None

    def of(self, world: World) -> Any:  # noqa: ANN401 - any client
        if self.target is not None:
            return self.target(world)
        attributes = {
            "ServiceClient": world.service,
            "TrainingClient": world.training,
            "SamplingClient": world.sampler,
            "RestClient": world.rest,
            "AdminClient": world.admin,
        }
        return attributes[self.on]
