import inspect
import pickle
from collections.abc import Iterator

import pytest

from tinker_ray import errors

SAMPLES: dict[str, object] = {
    "actor": "sampler-3",
    "body": {"detail": ["a", 1]},
    "category": "user",
    "checkpoint": "tinker://run/weights/step-2",
    "detail": "the environment raised",
    "failures": 40,
    "field": "data[3].model_input",
    "headers": {"Retry-After": "1"},
    "fix": "what to do about it",
    "kind": "environment",
    "message": "what went wrong",
    "request": object(),
    "request_id": "promise-7",
    "response": object(),
    "retry_after_s": 1.5,
    "stage": "step",
    "status_code": 418,
}


def tree(root: type[errors.TinkerError]) -> Iterator[type[errors.TinkerError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def build(cls: type[errors.TinkerError]) -> errors.TinkerError:
    """Make an error of a class with a value for every parameter that it declares."""
    if not inspect.isfunction(cls.__init__):
        return cls("what went wrong")
    positional, keywords = [], {}
    for name, parameter in list(inspect.signature(cls).parameters.items()):
        if parameter.kind == parameter.KEYWORD_ONLY:
            keywords[name] = SAMPLES[name]
        else:
            positional.append(SAMPLES[name])
    return cls(*positional, **keywords)


@pytest.mark.parametrize(
    "cls", [pytest.param(cls, id=cls.__name__) for cls in tree(errors.TinkerError)]
)
def test_an_error_survives_pickling_with_its_attributes_and_cause(
    cls: type[errors.TinkerError],
) -> None:
    error = build(cls)
    error.__cause__ = errors.EngineError("below", category="user")

    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(back) is cls
    assert (str(error), error.args, vars(error)) == (str(back), back.args, vars(back))
    assert vars(error.__cause__) == vars(back.__cause__)


def test_every_exception_of_the_module_belongs_to_the_tree() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }
    others = {cls for cls in defined if not issubclass(cls, errors.TinkerError)}
    assert {errors.ExperimentalWarning} == others
