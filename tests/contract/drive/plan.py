"""The steps of the drive: functions that use a client of the API and assert what it gives.

Knows no client: the module under the name ``tinker`` is whatever the caller imported, the upstream
SDK of either generation or this package under that name.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

BASE_MODEL = "tinker-ray/tiny-adder"
OLD, NEW = "0.6", "0.38"
"""The generations of the API."""

Work: TypeAlias = Callable[["Drive"], None]


@dataclass
class Drive:
    """What the steps share.

    Attributes:
        tinker: The module.
        generations: Those whose calls the module understands.
        base_url: The service.
        service: A client of it.
        training: A model that the training steps train.
        tokenizer: Of the base model.
        kept: What later steps need of earlier ones.
    """

    tinker: Any
    generations: frozenset[str]
    base_url: str
    service: Any = None
    training: Any = None
    tokenizer: Any = None
    kept: dict[str, Any] = field(default_factory=dict)

    def datum(self, text: str, answer: str, **inputs: Any) -> Any:  # noqa: ANN401 - upstream's
        """Make a datum whose targets are the tokens that follow; the answer alone has weight."""
        prompt, whole = self.tokenizer.encode(text), self.tokenizer.encode(text + answer)
        targets = whole[1:]
        weights = [float(position >= len(prompt) - 1) for position in range(len(targets))]
        return self.tinker.Datum(
            model_input=self.tinker.ModelInput.from_ints(whole[:-1]),
            loss_fn_inputs={
                "target_tokens": self.ints(targets),
                **({"weights": self.floats(weights)} if not inputs else {}),
                **{name: self.floats(value) for name, value in inputs.items()},
            },
        )

    def sums(self, first: int, count: int) -> list[Any]:
        """Make data of additions that are right."""
        pairs = ((first + index, 2 * index % 40) for index in range(count))
        return [self.datum(f"{a}+{b}=", str(a + b)) for a, b in pairs]

    def ints(self, values: Any) -> Any:  # noqa: ANN401
        """Make an int64 tensor."""
        return self.tinker.TensorData(data=list(values), dtype="int64", shape=[len(values)])

    def floats(self, values: Any) -> Any:  # noqa: ANN401
        """Make a float32 tensor."""
        return self.tinker.TensorData(data=list(values), dtype="float32", shape=[len(values)])

    def prompt(self, text: str) -> Any:  # noqa: ANN401
        """Make a prompt."""
        return self.tinker.ModelInput.from_ints(self.tokenizer.encode(text))

    def model(self, **options: Any) -> Any:  # noqa: ANN401
        """Make a small model of its own for a step."""
        options = {"rank": 4, "seed": 7, **options}
        return ready(self.service.create_lora_training_client(BASE_MODEL, **options))


def ready(client: Any) -> Any:  # noqa: ANN401
    """Wait for a client: one generation returns a future of it."""
    return client.result() if hasattr(client, "result") else client


def refused(work: Callable[[], Any], *words: str) -> BaseException:
    """Expect an error that says all the words; return it."""
    try:
        outcome = work()
    except Exception as error:  # noqa: BLE001 - which class is the caller's to look at
        raised = error
    else:
        message = f"no error but {outcome!r}"
        raise AssertionError(message)
    said = f"{type(raised).__name__}: {raised}"
    assert [word for word in words if word.lower() not in said.lower()] == [], said
    return raised


STEPS: list[tuple[str, frozenset[str], Work]] = []


def step(*generations: str) -> Callable[[Work], Work]:
    """Add a function to the drive, for some generations or for all."""

    def add(work: Work) -> Work:
        STEPS.append((work.__name__, frozenset(generations or (OLD, NEW)), work))
        return work

    return add


def run(drive: Drive) -> dict[str, str]:
    """Run the steps in order; return what became of each: ``passed`` or the traceback."""
    outcomes: dict[str, str] = {}
    for name, generations, work in STEPS:
        if generations & drive.generations:
            try:
                work(drive)
            except Exception:  # noqa: BLE001 - reported as the outcome
                outcomes[name] = traceback.format_exc()
            else:
                outcomes[name] = "passed"
    return outcomes
