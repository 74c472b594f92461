from __future__ import annotations

import pytest

from tests.fakes.credentials import jwt_of
from tinker_ray import errors
from tinker_ray.config import Secret, Settings
from tinker_ray.core.probe import probe
from tinker_ray.transport.auth import Credentials
from tinker_ray.transport.scripted import Answer, ScriptedTransport, answer

CONFIG = "/api/v1/client/config"
TOKEN = "/api/v1/auth/token"  # noqa: S105 - a path
MODELS = "/api/v1/get_server_capabilities"
OFFERED = answer({"supported_models": [{"model_name": "tiny"}]})
REFUSED = errors.APIConnectionError("connection refused")


class Opened:
    """Opens scripted transports, and keeps what they were opened with."""

    def __init__(self, **script: Answer) -> None:
        paths = {"config": CONFIG, "token": TOKEN, "models": MODELS}
        self.script = {paths[name]: [each] for name, each in script.items()}
        self.opened: list[tuple[ScriptedTransport, Credentials]] = []

    def __call__(self, _settings: Settings, credentials: Credentials) -> ScriptedTransport:
        transport = ScriptedTransport(self.script)
        self.opened.append((transport, credentials))
        return transport

    @property
    def paths(self) -> list[str]:
        return [path for transport, _credentials in self.opened for path in transport.paths()]


def settings() -> Settings:
    return Settings(base_url="http://service", api_key=Secret("tml-a"))


async def test_models_are_told_by_a_service_that_answers() -> None:
    opened = Opened(config=answer({}), models=OFFERED)
    offered = await probe(settings(), transport=opened)
    assert ["tiny"] == [model.model_name for model in offered.supported_models]
    assert [CONFIG, MODELS] == opened.paths
    assert all(transport.closed for transport, _credentials in opened.opened)


async def test_a_service_of_the_json_era_is_asked_all_the_same() -> None:
    opened = Opened(config=answer({"detail": "no such path"}, status=404), models=OFFERED)
    assert 1 == len((await probe(settings(), transport=opened)).supported_models)


async def test_a_key_is_exchanged_where_the_service_wants_that() -> None:
    token = jwt_of(sub="u", exp=4_000_000_000, iat=0).reveal()
    opened = Opened(
        config=answer({"pjwt_auth_enabled": True}), token=answer({"jwt": token}), models=OFFERED
    )
    await probe(settings(), transport=opened)
    assert MODELS == opened.paths[-1]
    credentials = opened.opened[-1][1]
    assert Secret(token) == await credentials.current()
    await credentials.aclose()  # as a real transport does


@pytest.mark.parametrize(
    "script",
    [
        {"config": REFUSED},
        {"config": answer({}), "models": answer(status=503)},
        {"config": answer(status=500)},
        {"config": answer({}), "models": answer(status=401)},
    ],
    ids=["no answer", "503", "500", "401"],
)
async def test_what_fails_is_not_repeated(script: dict[str, Answer]) -> None:
    opened = Opened(**script)
    with pytest.raises(errors.APIError):
        await probe(settings(), transport=opened)
    assert len(script) == len(opened.paths)
    assert all(transport.closed for transport, _credentials in opened.opened)
