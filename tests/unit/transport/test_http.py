from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import httpx
import pytest

from tinker_ray.config import Secret, Settings
from tinker_ray.errors import (
    APIConnectionError,
    APITimeoutError,
    ConfigurationError,
    StaleHandleError,
)
from tinker_ray.transport.http import HttpTransport
from tinker_ray.transport.message import Request, Response
from tinker_ray.wire import codec, endpoint

KEY = "tml-very-secret-key"
CLOUDFLARE_SECRET = "cf-very-secret"  # noqa: S105 - made up
BASE_URL = "http://service/base"

Handler = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def transport_over(handler: Handler, base_url: str = BASE_URL) -> HttpTransport:
    return HttpTransport(
        base_url,
        Secret(KEY),
        cloudflare=("cf-id", Secret(CLOUDFLARE_SECRET)),
        make_client=lambda: httpx.AsyncClient(
            transport=httpx.MockTransport(handler), follow_redirects=True
        ),
    )


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[HttpTransport]:
    transport = transport_over(handler)
    try:
        yield transport
    finally:
        await transport.aclose()


class Recorder:
    """Answers every request alike and keeps it."""

    def __init__(self, answer: httpx.Response | Exception | None = None) -> None:
        self.answer = httpx.Response(200, json={}) if answer is None else answer
        self.requests: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def call(item: endpoint.Endpoint = endpoint.OPTIM_STEP, content: bytes = b"{}") -> Request:
    return Request(item, item.path, content=content)


async def sent(request: Request, headers: dict[str, str] | None = None) -> httpx.Request:
    recorder = Recorder()
    async with serving(recorder) as transport:
        await transport.attempt(request, headers or {})
    return recorder.requests[0]


async def test_a_request_carries_the_key_and_who_sends_it() -> None:
    request = await sent(call(), {"x-stainless-retry-count": "2", "X-Idempotency-Key": "k"})
    headers = request.headers
    assert KEY == headers["x-api-key"]
    assert ("cf-id", CLOUDFLARE_SECRET) == (
        headers["cf-access-client-id"],
        headers["cf-access-client-secret"],
    )
    assert headers["user-agent"].startswith("tinker-ray/Python ")
    assert ("2", "k", "60") == (
        headers["x-stainless-retry-count"],
        headers["x-idempotency-key"],
        headers["x-stainless-read-timeout"],
    )


async def test_the_base_path_stays_a_prefix() -> None:
    assert "http://service/base/api/v1/optim_step" == str((await sent(call())).url)


async def test_a_slash_at_the_end_of_the_base_changes_nothing() -> None:
    recorder = Recorder()
    transport = transport_over(recorder, f"{BASE_URL}/")
    await transport.attempt(call(), {})
    await transport.aclose()
    assert "http://service/base/api/v1/optim_step" == str(recorder.requests[0].url)


async def test_everything_but_a_get_has_a_content_type_even_without_content() -> None:
    assert codec.JSON == (await sent(call(endpoint.FINISH_SESSION, b""))).headers["content-type"]
    path = endpoint.LIST_TRAINING_RUNS.path
    request = await sent(Request(endpoint.LIST_TRAINING_RUNS, path, query={"limit": 20}))
    assert "content-type" not in request.headers
    assert b"limit=20" == request.url.query


async def test_content_and_its_type_are_sent_as_given() -> None:
    request = await sent(
        Request(
            endpoint.FORWARD_BACKWARD,
            endpoint.FORWARD_BACKWARD.path,
            content=b"\x00\xff",
            content_type=codec.PROTOBUF,
            accept=codec.PROTOBUF,
            headers={"X-Extra": "1"},
        )
    )
    assert b"\x00\xff" == request.content
    assert (codec.PROTOBUF, codec.PROTOBUF, "1") == (
        request.headers["content-type"],
        request.headers["accept"],
        request.headers["x-extra"],
    )


@pytest.mark.parametrize("status", [200, 204, 404, 429, 503])
async def test_any_answer_is_given_back_whatever_its_status(status: int) -> None:
    answer = httpx.Response(status, headers={"Retry-After": "3"}, content=b'{"a":1}')
    async with serving(Recorder(answer)) as transport:
        response = await transport.attempt(call(), {})
    assert (status, "3", b'{"a":1}') == (
        response.status,
        response.headers["retry-after"],
        response.content,
    )


@pytest.mark.parametrize(
    "raised,error",
    [
        (httpx.ReadTimeout("slow"), APITimeoutError),
        (httpx.ConnectTimeout("slow"), APITimeoutError),
        (httpx.PoolTimeout("slow"), APITimeoutError),
        (httpx.ConnectError("refused"), APIConnectionError),
        (httpx.ReadError("reset"), APIConnectionError),
        (httpx.RemoteProtocolError("garbage"), APIConnectionError),
        (httpx.TooManyRedirects("loop"), APIConnectionError),
    ],
)
async def test_no_answer_is_a_connection_error_without_httpx_in_it(
    raised: Exception, error: type[APIConnectionError]
) -> None:
    async with serving(Recorder(raised)) as transport:
        with pytest.raises(APIConnectionError) as caught:
            await transport.attempt(call(), {})
    assert type(caught.value) is error
    assert caught.value.__cause__ is None
    assert "/api/v1/optim_step" in str(caught.value)


