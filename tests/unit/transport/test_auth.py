from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from tests.fakes.credentials import jwt_of
from tinker_ray.config import DEFAULT_BASE_URL, Secret, Settings
from tinker_ray.errors import ConfigurationError
from tinker_ray.transport.auth import ApiKey, CommandCredential, resolve

OTHER = "http://other.example"
TOKEN = jwt_of(exp=2e9, iss="passport-1")


class Wall:
    """Unix time, as the test sets it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# --- which one ------------------------------------------------------------------------------------

KEY, COMMAND = Secret("tml-key"), Secret("echo tml-printed")


@pytest.mark.parametrize(
    "key,command,base_url,command_only,expected",
    [
        (KEY, None, DEFAULT_BASE_URL, False, ApiKey),
        (KEY, COMMAND, DEFAULT_BASE_URL, False, ApiKey),
        (None, COMMAND, DEFAULT_BASE_URL, False, CommandCredential),
        (KEY, COMMAND, DEFAULT_BASE_URL, True, CommandCredential),
        (TOKEN, COMMAND, DEFAULT_BASE_URL, True, ApiKey),
        (TOKEN, None, DEFAULT_BASE_URL, True, ApiKey),
        (Secret("sk-other"), COMMAND, DEFAULT_BASE_URL, False, CommandCredential),
        (Secret("sk-other"), None, OTHER, False, ApiKey),
        (Secret("sk-other"), COMMAND, OTHER, False, ApiKey),
    ],
)
def test_a_credential_is_chosen_in_the_order_of_its_sources(
    key: Secret | None,
    command: Secret | None,
    base_url: str,
    command_only: bool,  # noqa: FBT001
    expected: type,
) -> None:
    settings = Settings(api_key=key, credential_cmd=command, base_url=base_url)
    assert type(resolve(settings, command_only=command_only)) is expected


@pytest.mark.parametrize(
    "settings,command_only,words",
    [
        (Settings(), False, "no API key"),
        (Settings(base_url=OTHER), False, "no API key"),
        (Settings(api_key=KEY), True, "TINKER_CREDENTIAL_CMD"),
        (Settings(api_key=Secret("sk-very-secret")), False, "begins with 'tml-'"),
    ],
)
def test_no_credential_that_could_work_is_an_error_that_says_what_to_do(
    settings: Settings,
    command_only: bool,  # noqa: FBT001
    words: str,
) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        resolve(settings, command_only=command_only)
    assert "very-secret" not in str(caught.value)


# --- keys -----------------------------------------------------------------------------------------


async def test_a_key_is_always_the_same_and_shows_itself_nowhere() -> None:
    key = ApiKey(Secret("tml-very-secret"))
    assert Secret("tml-very-secret") == await key.current()
    assert await key.replacement(Secret("tml-very-secret")) is None
    assert await key.identity() is None
    assert "very-secret" not in repr(key)
    await key.aclose()


async def test_a_jwt_in_place_of_a_key_is_refused_once_it_has_expired() -> None:
    wall = Wall()
    key = ApiKey(jwt_of(exp=1001.0), wall=wall)
    await key.current()
    wall.now = 1001.0
    with pytest.raises(ConfigurationError, match="expired"):
        await key.current()


@pytest.mark.parametrize(
    "token,known",
    [
        (TOKEN, True),
        (jwt_of(exp=2e9, iss="somebody"), False),
        (jwt_of(exp=2e9), False),
        (Secret("eyJnonsense"), False),
    ],
)
async def test_only_a_token_of_the_service_says_who_this_is(token: Secret, known: bool) -> None:  # noqa: FBT001
    assert (token if known else None) == await ApiKey(token).identity()


@pytest.mark.parametrize("key", ["eyJ", "eyJnonsense", "eyJh.!!!.x", "eyJh.W10.x"])
async def test_a_broken_jwt_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await ApiKey(Secret(key)).current()
    assert key not in str(caught.value)


# --- commands -------------------------------------------------------------------------------------


def counting(folder: Path, output: str = "tml-$(wc -l < runs)") -> Secret:
    """A command that notes each of its runs in a file, and prints how many there were."""
    return Secret(f"cd {folder} && echo run >> runs && echo {output}")


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


async def test_a_command_is_run_each_time_but_once_for_all_who_wait(tmp_path: Path) -> None:
    command = CommandCredential(counting(tmp_path))
    first = await asyncio.gather(*(command.current() for _ in range(5)))
    assert {"tml-1"} == {item.reveal().replace(" ", "") for item in first}
    assert "tml-2" == (await command.current()).reveal().replace(" ", "")
    assert 2 == runs(tmp_path)
    await command.aclose()


async def test_what_it_printed_is_used_again_for_a_while(tmp_path: Path) -> None:
    wall = Wall()
    command = CommandCredential(counting(tmp_path), reuse_s=300, wall=wall)
    await command.current()
    wall.now += 299
    await command.current()
    assert 1 == runs(tmp_path)
    wall.now += 2
    await command.current()
    assert 2 == runs(tmp_path)


async def test_a_printed_token_is_used_until_a_minute_before_its_end(tmp_path: Path) -> None:
    wall = Wall()
    token = jwt_of(exp=2000.0).reveal()
    command = CommandCredential(counting(tmp_path, token), reuse_s=300, wall=wall)
    await command.current()
    wall.now = 1939.0
    await command.current()
    assert 1 == runs(tmp_path)
    wall.now = 1941.0
    await command.current()
    assert 2 == runs(tmp_path)


async def test_a_rejected_credential_is_printed_anew(tmp_path: Path) -> None:
    command = CommandCredential(counting(tmp_path), reuse_s=300, wall=Wall())
    rejected = await command.current()
    other = await command.replacement(rejected)
    assert other not in {None, rejected}
    assert other == await command.current()
    fixed = CommandCredential(Secret("echo tml-same"), reuse_s=300, wall=Wall())
    assert await fixed.replacement(await fixed.current()) is None
    assert await fixed.identity() is None


@pytest.mark.parametrize(
    "text,words",
    [
        ("exit 3", "exit code was 3"),
        ("echo", "printed nothing"),
        ("echo very-secret >&2", "printed nothing"),
        ("no-such-command-at-all", "exit code was 127"),
        ("printf 'very-secret\\nline two'", "characters that no header may have"),
        (f"echo {jwt_of(exp=1.0).reveal()}", "expired"),
    ],
)
async def test_a_command_that_gives_no_credential_is_an_error_that_shows_nothing(
    text: str, words: str
) -> None:
    command = CommandCredential(Secret(text))
    with pytest.raises(ConfigurationError, match=words) as caught:
        await command.current()
    assert "very-secret" not in f"{caught.value}{command!r}"


def is_running(pid_file: Path) -> bool:
    try:
        return psutil.Process(int(pid_file.read_text())).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def started(pid_file: Path) -> None:
    """Wait for a command that notes the process that it has started; the timeout is the test's."""
    while not pid_file.exists() or not pid_file.read_text().strip():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.001)


async def test_a_command_that_runs_when_nobody_waits_any_more_is_ended_with_what_it_started(
    tmp_path: Path,
) -> None:
    pid_file = tmp_path / "pid"
    command = CommandCredential(Secret(f"sleep 60 & echo $! > {pid_file}; wait"))
    waiting = asyncio.create_task(command.current())
    await started(pid_file)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert is_running(pid_file)  # another caller may be about to come
    await command.aclose()
    await command.aclose()
    while is_running(pid_file):  # noqa: ASYNC110 - the kernel is ending it
        await asyncio.sleep(0.001)


async def test_a_command_that_does_not_end_is_an_error() -> None:
    command = CommandCredential(Secret("sleep 60; echo tml-late"), timeout_s=0.02)
    with pytest.raises(ConfigurationError, match=r"did not end within 0\.02 s"):
        await command.current()
