from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tinker_ray.clients import mode
from tinker_ray.config import (
    DEFAULT_BASE_URL,
    Secret,
    Settings,
    engine_environment,
    telemetry_environment,
)
from tinker_ray.errors import ConfigurationError
from tinker_ray.sampler_pool import PoolSettings

VARIABLES = (
    "TINKER_API_KEY",
    "TINKER_BASE_URL",
    "TINKER_RAY_MODE",
    "TINKER_RAY_HOME",
    "TINKER_TAGS",
    "RAY_ADDRESS",
    "CLOUDFLARE_ACCESS_CLIENT_ID",
    "CLOUDFLARE_ACCESS_CLIENT_SECRET",
)


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


# --- where clients run ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings,expected",
    [
        (Settings(), "local"),
        (Settings(ray_address="auto"), "cluster"),
        (Settings(mode="local", ray_address="auto"), "local"),
        (Settings(mode="cluster"), "cluster"),
    ],
)
def test_settings_decide_where_clients_run(settings: Settings, expected: str) -> None:
    assert expected == mode.current_mode(settings)


@pytest.mark.parametrize(
    "options,complaint",
    [
        ({"min_samplers": 0}, "min_samplers=0"),
        ({"min_samplers": 4, "max_samplers": 2}, "max_samplers=2 is below min_samplers=4"),
        ({"samples_per_sampler": 1.5}, "samples_per_sampler=1.5"),
        ({"sampler_idle_s": 0}, "sampler_idle_s=0"),
        ({"hedge_after_s": -1.0}, "hedge_after_s=-1.0"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        mode.init(mode="local", **options)
    assert "local" == mode.current_mode(Settings())


def test_the_environment_sizes_the_pool_and_what_init_is_told_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKER_RAY_MIN_SAMPLERS", "3")
    monkeypatch.setenv("TINKER_RAY_HEDGE_AFTER_S", "2.5")
    told = Settings.from_env().pool
    assert PoolSettings(min_samplers=3, max_samplers=8, hedge_after_s=2.5) == told
    assert 12 == mode._with_choice(told, {"min_samplers": 12}).max_samplers
    assert 4 == mode._with_choice(told, {"max_samplers": 4}).max_samplers
    monkeypatch.setenv("TINKER_RAY_MAX_SAMPLERS", "many")
    with pytest.raises(ConfigurationError, match="TINKER_RAY_MAX_SAMPLERS='many' is no number"):
        Settings.from_env()


def test_what_init_chose_wins_over_settings_until_shutdown() -> None:
    mode.init(mode="local")
    try:
        assert "local" == mode.current_mode(Settings(mode="cluster", ray_address="auto"))
    finally:
        mode.shutdown()
        mode.shutdown()
    assert "cluster" == mode.current_mode(Settings(mode="cluster"))


def test_local_has_no_use_for_an_address() -> None:
    with pytest.raises(ConfigurationError, match="address"):
        mode.init("ray://host:1", mode="local")


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="remote"):
        mode.init(mode="remote")  # type: ignore[arg-type]


def test_an_address_that_is_not_embedded_needs_no_engine() -> None:
    settings = Settings(base_url="http://service")
    assert (settings, None) == mode.embedded_engine(settings)


# --- settings -------------------------------------------------------------------------------------


def test_an_empty_environment_gives_the_hosted_service_and_no_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where nobody has stored a key
    settings = Settings.from_env()
    assert (DEFAULT_BASE_URL, None, "auto", (), None) == (
        settings.base_url,
        settings.api_key,
        settings.mode,
        settings.tags,
        settings.ray_address,
    )
    with pytest.raises(ConfigurationError, match="no API key"):
        settings.required_key()


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    values = ("tml-a", "http://host/base/", "local", "~/x", "a,,b", "auto", "id", "secret")
    for name, value in zip(VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)
    settings = Settings.from_env()
    assert (
        Settings(
            api_key=Secret("tml-a"),
            base_url="http://host/base",
            mode="local",
            ray_address="auto",
            home=Path.home() / "x",
            tags=("a", "b"),
            cloudflare=("id", Secret("secret")),
        )
        == settings
    )


def test_arguments_win_over_the_environment_unless_they_are_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKER_BASE_URL", "http://environment")
    monkeypatch.setenv("TINKER_API_KEY", "tml-environment")
    given = Settings.from_env(base_url="http://argument", api_key="tml-argument")
    assert ("http://argument", "tml-argument") == (given.base_url, given.required_key().reveal())
    empty = Settings.from_env(base_url="", api_key="")
    assert ("http://environment", "tml-environment") == (
        empty.base_url,
        empty.required_key().reveal(),
    )


@pytest.mark.parametrize(
    "url,model", [("embedded", ""), ("embedded:qwen", "qwen"), ("http://embedded", None)]
)
def test_an_embedded_address_names_its_model(url: str, model: str | None) -> None:
    assert model == Settings(base_url=url).embedded_model


def test_a_secret_shows_itself_nowhere() -> None:
    settings = Settings(api_key=Secret("tml-hidden"), cloudflare=("id", Secret("hidden-too")))
    assert "hidden" not in f"{settings!r}{settings}{settings.api_key!r}{settings.api_key}"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(settings)


def test_an_engine_is_started_without_the_services_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "x")
    secrets = {name for name in VARIABLES if name.startswith("CLOUDFLARE")} | {"TINKER_API_KEY"}
    assert secrets == set(VARIABLES) - set(engine_environment())


def test_telemetry_settings_are_passed_on_without_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
    assert "http://collector" == telemetry_environment()["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert "OTEL_EXPORTER_OTLP_HEADERS" not in telemetry_environment()