async def test_the_key_is_in_no_repr_and_no_error() -> None:
    async with serving(Recorder(httpx.ConnectError("refused"))) as transport:
        with pytest.raises(APIConnectionError) as caught:
            await transport.attempt(call(), {})
        shown = f"{transport!r}{caught.value!r}{caught.value}{call()!r}{vars(caught.value)}"
    for secret in (KEY, CLOUDFLARE_SECRET):
        assert secret not in shown


@pytest.mark.parametrize("key", ["tml-a\n", " tml-a", "tml-\u00e9", "tml-\x00a"])
def test_a_key_that_no_header_may_have_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HttpTransport(BASE_URL, Secret(key))
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "", "http://", "http://h:x"])
def test_an_address_that_cannot_work_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        HttpTransport(url, Secret(KEY))


async def test_a_path_that_cannot_be_sent_is_refused() -> None:
    async with serving(Recorder()) as transport:
        with pytest.raises(ConfigurationError, match="cannot be a path"):
            await transport.attempt(Request(endpoint.GET_TRAINING_RUN, "/api/v1/a\nb"), {})


def test_settings_without_a_key_make_no_transport() -> None:
    with pytest.raises(ConfigurationError, match="TINKER_API_KEY"):
        HttpTransport.from_settings(Settings())


@pytest.mark.parametrize(
    "target,withheld",
    [("http://service/elsewhere", False), ("http://storage/x", True), ("https://service/x", True)],
)
async def test_a_redirect_takes_the_key_nowhere_else(target: str, withheld: bool) -> None:  # noqa: FBT001
    requests: list[httpx.Request] = []

    async def redirect(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if str(request.url) == target:
            return httpx.Response(200, json={})
        return httpx.Response(302, headers={"Location": target})

    async with serving(redirect) as transport:
        response = await transport.attempt(Request(endpoint.LIST_SESSIONS, "/api/v1/sessions"), {})
    assert (200, KEY) == (response.status, requests[0].headers["x-api-key"])
    for name in ("x-api-key", "cf-access-client-id", "cf-access-client-secret"):
        assert withheld is (name not in requests[1].headers)


# --- pools --------------------------------------------------------------------------------------


class Crowd:
    """Holds samples and the like until the test lets them go; other requests pass at once."""

    def __init__(self, size: int, path: str) -> None:
        self.complete = asyncio.Event()
        self.released = asyncio.Event()
        self._missing = size
        self._path = path

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(self._path):
            self._missing -= 1
            if self._missing == 0:
                self.complete.set()
            await self.released.wait()
        return httpx.Response(200, json={})


@pytest.mark.parametrize(
    "item,num_requests,expected",
    [
        (endpoint.ASAMPLE, 50, [50]),
        (endpoint.ASAMPLE, 51, [50, 1]),
        (endpoint.RETRIEVE_FUTURE, 101, [50, 50, 1]),
        (endpoint.OPTIM_STEP, 3, [1, 1, 1]),
    ],
)
async def test_a_client_carries_as_many_requests_as_its_pool_allows(
    item: endpoint.Endpoint, num_requests: int, expected: list[int]
) -> None:
    crowd = Crowd(num_requests, item.path)
    async with serving(crowd) as transport:
        attempts = [
            asyncio.create_task(transport.attempt(call(item), {})) for _ in range(num_requests)
        ]
        await crowd.complete.wait()
        assert f"{{'{item.traffic}': {expected}}}" in repr(transport)
        await transport.attempt(call(endpoint.CREATE_SESSION), {})
        crowd.released.set()
        await asyncio.gather(*attempts)
        assert f"'{item.traffic}': {[0] * len(expected)}" in repr(transport)


async def test_a_client_that_is_free_again_is_used_again() -> None:
    async with serving(Recorder()) as transport:
        for _ in range(3):
            await transport.attempt(call(), {})
        assert "{'train': [0]}" in repr(transport)


async def test_a_failed_or_cancelled_request_frees_its_client() -> None:
    crowd = Crowd(1, endpoint.OPTIM_STEP.path)
    async with serving(crowd) as transport:
        attempt = asyncio.create_task(transport.attempt(call(), {}))
        await crowd.complete.wait()
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        assert "{'train': [0]}" in repr(transport)
    async with serving(Recorder(httpx.ConnectError("refused"))) as transport:
        with pytest.raises(APIConnectionError):
            await transport.attempt(call(), {})
        assert "{'train': [0]}" in repr(transport)


@pytest.mark.parametrize(
    "item,timeout_s,expected_s",
    [
        (endpoint.OPTIM_STEP, None, 60.0),
        (endpoint.SESSION_HEARTBEAT, None, 10.0),
        (endpoint.RETRIEVE_FUTURE, None, 45.0),
        (endpoint.OPTIM_STEP, 2.5, 2.5),
    ],
)
async def test_each_endpoint_has_its_timeout(
    item: endpoint.Endpoint, timeout_s: float | None, expected_s: float
) -> None:
    request = await sent(Request(item, item.path, timeout_s=timeout_s))
    assert {
        "connect": 5.0,
        "read": expected_s,
        "write": expected_s,
        "pool": expected_s,
    } == request.extensions["timeout"]


async def test_a_closed_transport_refuses_for_good() -> None:
    transport = transport_over(Recorder())
    await transport.attempt(call(), {})
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(StaleHandleError, match="closed"):
        await transport.attempt(call(), {})


def test_content_is_in_no_repr() -> None:
    assert "secret prompt" not in repr(call(content=b"secret prompt"))
    assert "secret answer" not in repr(Response(200, {}, b"secret answer"))
