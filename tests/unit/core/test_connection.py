from __future__ import annotations

import pytest

from tests.fakes.credentials import jwt_of
from tinker_ray import errors
from tinker_ray.config import Secret, Settings
from tinker_ray.core.connection import connect, open_link
from tinker_ray.core.flags import JSON_ONLY, DynamicFlags, ServerFlags
from tinker_ray.transport.auth import ApiKey, CommandCredential, Credentials
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.jwt import ExchangedToken
from tinker_ray.transport.scripted import Answer, ScriptedTransport, answer

V1 = "/api/v1/"
TOKEN = jwt_of(sub="tml:user:1", org_id="o", iat=0, exp=4e9)
KEY = Settings(api_key=Secret("tml-key"))


class Service:
    """Opens scripted transports, and remembers by what they are authenticated."""

    def __init__(self, **script: Answer) -> None:
        script.setdefault("client__dynamic_config", answer({"refresh_interval_sec": 77}))
        self._script = {V1 + name.replace("__", "/"): item for name, item in script.items()}
        self.opened: list[tuple[ScriptedTransport, Credentials]] = []

    def __call__(self, settings: Settings, credentials: Credentials) -> ScriptedTransport:  # noqa: ARG002
        transport = ScriptedTransport({path: [item] for path, item in self._script.items()})
        self.opened.append((transport, credentials))
        return transport

    @property
    def paths(self) -> list[list[str]]:
        return [[path.removeprefix(V1) for path in item.paths()] for item, _ in self.opened]


async def test_a_service_that_takes_keys_gets_the_key() -> None:
    service = Service(client__config=answer({"sample_no_retries": True}))
    link = await connect(KEY, clock=VirtualClock(), transport=service)
    assert [["client/config", "client/dynamic_config"]] == service.paths
    assert ServerFlags(sample_no_retries=True, dynamic=DynamicFlags(77)) == link.flags
    assert isinstance(link.credentials, ApiKey)
    assert service.opened[0][1] is link.credentials
    await link.aclose()


async def test_a_service_that_wants_tokens_is_asked_for_one() -> None:
    service = Service(
        client__config=answer({"pjwt_auth_enabled": True}),
        auth__token=answer({"jwt": TOKEN.reveal()}),
    )
    link = await connect(KEY, clock=VirtualClock(), transport=service)
    assert [["client/config"], [], ["client/dynamic_config"]] == service.paths
    first, exchange, last = service.opened
    assert (True, False, False) == (first[0].closed, exchange[0].closed, last[0].closed)
    assert (ApiKey, ApiKey, ExchangedToken) == (type(first[1]), type(exchange[1]), type(last[1]))
    assert link.credentials is last[1]
    assert TOKEN == await last[1].current()
    assert ["auth/token"] == service.paths[1]
    await last[1].aclose()
    assert exchange[0].closed


async def test_a_service_that_insists_on_commands_gets_what_one_prints_exchanged() -> None:
    flags = {"pjwt_auth_enabled": True, "credential_default_source": "credential_cmd"}
    service = Service(client__config=answer(flags))
    settings = Settings(api_key=Secret("tml-key"), credential_cmd=Secret("echo tml-printed"))
    link = await connect(settings, clock=VirtualClock(), transport=service)
    assert isinstance(service.opened[1][1], CommandCredential)
    await link.aclose()
    with pytest.raises(errors.ConfigurationError, match="TINKER_CREDENTIAL_CMD"):
        await connect(KEY, clock=VirtualClock(), transport=Service(client__config=answer(flags)))


async def test_an_old_service_is_asked_one_question() -> None:
    service = Service(client__config=answer(status=404))
    link = await connect(KEY, clock=VirtualClock(), transport=service)
    assert ([["client/config"]], JSON_ONLY) == (service.paths, link.flags)


@pytest.mark.parametrize("question", ["client__config", "client__dynamic_config"])
async def test_a_refusal_closes_what_was_opened(question: str) -> None:
    script = {"client__config": answer({}), question: answer(status=401)}
    service = Service(**script)
    with pytest.raises(errors.AuthenticationError):
        await connect(KEY, clock=VirtualClock(), transport=service)
    assert all(transport.closed for transport, _ in service.opened)


async def test_another_process_opens_its_own_connections_without_asking() -> None:
    service = Service()
    flags = ServerFlags(billing_pause_s=7, response_bytes=11)
    settings = Settings(api_key=Secret("tml-key"), max_retries=3)
    link = open_link(settings, flags, clock=VirtualClock(), transport=service)
    assert ([[]], flags) == (service.paths, link.flags)
    assert (3, 7) == (link.patience.max_retries, link.patience.billing.longest_s)
    await link.aclose()


async def test_what_the_service_wants_counts_from_then_on() -> None:
    service = Service(client__config=answer({"billing_exception_max_pause_duration_sec": 9}))
    link = await connect(KEY, clock=VirtualClock(), transport=service)
    assert 9 == link.patience.billing.longest_s
    await link.aclose()
