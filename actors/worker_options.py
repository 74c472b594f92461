"""What the processes that run users' code are given: resources, an environment, a setup hook.

Knows nothing of Ray but the names of its options. Invariant: no secret of ours is among them,
because Ray shows a runtime environment to whoever looks at the cluster.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from actors.env_threads import MAX_THREADS
from tinker_ray.config import check_environment, telemetry_environment
from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts.failure import describe
from tinker_ray.rollouts.far import FAR_BYTES

Setup: TypeAlias = Callable[[], object]
"""A function, or a coroutine function, without arguments; what it returns is not kept."""


@dataclass(frozen=True)
class WorkerOptions:
    """How worker processes are made.

    Attributes:
        setup: Runs once in each worker process, before anything else.
        num_cpus: Logical CPUs of one; None leaves it to who starts it. Only so many workers fit on
            a node, which is how environments that compute get cores of their own.
        num_gpus: Logical GPUs.
        memory_bytes: Memory that Ray sets aside.
        resources: Custom resources, which also pin workers to the nodes that have them.
        runtime_env: Ray's, such as ``{"pip": [...]}`` or ``{"env_vars": {...}}``.
        threads: How many blocking calls one may run at once.
        far_bytes: From which size on, in bytes of tokens and logprobs, the trajectories of a group
            stay on the worker's node until they are needed; None sends all along.

    Raises:
        ConfigurationError: A number is out of its range, or a secret is among the variables.
    """

    setup: Setup | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory_bytes: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    threads: int = MAX_THREADS
    far_bytes: int | None = FAR_BYTES

    def __post_init__(self) -> None:
        """Check everything early, where the values are written down."""
        if self.setup is not None and not callable(self.setup):
            raise ConfigurationError(f"setup={self.setup!r} is no function")
        amounts = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        amounts |= {"memory_bytes": self.memory_bytes, **self.resources}
        for name, amount in amounts.items():
            if amount is not None and amount < 0:
                raise ConfigurationError(f"{name}={amount!r} must not be negative")
        if self.threads < 1:
            raise ConfigurationError(f"threads={self.threads!r}: a worker needs at least one")
        if self.far_bytes is not None and self.far_bytes < 0:
            raise ConfigurationError(f"far_bytes={self.far_bytes!r}: None keeps nothing far")
        check_environment(self.runtime_env.get("env_vars") or {})

    def ray_options(self, *, num_cpus: float) -> dict[str, Any]:
        """Give the options for Ray's actors.

        Args:
            num_cpus: What one takes if nothing is said here.
        """
        chosen = {
            "num_cpus": num_cpus if self.num_cpus is None else self.num_cpus,
            "num_gpus": self.num_gpus,
            "memory": self.memory_bytes,
            "resources": dict(self.resources) or None,
        }
        variables = telemetry_environment() | dict(self.runtime_env.get("env_vars") or {})
        environment = dict(self.runtime_env) | ({"env_vars": variables} if variables else {})
        chosen["runtime_env"] = environment or None
        return {name: value for name, value in chosen.items() if value is not None}


PLAIN_WORKER = WorkerOptions()


def run_setup(setup: Setup | None, where: str) -> None:
    """Run a setup hook to its end.

    Args:
        setup: The hook.
        where: For the error: what process this is.

    Raises:
        ConfigurationError: It raised.
    """
    if setup is None:
        return
    try:
        outcome = setup()
        if inspect.isawaitable(outcome):
            _in_a_loop_of_its_own(outcome)
    except (Exception, SystemExit) as error:  # the border to the user's code
        name = getattr(setup, "__qualname__", repr(setup))
        raise ConfigurationError(
            f"the setup hook {name} failed in {where}: {describe(error)}. It runs once in each "
            "worker process, before any other code of yours"
        ) from error


class _Done:
    """The hooks that this process has run, for workers that share it."""

    lock = threading.Lock()
    hooks: list[Setup] = []  # noqa: RUF012 - one list for the process


def run_setup_once(setup: Setup | None, where: str) -> None:
    """Run a setup hook, unless this process has run it already.

    Raises:
        ConfigurationError: It raised; the next caller tries again.
    """
    if setup is None:
        return
    with _Done.lock:
        if setup not in _Done.hooks:
            run_setup(setup, where)
            _Done.hooks.append(setup)


def _in_a_loop_of_its_own(outcome: Any) -> None:  # noqa: ANN401 - any awaitable
    """Await something although this thread may have an event loop already."""
    failures: list[BaseException] = []

    async def wait() -> None:
        await outcome

    def run() -> None:
        try:
            asyncio.run(wait())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run, name="setup", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
