"""Things that one module alone may touch, beyond what import-linter can say."""

from tests.architecture.conftest import Module

ENVIRONMENT = ("os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv")
GLOBAL_TELEMETRY = (
    "opentelemetry.trace.set_tracer_provider",
    "opentelemetry.metrics.set_meter_provider",
    "opentelemetry.propagate.set_global_textmap",
    "trace.set_tracer_provider",
    "metrics.set_meter_provider",
    "propagate.set_global_textmap",
)


def mentions(modules: list[Module], *names: str, outside: str = "") -> list[str]:
    return [
        place for module in modules if module.where != outside for place in module.mentions(*names)
    ]


def test_only_config_reads_the_environment(modules: list[Module]) -> None:
    assert [] == mentions(modules, *ENVIRONMENT, outside="tinker_ray/config.py")


def test_only_binding_makes_ray_actors(modules: list[Module]) -> None:
    assert [] == mentions(modules, "ray.remote", outside="actors/binding.py")


def test_only_export_imports_the_telemetry_sdk(modules: list[Module]) -> None:
    found = [
        place
        for module in modules
        if module.where != "tinker_ray/telemetry/export.py"
        for place in module.imports()
        if place.split(" ")[1].startswith(("opentelemetry.sdk", "opentelemetry.exporter"))
    ]
    assert [] == found


def test_nobody_replaces_a_global_telemetry_provider(modules: list[Module]) -> None:
    assert [] == mentions(modules, *GLOBAL_TELEMETRY)
