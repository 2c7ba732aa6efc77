"""Layers -> DeepSpeed: process group, PipelineModule, and the one engine class that trains, evaluates and predicts.

A run always goes through the pipeline engine, also with one stage and one process on a CPU. Where DeepSpeed's
behaviour does not fit, `StageEngine` overrides it; each override says why and which version it was written against
(0.19.8), and tests/trainer/test_engine.py holds a test for each.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.pipe import PipelineModule
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.pipe import schedule
from deepspeed.runtime.pipe.engine import PipelineEngine
from torch import Tensor, nn

from dpnb.errors import ConfigError, DpnbError, Problem, RunError
from dpnb.schema.training import Training
from trainer.objective import Loss, Target

T = TypeVar("T")
MicroBatch = tuple[tuple[Tensor, ...], Target]
"""(inputs of the first layer, target of the last layer's output, with weights where the loss has some)"""


@dataclass(frozen=True, slots=True)
class World:
    """This process among all: `rank` of `size`, on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True for the one process that writes files for all."""
        return self.rank == 0


def join_world() -> World:
    """Join the process group that the launcher set up (gloo on a CPU, NCCL on GPUs).

    Without a launcher (`python -m trainer.train`) this process is a world of its own.
    """
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        os.environ.update(alone)
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        # DeepSpeed 0.19.8 compiles a shared-memory all-reduce at start-up: half a minute and a C++ compiler, which a
        # laptop may not have. gloo is enough for what a CPU trains.
        # (deepspeed.comm.torch as an attribute is torch itself, hence the import by name.)
        importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
    deepspeed.init_distributed(dist_backend=accelerator.communication_backend_name(), verbose=False)
    local_rank = int(os.environ["LOCAL_RANK"])
    accelerator.set_device(local_rank)
    return World(dist.get_rank(), dist.get_world_size(), torch.device(accelerator.device_name(local_rank)))


# --- many processes, one outcome -------------------------------------------------------------------------------------


def gather(mine: T) -> list[T]:
    """What every rank holds, in order of rank; collective, so it also waits for all of them."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def together(work: Callable[[], T]) -> T:
    """Do `work` on every rank; a `DpnbError` of one is raised on all, so that nobody waits for a rank that gave up.

    Collective; `work` itself must not wait for other ranks.
    """
    result, error = _attempt(work)
    errors = [error for error in gather(error) if error is not None]
    if errors:
        raise error or errors[0]
    return result  # type: ignore[return-value]  # there is one when there is no error


def from_first(work: Callable[[], T]) -> T:
    """Do `work` on rank 0 alone; all ranks get its result, or raise its `DpnbError`. Collective."""
    box: list[Any] = list(_attempt(work)) if not dist.is_initialized() or dist.get_rank() == 0 else [None, None]
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    result, error = box
    if error is not None:
        raise error
    return result


def _attempt(work: Callable[[], T]) -> tuple[T | None, DpnbError | None]:
    try:
        return work(), None
    except DpnbError as error:
        return None, error


class PeerError(DpnbError):
    """Another process failed first and says why; this one only ends with it. The text is the other's."""


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """However a run fails, the process that failed first says why; in all others this raises `PeerError`.

    Those others were told in a collective, or find their peers gone: a stack of gloo or NCCL that helps nobody.
    """
    try:
        yield
    except Exception as error:
        reason = _failed_before(str(error) or type(error).__name__)
        if reason is None:
            raise
        raise PeerError(reason) from error


def _failed_before(words: str) -> str | None:
    """Why another process failed before this one, or None when this one is the first."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    mine = f"{dist.get_rank()}:{words}"
    try:
        # The store of the rendezvous (PyTorch 2.9 has no public way to it): it works where collectives no longer do.
        first = dist.distributed_c10d._get_default_store().compare_set("dpnb/failed", "", mine).decode()
    except RuntimeError:
        return "the first process has ended"  # it keeps the store
    return None if first == mine else first.partition(":")[2]


# --- DeepSpeed, made to fit ------------------------------------------------------------------------------------------


class Layers(PipelineModule):
    """PipelineModule with a split by hand (`partition_method = "manual"`), which DeepSpeed 0.19.8 does not offer."""

    _layer_specs: list[nn.Module]

    def __init__(self, layers: Sequence[nn.Module], *, split: Sequence[int] | None, **options: Any) -> None:  # noqa: ANN401
        self.split = split
        super().__init__(layers, **options)
        # DeepSpeed keeps the layers of all stages; of a large model only this stage's share must stay in memory.
        self._layer_specs = self._layer_specs[self._local_start : self._local_stop]

    def _partition_layers(self, method: str = "uniform") -> None:
        if self.split is None:
            super()._partition_layers(method)
            return
        self.parts = [0, *self.split, len(self._layer_specs)]
        if self.parts[-2] >= self.parts[-1]:
            message = f"{list(self.split)} goes beyond the last of {self.parts[-1]} layers."
            problem = Problem("error", "value", ("partition_split",), message, f"Stay below {self.parts[-1]}.")
            raise ConfigError([problem])
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])


class StageEngine(PipelineEngine):
    """DeepSpeed's pipeline engine for one stage of our layers."""

    data_iterator: Any
    outputs: Tensor | None
    autocast_dtype: torch.dtype | None = None
    max_norm: float = 0.0
    grad_norm: float = 0.0
    lr: float = 0.0

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision of the forward pass; nothing in float32."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    def _exec_forward_pass(self, buffer_id: int) -> None:
        # DeepSpeed's bf16 mode wants a model that is bf16 throughout; ours may train float32 on frozen bf16.
        with self.autocast():
            super()._exec_forward_pass(buffer_id)
        if not self.is_last_stage():
            # Only contiguous tensors can be sent, and a block may give views (Flux's single blocks cut text off).
            wire = self.pipe_buffers["outputs"][buffer_id]
            self.pipe_buffers["outputs"][buffer_id] = tuple(tensor.contiguous() for tensor in wire)

    def _exec_backward_pass(self, buffer_id: int) -> None:
        """Backward through everything that left this stage, at once.

        DeepSpeed calls backward once for each tensor of the wire, walking the shared graph again every time, and
        fails on a tensor that needs no gradient (the time embedding of a frozen first layer).
        """
        if self.is_last_stage():
            super()._exec_backward_pass(buffer_id)
            return
        outputs = [t for t in self.pipe_buffers["outputs"][buffer_id] if t.is_floating_point()]
        pairs = [(t, g) for t, g in zip(outputs, self.grad_layer, strict=True) if t.requires_grad]
        self._running_engine_backward = True
        try:
            torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
        finally:
            self._running_engine_backward = False
        self.pipe_buffers["output_tensors"][buffer_id] = None
        self.pipe_buffers["outputs"][buffer_id] = None

    def _exec_send_grads(self, buffer_id: int) -> None:
        """Send zeros for a tensor that this stage received but did not use; DeepSpeed asserts instead."""
        for tensor in self.pipe_buffers["inputs"][buffer_id]:
            if tensor.is_floating_point() and tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
        super()._exec_send_grads(buffer_id)

    def _allocate_or_extend_buffers(self, _idx: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A fresh buffer each time: DeepSpeed reuses one by position without looking at its dtype, and shares it
        between activations and gradients, which breaks a wire of several dtypes and changing sizes."""
        return self._allocate_zeros(shape, dtype=dtype)

    def _take_model_step(self, lr_kwargs: dict[str, Any] | None) -> None:
        # DeepSpeed computes no norm without clipping and keeps the one it computes to itself.
        self.grad_norm = self._clip_gradients()
        self.lr = float(self.optimizer.param_groups[0]["lr"])  # afterwards it is the next step's
        super()._take_model_step(lr_kwargs)

    def _clip_gradients(self) -> float:
        """Norm of the gradient over all stages; scales it down to `max_norm` unless that is 0."""
        grads = [p.grad for p in self.module.parameters() if p.grad is not None]
        squares = [g.detach().float().pow(2).sum() for g in grads]
        total = torch.stack(squares).sum() if squares else torch.zeros((), device=self.device)
        if self.num_stages > 1:
            dist.all_reduce(total, group=self.grid.get_pipe_parallel_group())
        norm = float(total.sqrt())
        if self.max_norm > 0 and norm > self.max_norm:
            for grad in grads:
                grad.mul_(self.max_norm / norm)
        return norm

    _INSTRUCTION_MAP = PipelineEngine._INSTRUCTION_MAP | {
        schedule.ForwardPass: _exec_forward_pass,
        schedule.BackwardPass: _exec_backward_pass,
        schedule.SendGrad: _exec_send_grads,
    }

    # --- what the rest of the trainer calls --------------------------------------------------------------------------

    @property
    def replicas(self) -> int:
        """Copies of the model that train side by side (data-parallel size)."""
        return int(self.grid.data_parallel_size)

    @property
    def replica(self) -> int:
        """Which copy this process belongs to."""
        return int(self.grid.get_data_parallel_rank())

    def train_step(self, micro_batches: Iterable[MicroBatch]) -> float:
        """One optimizer step over as many micro-batches as the engine accumulates; the mean loss over all ranks."""
        return float(self.train_batch(iter(micro_batches)))

    @torch.no_grad()
    def evaluate(self, micro_batches: Sequence[MicroBatch]) -> float:
        """Mean loss over micro-batches and ranks, without gradients or dropout."""
        return float(self.eval_batch(iter(micro_batches), num_micro_batches=len(micro_batches)))

    @torch.no_grad()
    def predict(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The last layer's output, float32 on the CPU of every rank of this replica, whatever stage it holds.

        Unlike `eval_batch` it synchronises the stages of one replica only: replicas may draw different pictures.
        """
        iterator, self.data_iterator = self.data_iterator, iter([(inputs, ())])
        self.module.eval()
        self._compute_loss, self.eval_return_logits, self.total_loss = False, True, None
        self._exec_schedule(self._inference_schedule(1))
        prediction, self.outputs = self.outputs, None
        self._compute_loss, self.eval_return_logits = True, False
        self.data_iterator = iterator
        return self._from_last_stage(prediction.float() if prediction is not None else None).cpu()

    def _from_last_stage(self, tensor: Tensor | None) -> Tensor:
        if self.num_stages == 1:
            assert tensor is not None
            return tensor
        group, source = self.grid.get_pipe_parallel_group(), self._loss_stage_global_rank()
        shape = torch.zeros(8, dtype=torch.int64, device=self.device)
        if tensor is not None:
            shape[: tensor.ndim + 1] = torch.tensor([tensor.ndim, *tensor.shape])
        dist.broadcast(shape, src=source, group=group)
        if tensor is None:
            tensor = torch.empty(shape[1 : 1 + int(shape[0])].tolist(), device=self.device)
        dist.broadcast(tensor.contiguous(), src=source, group=group)
        return tensor


class SafeCheckpoints(TorchCheckpointEngine):
    """DeepSpeed's checkpoint files, read without running code from them and flushed to disk when written.

    `failure`: why a file could not be written, or empty. It is remembered rather than raised, because ranks wait for
    each other within DeepSpeed's save: trainer/checkpoint.py asks for it afterwards.
    """

    failure: str = ""

    def load(self, path: str, map_location: Any = None) -> Any:  # noqa: ANN401 - as in DeepSpeed
        """Tensors and plain values only: a checkpoint that somebody else made must not be able to run code.

        Raises `RunError` for a file that holds anything else, or is damaged.
        """
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            message = f"{path} is damaged, or holds more than tensors and plain values: it is not read."
            raise RunError(f"{message} Resume from another checkpoint.") from error

    def save(self, state_dict: Any, path: str) -> None:  # noqa: ANN401 - as in DeepSpeed
        """Write and flush: `latest` must never name a file that a power cut can take back."""
        try:
            with open(path, "wb") as file:  # noqa: PTH123 - DeepSpeed hands over a str
                torch.save(state_dict, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            self.failure = self.failure or _reason(error)


def _reason(error: BaseException) -> str:
    """The operating system's word for it: PyTorch says "unexpected pos 704 vs 598" when the disk is full."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _reason(error.__context__) if error.__context__ is not None else str(error)


def build(
    layers: Sequence[nn.Module],
    training: Training,
    *,
    loss: Loss,
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    make_schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler],
    micro_batch_size: int,
    autocast_dtype: torch.dtype | None,
) -> StageEngine:
    """Deal the layers out to stages and put the engine around this process's share.

    Every rank passes all layers; those of other stages are let go of. `micro_batch_size` is for DeepSpeed's own
    bookkeeping, real micro-batches may differ in size. Raises `ConfigError`, on every rank, when a stage gets nothing
    to train.
    """
    from torch.utils.checkpoint import checkpoint

    def recompute(function: Callable[..., Any], *inputs: Tensor) -> Any:  # noqa: ANN401 - what a layer gives
        return checkpoint(function, *inputs, use_reentrant=training.reentrant_activation_checkpointing)

    with _quiet():
        module = Layers(
            layers,
            split=training.partition_split if training.partition_method == "manual" else None,
            num_stages=training.pipeline_stages,
            partition_method=training.partition_method if training.partition_method != "manual" else "uniform",
            loss_fn=loss,
            activation_checkpoint_interval=1 if training.activation_checkpointing else 0,
            activation_checkpoint_func=recompute,
            dynamic_shape=True,
        )
    config = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_clipping": 0.0,  # done by StageEngine
        "steps_per_print": 2**31,  # done by trainer/report.py
    }
    parameters = [p for p in module.parameters() if p.requires_grad]
    empty = sorted({stage for stage, trains in gather((module.stage_id, bool(parameters))) if not trains})
    if empty:
        begins = [int(layer) for layer in module.parts[:-1]]
        message = f"leaves stage {empty[0]} nothing to train (the stages begin at layers {begins})."
        suggestion = "Use partition_method = 'parameters', or another partition_split."
        raise ConfigError([Problem("error", "value", ("partition_method",), message, suggestion)])
    with _quiet():
        engine = StageEngine(
            args=None,
            model=module,
            optimizer=make_optimizer(parameters),
            model_parameters=parameters,
            lr_scheduler=make_schedule,
            mpu=module.mpu(),
            config=config,
            config_class=DeepSpeedConfig(config, module.mpu()),
        )
    engine.checkpoint_engine = SafeCheckpoints()
    engine.autocast_dtype = autocast_dtype
    engine.max_norm = training.gradient_clipping
    return engine


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep DeepSpeed's pages of settings out of the console log; its warnings, on stderr, stay."""
    logger = logging.getLogger("DeepSpeed")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


__all__ = [
    "Layers",
    "MicroBatch",
    "PeerError",
    "SafeCheckpoints",
    "StageEngine",
    "World",
    "build",
    "from_first",
    "gather",
    "join_world",
    "one_voice",
    "together",
]
