"""Training of many adapters on one base model, one operation at a time.

A thread of its own runs the operations in the order in which they were submitted. Knows nothing of
sequence numbers, promises or HTTP.

Invariants: an operation that fails leaves weights, optimizer and gradients as they were, except
that ``optim_step`` always consumes the gradients; the same operations give the same numbers,
whatever other models do in between.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

import torch

from tinker_ray.engine.model.adapter import Adapter, select_targets
from tinker_ray.engine.model.adapter_file import load_training, save_adapter
from tinker_ray.engine.training.batch import prepare_batch
from tinker_ray.engine.training.datum_check import Limits
from tinker_ray.engine.training.forward_pass import run_batch
from tinker_ray.engine.training.pass_metrics import pass_metrics
from tinker_ray.engine.training.trained_model import TrainedModel
from tinker_ray.errors import EngineError
from tinker_ray.types import ForwardBackwardOutput, TensorData

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.engine.training.batch import TrainingBatch
    from tinker_ray.types import AdamParams, Datum, LoraConfig

T = TypeVar("T")

_BATCH_TOKENS = 2048
_BATCH_LOGITS = 1 << 25


class Trainer:
    """Trains adapters; every method returns at once with a future of its result."""

    def __init__(self, base: BaseModel, *, batch_tokens: int = _BATCH_TOKENS) -> None:
        """Start the thread.

        Args:
            base: The model that all adapters change.
            batch_tokens: Most tokens, padding included, to run through the model at once; fewer if
                the vocabulary is large.
        """
        self._base = base
        self._batch_tokens = min(batch_tokens, max(1, _BATCH_LOGITS // base.vocab_size))
        self._models: dict[str, TrainedModel] = {}
        self._operations: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="trainer", daemon=True)
        self._thread.start()

    def create(self, model_id: str, lora: LoraConfig) -> Future[None]:
        """Start a new adapter; its B matrices are zero, so it answers as the base model does."""
        return self._submit(lambda: self._create(model_id, lora))

    def forward(
        self,
        model_id: str,
        data: Sequence[Datum],
        loss_fn: str,
        config: Mapping[str, float | str] | None,
        *,
        backward: bool,
    ) -> Future[ForwardBackwardOutput]:
        """Check datums and compute a named loss of them."""

        def operation() -> ForwardBackwardOutput:
            limits = Limits(self._base.vocab_size, self._base.context_length)
            batch = prepare_batch(data, loss_fn, config, limits, backward=backward)
            return self._run_batch(model_id, batch)

        return self._submit(operation)

    def run_batch(self, model_id: str, batch: TrainingBatch) -> Future[ForwardBackwardOutput]:
        """Compute the loss of a batch; if it goes backward, add its gradient to the model's."""
        return self._submit(lambda: self._run_batch(model_id, batch))

    def optim_step(self, model_id: str, params: AdamParams) -> Future[dict[str, float]]:
        """Apply AdamW to the summed gradients and forget them; return metrics.

        Without gradients since the last step the gradient is zero: the averages decay and the
        weights move by what is left of them.
        """
        return self._submit(lambda: self._optim_step(model_id, params))

    def save(self, model_id: str, directory: Path, *, optimizer: bool) -> Future[int]:
        """Write a checkpoint, complete or not at all; return its size in bytes."""

        def operation() -> int:
            model = self._model(model_id)
            state = model.optimizer if optimizer else None
            name = self._base.name
            return save_adapter(directory, model.adapter, base_model=name, optimizer=state)

        return self._submit(operation)

    def load(self, model_id: str, directory: Path, *, optimizer: bool) -> Future[LoraConfig]:
        """Replace the weights, take the saved optimizer or a fresh one, and drop gradients.

        A checkpoint of fewer layers than the model has makes the model one of those layers, as
        for clients that cannot say which layers a model is to have. Returns what it is then.
        """
        return self._submit(lambda: self._load(model_id, directory, optimizer=optimizer))

    def snapshot(self, model_id: str) -> Future[Adapter]:
        """Copy the weights for a sampler; later steps do not change the copy."""

        def operation() -> Adapter:
            return self._model(model_id).adapter.copy()

        return self._submit(operation)

    def unload(self, model_id: str) -> Future[None]:
        """Forget a model; unknown models are forgotten already."""

        def operation() -> None:
            self._models.pop(model_id, None)

        return self._submit(operation)

    def close(self) -> None:
        """Finish the operation under way, fail those that wait, and end the thread."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._operations.put(None)
        self._thread.join()

    def _submit(self, operation: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self._closed:
                    _refuse("the trainer is closed", category="server")
                future.set_result(operation())
            except EngineError as error:
                future.set_exception(error)
            except Exception as error:  # noqa: BLE001 - the border of the thread
                failure = EngineError(f"training failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                future.set_exception(failure)

        with self._closing:
            if self._closed:
                future.set_exception(EngineError("the trainer is closed"))
            else:
                self._operations.put(run)
        return future

    def _run(self) -> None:
        torch.set_num_threads(self._base.num_threads)
        while (operation := self._operations.get()) is not None:
            operation()

    def _model(self, model_id: str) -> TrainedModel:
        if model_id not in self._models:
            _refuse(f"model {model_id!r} is unknown")
        return self._models[model_id]

    def _create(self, model_id: str, lora: LoraConfig) -> None:
        if model_id in self._models:
            _refuse(f"model {model_id!r} exists")
        targets = select_targets(self._base.targets, lora)
        if not targets:
            _refuse("lora_config trains nothing: set train_attn, train_mlp or train_unembed")
        adapter = Adapter.initial(targets, lora, self._base.device)
        self._models[model_id] = TrainedModel.start(adapter)

    def _optim_step(self, model_id: str, params: AdamParams) -> dict[str, float]:
        model = self._model(model_id)
        try:
            return model.optimizer.step(model.adapter.flat, model.gradient, params)
        finally:
            model.gradient.zero_()

    def _load(self, model_id: str, directory: Path, *, optimizer: bool) -> LoraConfig:
        model = self._model(model_id)
        saved = load_training(directory, self._base.device)
        if saved.base_model != self._base.name:
            _refuse(f"{directory} was trained on base model {saved.base_model!r}")
        is_part = set(saved.adapter.targets) <= set(model.adapter.targets)
        if not is_part or saved.adapter.config.rank != model.adapter.config.rank:
            _refuse(f"{directory} holds another lora_config: {saved.adapter.config!r}")
        if optimizer and saved.optimizer is None:
            _refuse(f"{directory} holds no optimizer state")
        state = saved.optimizer if optimizer else None
        self._models[model_id] = TrainedModel.start(saved.adapter, state)
        return saved.adapter.config

    def _run_batch(self, model_id: str, batch: TrainingBatch) -> ForwardBackwardOutput:
        model = self._model(model_id)
        gradient_before = model.gradient.clone()
        try:
            result = run_batch(self._base, model.adapter, batch, batch_tokens=self._batch_tokens)
        except BaseException:
            model.gradient.copy_(gradient_before)
            raise
        outputs = [{"logprobs": TensorData.from_numpy(part)} for part in result.logprobs]
        metrics = {"loss:sum": result.loss_sum, **pass_metrics(batch, result)}
        return ForwardBackwardOutput("TorchLossReturn", outputs, metrics)


def _refuse(message: str, category: Literal["user", "server"] = "user") -> NoReturn:
    raise EngineError(message, category=category)
