from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from actors.service import ServiceSpec, check_reach, is_loopback
from tests.unit.actors.conftest import SERVICE
from tinker_ray.config import EMBEDDED_API_KEY, Secret, Settings
from tinker_ray.core.flags import ServerFlags
from tinker_ray.errors import ConfigurationError

HOSTED = ServiceSpec("https://tinker.example", "s", ServerFlags())


def test_a_service_travels_without_a_secret() -> None:
    settings = Settings(Secret("tml-secret"), "https://tinker.example", report=False)
    service = ServiceSpec.of(settings, "s", ServerFlags())
    assert HOSTED == pickle.loads(pickle.dumps(service))  # noqa: S301 - our own
    assert b"tml-secret" not in pickle.dumps(service)


def test_a_process_without_a_key_says_where_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="TINKER_API_KEY in the environment of every node"):
        HOSTED.open_link()


def test_a_process_uses_the_key_of_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-mine")
    assert "tml-mine" == HOSTED.settings().required_key().reveal()


def test_an_embedded_engine_never_sees_the_key_of_the_real_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-mine")
    assert EMBEDDED_API_KEY == SERVICE.settings().required_key().reveal()


@pytest.mark.parametrize(
    "key, url, embedded",
    [
        (EMBEDDED_API_KEY, "http://127.0.0.1:8000", True),
        (None, "http://localhost:8000", True),
        ("tml-key", "http://127.0.0.1:8000", False),
        (EMBEDDED_API_KEY, "http://10.0.0.7:8000", False),
    ],
)
def test_only_a_loopback_engine_without_a_key_of_its_own_is_embedded(
    key: str | None, url: str, *, embedded: bool
) -> None:
    settings = Settings(Secret(key) if key else None, url)
    assert embedded == ServiceSpec.of(settings, "s", ServerFlags()).embedded


def test_loopback_is_told_by_the_host() -> None:
    assert is_loopback("http://127.0.0.1:9")
    assert not is_loopback("http://127.0.0.1.example:9")


def test_a_loopback_engine_is_refused_on_a_cluster_of_several_machines() -> None:
    check_reach("http://127.0.0.1:8000", {"10.0.0.1"})
    check_reach("http://10.0.0.1:8000", {"10.0.0.1", "10.0.0.2"})
    with pytest.raises(ConfigurationError, match="tinker-ray serve --host"):
        check_reach("http://127.0.0.1:8000", {"10.0.0.1", "10.0.0.2"})


def test_asking_whether_ray_is_connected_does_not_load_it() -> None:
    script = (
        "import sys; from actors import cluster; "
        "print(cluster.is_initialized(), cluster.started_here(), 'ray' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "False False False" == run.stdout.strip()


def test_a_command_that_prints_a_credential_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
    monkeypatch.setenv("TINKER_CREDENTIAL_CMD", "print-it")
    assert ServiceSpec("http://10.0.0.1", "s", ServerFlags()).settings().credential_cmd is not None
