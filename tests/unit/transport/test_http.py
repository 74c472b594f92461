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


# --- options --------------------------------------------------------------------------------------


async def test_default_headers_and_query_go_with_every_request_but_never_replace_the_key() -> None:
    recorder = Recorder()
    transport = HttpTransport(
        BASE_URL,
        Secret(KEY),
        default_headers={"user-agent": "mine", "X-Extra": "1", "x-api-key": "not this"},
        default_query={"tenant": "a", "limit": "7"},
        make_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(recorder)),
    )
    item = endpoint.LIST_SESSIONS
    await transport.attempt(Request(item, item.path, query={"limit": 5}), {"x-extra": "2"})
    await transport.aclose()
    (request,) = recorder.requests
    assert ("mine", "2", KEY) == tuple(
        request.headers[name] for name in ("user-agent", "x-extra", "x-api-key")
    )
    assert {"tenant": "a", "limit": "5"} == dict(request.url.params)


async def test_default_headers_go_to_the_service_only() -> None:
    requests: list[httpx.Request] = []

    async def redirect(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.host == "storage":
            return httpx.Response(200, json={})
        return httpx.Response(302, headers={"Location": "http://storage/x"})

    transport = HttpTransport(
        BASE_URL,
        Secret(KEY),
        default_headers={"Authorization": "very-secret"},
        make_client=lambda: httpx.AsyncClient(
            transport=httpx.MockTransport(redirect), follow_redirects=True
        ),
    )
    await transport.attempt(Request(endpoint.GET_AUDIT_LOG, endpoint.GET_AUDIT_LOG.path), {})
    await transport.aclose()
    assert ["very-secret", None] == [item.headers.get("authorization") for item in requests]
    assert "very-secret" not in repr(transport)


def test_a_default_header_that_no_request_may_have_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match="X-Extra") as caught:
        HttpTransport(BASE_URL, Secret(KEY), default_headers={"X-Extra": "very\nsecret"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "item,expected_s", [(endpoint.OPTIM_STEP, 5.0), (endpoint.SESSION_HEARTBEAT, 10.0)]
)
async def test_a_timeout_of_the_clients_own_replaces_the_default_only(
    item: endpoint.Endpoint, expected_s: float
) -> None:
    recorder = Recorder()
    transport = HttpTransport(
        BASE_URL,
        Secret(KEY),
        timeout_s=5.0,
        make_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(recorder)),
    )
    await transport.attempt(call(item), {})
    await transport.aclose()
    assert expected_s == recorder.requests[0].extensions["timeout"]["read"]


async def test_settings_become_a_transport() -> None:
    settings = Settings(
        api_key=Secret("sk-any"),
        base_url="http://service",
        default_headers={"X-Extra": "1"},
        default_query={"tenant": "a"},
        timeout_s=5.0,
    )
    transport = HttpTransport.from_settings(settings)
    assert Secret("sk-any") == await transport.credentials.current()
    assert ({"x-extra": "1"}, {"tenant": "a"}, 5.0) == (
        transport._private,
        transport._query,
        transport._timeout_s,
    )
    await transport.aclose()


async def test_an_address_that_is_the_answer_is_not_followed() -> None:
    item = endpoint.GET_CHECKPOINT_ARCHIVE
    async with serving(
        Recorder(httpx.Response(302, headers={"Location": "http://x"}))
    ) as transport:
        response = await transport.attempt(Request(item, "/api/v1/archive"), {})
    assert (302, "http://x") == (response.status, response.headers["location"])


# --- credentials ----------------------------------------------------------------------------------


