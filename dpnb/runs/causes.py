"""What a failure looks like in the log, in the words of the programs that write it, and what mends it: one row each.

The rows stand in the order of certainty, since one failure writes many lines: NCCL complains about every rank that
died of something else. dpnb/runs/triage.py makes cards of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from dpnb.schema.training import Training

Change = Callable[[Training, str], dict[str, Any]]
"""Training and evidence -> dotted keys of the training file with the values that mend it."""


def _nothing(_training: Training, _evidence: str) -> dict[str, Any]:
    return {}


class Cause(NamedTuple):
    """One cause. `title` says it in words, `pattern` finds its line, `change` mends it as far as a key can."""

    name: str
    title: str
    pattern: re.Pattern[str]
    advice: str
    change: Change = _nothing


# --- what would mend it ----------------------------------------------------------------------------------------------


def _less_gpu_memory(t: Training, _evidence: str) -> dict[str, Any]:
    """The cheapest saving that is not made yet: recomputing activations costs time, smaller batches cost more time,
    and frozen weights in eight bits cost some precision."""
    if not t.activation_checkpointing:
        return {"activation_checkpointing": True}
    batch = t.micro_batch_size_per_gpu
    if isinstance(batch, int) and batch > 1:
        # The same number of examples make a step, so the result is the same.
        half = batch // 2
        return {
            "micro_batch_size_per_gpu": half,
            "gradient_accumulation_steps": t.gradient_accumulation_steps * -(-batch // half),
        }
    if t.adapter is not None and getattr(t.model, "transformer_dtype", "none of its keys") is None:
        return {"model.transformer_dtype": "float8"}
    return {}


def _gentler(t: Training, _evidence: str) -> dict[str, Any]:
    lr = getattr(t.optimizer, "lr", None)
    changes: dict[str, Any] = {} if not isinstance(lr, float | int) else {"optimizer.lr": lr / 10}
    if t.gradient_clipping == 0:
        changes["gradient_clipping"] = 1.0
    return changes if t.warmup_steps else changes | {"warmup_steps": 100}


def _fewer_saves(t: Training, _evidence: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if t.keep_last_n_saves is None or t.keep_last_n_saves > 2:
        changes["keep_last_n_saves"] = 2
    if t.keep_last_n_checkpoints is None or t.keep_last_n_checkpoints > 1:
        changes["keep_last_n_checkpoints"] = 1
    return changes


def _fewer_workers(t: Training, _evidence: str) -> dict[str, Any]:
    return {"map_num_proc": 1} if (t.map_num_proc or 2) > 1 else {}


def _checkpoints_by_the_clock(t: Training, _evidence: str) -> dict[str, Any]:
    return {"checkpoint_every_n_minutes": 30.0} if t.checkpoint_every_n_minutes is None else {}


def _without_package(t: Training, evidence: str) -> dict[str, Any]:
    """An optimizer that needs no further package, where the one that is missing is for nothing else."""
    if "bitsandbytes" in evidence and t.optimizer.type == "adamw8bit":
        return {"optimizer.type": "adamw"}
    return {}


# --- what they look like ---------------------------------------------------------------------------------------------

CAUSES = (
    Cause(
        "configuration",
        "the configuration is wrong",
        re.compile(r"^\S.*\.toml(?::\d+:\d+)?: error: "),
        "Correct what the line names, and start again.",
    ),
    Cause(
        "diverged",
        "the training has diverged: its loss or gradient is no longer a number",
        re.compile(
            r"the training has diverged|\bloss(?: is|[=:]) ?(?:nan|inf)\b"
            r"|loss scale already at minimum|found (?:nan|inf) in the (?:loss|grad)",
            re.IGNORECASE,
        ),
        "A lower learning rate and a warm-up keep it in bounds.",
        _gentler,
    ),
    Cause(
        "disk full",
        "the disk is full",
        re.compile(
            r"No space left on device|Disk quota exceeded|\bENOSPC\b|File too large|PytorchStreamWriter failed"
            r"|not enough space on the disk|^the cache folder .* is full"
        ),
        "Free space below output_dir (or choose another disk) before going on; keeping fewer saves needs less of it.",
        _fewer_saves,
    ),
    Cause(
        "GPU memory",
        "the GPU ran out of memory",
        re.compile(
            r"(?:CUDA|HIP) out of memory|torch(?:\.cuda)?\.OutOfMemoryError|(?:CUBLAS|CUDNN)_STATUS_ALLOC_FAILED"
            r"|(?:CUDA|HIP) error: out of|Failed to CUDA (?:calloc|malloc)|CUDA_ERROR_OUT_OF_MEMORY"
        ),
        "Recomputed activations or a smaller micro-batch need less of it; a lower resolution in the dataset does too.",
        _less_gpu_memory,
    ),
    Cause(
        "shared memory",
        "the machine's shared memory (/dev/shm) is too small",
        re.compile(r"out of shared memory|insufficient shared memory|unable to (?:mmap|write to file) .*/torch_"),
        "Give the container more of it (docker run --shm-size=8g), or use fewer worker processes.",
        _fewer_workers,
    ),
    Cause(
        "host memory",
        "the machine ran out of memory (RAM)",
        re.compile(
            r"DefaultCPUAllocator: (?:can't|not enough)|^MemoryError|\bMemoryError\b$|Cannot allocate memory"
            r"|oom[_-]kill|Out of memory: Killed process|DataLoader worker .* is killed by signal: Killed"
        ),
        "Fewer worker processes, a smaller model or another machine; the GPU's memory is not what was short.",
        _fewer_workers,
    ),
    Cause(
        "time limit",
        "the batch system ended the job: its time was over",
        re.compile(r"CANCELLED AT .* DUE TO (?:TIME LIMIT|PREEMPTION)|slurmstepd: error: .*(?:TIMEOUT|time limit)"),
        "Ask for a longer time, or let it write checkpoints more often, then go on from the last one.",
        _checkpoints_by_the_clock,
    ),
    Cause(
        "missing package",
        "a Python package is missing, or is of another version than is needed",
        re.compile(
            r"(?:ModuleNotFoundError: )?No module named '?[\w.]+'?|ImportError: .*|PackageNotFoundError: .*"
            r"|importlib\.metadata\.PackageNotFoundError"
        ),
        "Install it into the environment that trains: pip install 'dpnb[train]' brings all that dpnb's trainer needs.",
        _without_package,
    ),
    Cause(
        "driver",
        "torch and the GPU, or its driver, do not fit together",
        re.compile(
            r"driver version is insufficient|Found no NVIDIA driver|no kernel image is available|forward "
            r"compatibility was attempted|NVIDIA driver on your system is too old|Torch not compiled with CUDA"
            r"|CUDA driver initialization failed|is not compatible with the current PyTorch installation"
        ),
        "Install the torch that was built for this GPU and driver (pytorch.org tells which), or a newer driver.",
    ),
    Cause(
        "checkpoint",
        "the checkpoint cannot be read or belongs to another model",
        re.compile(
            r"PytorchStreamReader failed|HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer|SafetensorError"
            r"|UnpicklingError|is not a checkpoint: |_states\.pt is damaged|Error\(s\) in loading state_dict"
            r"|size mismatch for |Missing key\(s\) in state_dict|Unable to load weights from checkpoint file"
            r"|the checkpoint .* does not fit|[Cc]annot load .* because .* expected shape"
        ),
        "Name a file of the right model. Of a run's own checkpoints, an older one may be whole: write the name of its "
        "folder into `latest`.",
    ),
    Cause(
        "lost GPU",
        "a GPU stopped answering",
        re.compile(
            r"GPU has fallen off the bus|GPU is lost|CUDA error: (?:unspecified launch|an illegal memory|unknown)"
            r"|no CUDA-capable device|uncorrectable ECC error|Unable to determine the device handle|\bXid\b.*: \d+"
            r"|CUDA error: (?:the launch timed out|invalid device ordinal)|busy or unavailable|NVML: .*(?:lost|Unkn)"
        ),
        "Look at the machine (nvidia-smi; a restart may be needed), then go on from the last checkpoint.",
    ),
    Cause(
        "disk",
        "the disk does not answer, or may no longer be written to",
        re.compile(
            r"Read-only file system|Input/output error|Stale file handle|Transport endpoint is not connected"
            r"|Remote I/O error"
        ),
        "Look at the disk (`dmesg`, and `mount` for a network disk), then go on from the last checkpoint.",
    ),
    Cause(
        "open files",
        "too many files are open",
        re.compile(r"Too many open files|received 0 items of ancdata"),
        "Raise the limit (`ulimit -n 65536` before the notebook or terminal starts), or use fewer worker processes.",
        _fewer_workers,
    ),
    Cause(
        "port",
        "the port for the ranks to meet at is taken",
        re.compile(r"EADDRINUSE|[Aa]ddress already in use"),
        "Start again: another port is chosen each time.",
    ),
    Cause(
        "NCCL",
        "the GPUs lost touch with one another",
        re.compile(
            r"NCCL (?:error|WARN|operation)|ncclSystemError|ncclInternalError|ncclRemoteError|DistBackendError"
            r"|Watchdog caught collective operation timeout|Connection closed by peer|Connection reset by peer"
            r"|DistNetworkError|DistStoreError|client socket has timed out|\[Rank \d+\] Timeout"
        ),
        "Often one rank died of something else first. If not: NCCL_DEBUG=INFO names the link; on cards without "
        "peer-to-peer links set NCCL_P2P_DISABLE=1.",
    ),
    Cause(
        "path",
        "a file or folder is not there, or may not be read",
        re.compile(
            r"(?:FileNotFoundError|PermissionError|NotADirectoryError|IsADirectoryError): .*"
            r"|no file named .* found in directory|couldn't connect to 'https://huggingface|(?:LocalEntryNotFound|"
            r"RepositoryNotFound|GatedRepo|HFValidation)Error|Can't load (?:tokenizer|the configuration|the model)"
        ),
        "Correct the path in the configuration, and start again. A run downloads no models: fetch them before.",
    ),
)
