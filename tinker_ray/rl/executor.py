"""`RayExecutor`: a ``concurrent.futures.Executor`` whose workers are processes on every node.

For code that takes an executor, such as the Tinker cookbook's ``set_rollout_executor``. Needs no
Tinker session. Invariant: every future that was handed out comes to an end.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from actors import cluster
from actors.env_loop import EnvLoop
from actors.worker_options import WorkerOptions
from tinker_ray.clients import install
from tinker_ray.config import Settings
from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.assignment import Account, Assignment
from tinker_ray.rl.task_codec import call_all, receiver, task_of
from tinker_ray.rl.task_runner import StartTaskWorker, TaskFuture, TaskRunner, TaskWorker

T = TypeVar("T")
P = ParamSpec("P")

TASKS_PER_WORKER = 16


class RayExecutor(Executor):
    """Runs functions in processes on the nodes of a Ray cluster, many at once in each.

    Functions, arguments and results travel by pickle (closures and what ``__main__`` defines, too);
    sampling clients may be among them. Plain functions run in threads, coroutine functions on an
    event loop of the worker. Exceptions keep their type; log records reach this process's logging,
    metrics its OpenTelemetry instruments, and spans belong to the trace of whoever submits.

    Cancelling a future whose task waits takes it back. Of a task that runs, a coroutine is stopped;
    a plain function is interrupted at its next instruction of Python, and left alone if it never
    comes to one.

    Args:
        max_workers: Processes at most; None for as many as the cluster has CPUs. They are started
            as there are tasks.
        tasks_per_worker: Tasks that one process runs at once, at most.
        setup: A function that each process calls first. If it raises, the tasks fail with that.
        num_cpus: Logical CPUs of a process; 1 gives tasks that compute a core each.
        num_gpus: Logical GPUs.
        resources: Custom resources of Ray.
        runtime_env: Ray's runtime environment.
        retries: How often a task is run again after its process died; by default its future then
            fails with an ``ActorLostError``. A task that is repeated may have run before.
        log_level: Of the records that are sent back; None for what this process's root logger
            lets through.

    Raises:
        ConfigurationError: A number is out of its range, or Ray cannot be reached.
    """

    def __init__(  # noqa: PLR0913 - what there is to choose
        self,
        max_workers: int | None = None,
        *,
        tasks_per_worker: int = TASKS_PER_WORKER,
        setup: Callable[[], object] | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        retries: int = 0,
        log_level: int | None = None,
    ) -> None:
        counts = {"max_workers": max_workers, "tasks_per_worker": tasks_per_worker}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ConfigurationError(f"{name}={count!r} must be at least 1")
        if retries < 0:
            raise ConfigurationError(f"retries={retries!r} must not be negative")
        options = WorkerOptions(
            setup=setup,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources or {},
            runtime_env=runtime_env or {},
            threads=tasks_per_worker,
        )
        level = logging.getLogger().level if log_level is None else log_level
        hook = install.WORKER_HOOK if install.is_installed() else None
        cluster.connect(Settings.from_env().ray_address, worker_hook=hook)
        self._assignment = Assignment(max_workers or _num_cpus(), tasks_per_worker, retries)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._ended: Future[None] | None = None
        self._loop = EnvLoop("executor")
        self._runner = self._loop.ask(_runner(self._assignment, _starter(options, level)))

    def __repr__(self) -> str:
        """Show the workers and what became of the tasks."""
        return f"RayExecutor(workers={self._runner.num_workers}, {self.account})"

    @property
    def account(self) -> Account:
        """What became of the tasks so far."""
        return self._assignment.account

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function on some worker.

        Args:
            fn: A function, or a coroutine function, whose result the future then gives.
            args: Pickled here and now.
            kwargs: Likewise.

        Raises:
            RuntimeError: The executor was shut down.
            TypeError: The function or an argument cannot be pickled.
        """
        task = task_of(fn, args, kwargs)
        future: TaskFuture[T] = TaskFuture()
        with self._lock:
            if self._ended is not None:
                raise RuntimeError("cannot schedule new futures after shutdown")
            number = next(self._numbers)
            self._loop.loop.call_soon_threadsafe(self._runner.take, number, task, future)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Apply a function to each tuple of arguments; results come in the order of those.

        Args:
            fn: A plain function, or with a ``chunksize`` of 1 a coroutine function.
            iterables: Of arguments; all of them are submitted at once.
            timeout: Seconds from now until the last result.
            chunksize: How many calls make a task; more is cheaper for short calls.

        Raises:
            ValueError: ``chunksize`` is below 1.
        """
        if chunksize < 1:
            message = f"chunksize={chunksize!r} must be at least 1"
            raise ValueError(message)
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        calls = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        results = super().map(functools.partial(call_all, fn), chunks, timeout=timeout)
        return itertools.chain.from_iterable(results)

    def shutdown(
        self,
        wait: bool = True,  # noqa: FBT001, FBT002 - the base class's signature
        *,
        cancel_futures: bool = False,
    ) -> None:
        """Take no more tasks, and end the workers when those that were taken have ended.

        Args:
            wait: Return when that is done.
            cancel_futures: Cancel the tasks that no worker has begun.
        """
        loop = self._loop.loop
        with self._lock:
            is_first = self._ended is None
            if self._ended is None:
                self._ended = asyncio.run_coroutine_threadsafe(self._runner.end(), loop)
                self._ended.add_done_callback(lambda _: loop.stop())
        if cancel_futures and (is_first or not self._ended.done()):
            loop.call_soon_threadsafe(self._runner.cancel_waiting)
        if wait and not self._loop.is_current:
            self._ended.result()
            self._loop.join()


async def _runner(assignment: Assignment, start_worker: StartTaskWorker) -> TaskRunner:
    return TaskRunner(assignment, start_worker)


def _starter(options: WorkerOptions, log_level: int) -> StartTaskWorker:
    name = f"executor-{secrets.token_hex(4)}"

    async def start(number: int) -> TaskWorker:
        from actors.handles.task import TaskHandle

        full_name = f"{name}/worker-{number}"
        return await TaskHandle.start(full_name, options, log_level, receiver(full_name))

    return start


def _num_cpus() -> int:
    from actors.starting import node_cpus

    return max(1, int(sum((node_cpus() or {}).values())))
