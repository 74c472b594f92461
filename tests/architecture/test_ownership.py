"""Things that one module alone may touch, beyond what import-linter can say."""

from tests.architecture.conftest import Module

ENVIRONMENT = ("os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv")
GLOBAL_TELEMETRY = (
    "opentelemetry.trace.set_tracer_provider",
    "opentelemetry.propagate.set_global_textmap",
    "trace.set_tracer_provider",
    "propagate.set_global_textmap",
)
METER_PROVIDER = (
    "opentelemetry.metrics.set_meter_provider",
    "metrics.set_meter_provider",
    "told_meters.install",
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


def test_only_a_worker_of_ours_is_given_a_meter_provider_for_want_of_one(
    modules: list[Module],
) -> None:
    allowed = {"tinker_ray/telemetry/told_meters.py", "actors/binding.py"}
    others = [module for module in modules if module.where not in allowed]
    assert [] == mentions(others, *METER_PROVIDER)