class Tokens:
    """Credentials that are replaced as often as there are others."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = [Secret(token) for token in tokens]
        self.rejected: list[Secret] = []
        self.closed = False

    async def current(self) -> Secret:
        return self._tokens[0]

    async def replacement(self, rejected: Secret) -> Secret | None:
        self.rejected.append(rejected)
        if len(self._tokens) == 1:
            return None
        self._tokens.pop(0)
        return self._tokens[0]

    async def identity(self) -> Secret | None:
        return None

    async def aclose(self) -> None:
        self.closed = True


INVALID = {"WWW-Authenticate": 'Bearer realm="x", error="invalid_token"'}


class Guard:
    """Lets in who has one of the given tokens, and says why it rejects the others."""

    def __init__(self, *accepted: str, why: dict[str, str] | None = None) -> None:
        self.accepted = set(accepted)
        self.why = INVALID if why is None else why
        self.seen: list[str] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request.headers["x-api-key"])
        if self.seen[-1] in self.accepted:
            return httpx.Response(200, json={})
        return httpx.Response(401, headers=self.why, json={"detail": "no"})


async def status_with(tokens: Tokens, guard: Guard) -> int:
    transport = HttpTransport(
        BASE_URL,
        tokens,
        make_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(guard)),
    )
    try:
        return (await transport.attempt(call(), {})).status
    finally:
        await transport.aclose()
        assert tokens.closed


async def test_a_rejected_token_is_replaced_once() -> None:
    guard = Guard("b")
    assert 200 == await status_with(Tokens("a", "b"), guard)
    assert ["a", "b"] == guard.seen
    guard = Guard("c")
    assert 401 == await status_with(Tokens("a", "b", "c"), guard)
    assert ["a", "b"] == guard.seen


async def test_a_key_that_has_no_other_is_rejected_at_once() -> None:
    guard = Guard()
    assert 401 == await status_with(Tokens("a"), guard)
    assert ["a"] == guard.seen


@pytest.mark.parametrize("why", [{}, {"WWW-Authenticate": "Bearer"}])
async def test_somebody_who_may_not_is_not_asked_for_another_token(why: dict[str, str]) -> None:
    tokens, guard = Tokens("a", "b"), Guard("b", why=why)
    assert 401 == await status_with(tokens, guard)
    assert ([], ["a"]) == (tokens.rejected, guard.seen)


# --- what proxies and the service add -------------------------------------------------------------


def rejection() -> httpx.Response:
    return httpx.Response(400, headers={"content-length": "0"})


async def test_an_empty_400_is_a_lost_connection_sixteen_times() -> None:
    recorder = Recorder(rejection())
    async with serving(recorder) as transport:
        for _ in range(16):
            with pytest.raises(APIConnectionError, match="proxy"):
                await transport.attempt(call(), {})
        assert 400 == (await transport.attempt(call(), {})).status
        with pytest.raises(APIConnectionError):  # each traffic class has patience of its own
            await transport.attempt(call(endpoint.ASAMPLE), {})


async def test_a_success_gives_some_of_that_patience_back() -> None:
    recorder = Recorder(rejection())
    async with serving(recorder) as transport:
        for _ in range(16):
            with pytest.raises(APIConnectionError):
                await transport.attempt(call(), {})
        recorder.answer = httpx.Response(200, json={})
        await transport.attempt(call(), {})
        recorder.answer = rejection()
        with pytest.raises(APIConnectionError):
            await transport.attempt(call(), {})
        assert 400 == (await transport.attempt(call(), {})).status


async def test_a_rejected_connection_is_replaced_and_closed_in_the_end() -> None:
    clients: list[httpx.AsyncClient] = []
    recorder = Recorder(rejection())

    def make_client() -> httpx.AsyncClient:
        clients.append(httpx.AsyncClient(transport=httpx.MockTransport(recorder)))
        return clients[-1]

    transport = HttpTransport(BASE_URL, Secret(KEY), make_client=make_client)
    for _ in range(2):
        with pytest.raises(APIConnectionError):
            await transport.attempt(call(), {})
    await transport.aclose()
    assert [True, True] == [client.is_closed for client in clients]


async def test_a_400_with_a_reason_is_the_services() -> None:
    async with serving(Recorder(httpx.Response(400, json={"detail": "bad"}))) as transport:
        assert 400 == (await transport.attempt(call(), {})).status


async def test_each_deprecation_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    notes = [
        {"x-deprecation-note": "old path"},
        {"x-deprecation-note": "old path"},
        {"x-deprecation-note": "old sdk", "x-deprecation-level": " Error "},
        {},
    ]

    async def noting(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=notes.pop(0), json={})

    async with serving(noting) as transport:
        for _ in range(4):
            await transport.attempt(call(), {})
    assert [
        ("WARNING", "the service says: old path"),
        ("ERROR", "the service says: old sdk"),
    ] == [(record.levelname, record.getMessage()) for record in caplog.records]


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url,own", [("http://service/other/x?sig=1", True), ("http://storage/x?sig=1", False)]
)
async def test_content_arrives_piece_by_piece_and_only_the_service_is_told_who_asks(
    url: str,
    own: bool,  # noqa: FBT001
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    recorder = Recorder(httpx.Response(206, headers={"ETag": "a"}, content=pieces()))
    async with (
        serving(recorder) as transport,
        transport.stream(url, {"Range": "bytes=1-"}) as found,
    ):
        content = b"".join([chunk async for chunk in found.chunks])
    assert (206, "a", b"abc") == (found.status, found.headers["etag"], content)
    (request,) = recorder.requests
    assert (url, "bytes=1-") == (str(request.url), request.headers["range"])
    for name in ("x-api-key", "cf-access-client-secret"):
        assert own is (name in request.headers)


async def test_a_stream_that_fails_does_not_show_its_signature() -> None:
    async with serving(Recorder(httpx.ReadError("reset"))) as transport:
        with pytest.raises(APIConnectionError) as caught:
            async with transport.stream("http://storage/x?sig=very-secret", {}):
                pass
        with pytest.raises(ConfigurationError):
            async with transport.stream("nonsense", {}):
                pass
    assert "very-secret" not in str(caught.value)
    with pytest.raises(StaleHandleError):
        async with transport.stream("http://storage/x", {}):
            pass


@pytest.mark.parametrize("status", [307, 308])
async def test_content_is_redirected_to_nobody_else(status: int) -> None:
    requests: list[httpx.Request] = []

    async def redirect(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, headers={"Location": "https://service/base/x"})

    async with serving(redirect) as transport:
        with pytest.raises(ConfigurationError, match="redirects to https://service"):
            await transport.attempt(call(content=b"prompt"), {})
    assert 1 == len(requests)


async def test_an_access_token_is_redirected_to_nobody_else() -> None:
    requests: list[httpx.Request] = []

    async def redirect(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.host == "storage":
            return httpx.Response(200, json={})
        return httpx.Response(302, headers={"Location": "http://storage/x"})

    item = endpoint.GET_AUDIT_LOG
    async with serving(redirect) as transport:
        headers = {"X-Tinker-Weights-Access-Token": "very-secret"}
        await transport.attempt(Request(item, item.path, headers=headers), {})
    assert [True, False] == ["very-secret" in item.headers.values() for item in requests]


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
