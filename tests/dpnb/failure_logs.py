"""Ends of console logs as the libraries print them, by name: (log, cause, what the evidence holds)."""
# ruff: noqa: E501 - other programs' lines are as long as they are

from __future__ import annotations

TRACE = """[rank{rank}]: Traceback (most recent call last):
[rank{rank}]:   File "/opt/venv/lib/python3.11/site-packages/trainer/train.py", line 156, in <module>
[rank{rank}]:     sys.exit(main())
[rank{rank}]:   File "/opt/venv/lib/python3.11/site-packages/trainer/train.py", line 127, in learn
[rank{rank}]:     loss = engine.train_step(batches)
"""
LAUNCHER = """[2026-11-03 10:02:11,514] [INFO] [launch.py:351:main] Process 4821 exits successfully.
[2026-11-03 10:02:12,301] [INFO] [launch.py:316:sigkill_handler] Killing subprocess 4820
[2026-11-03 10:02:12,301] [ERROR] [launch.py:325:sigkill_handler] ['/opt/venv/bin/python', '-u', '-m', 'trainer.train'] exits with return code = 1
"""
START = """[2026-11-03 09:58:01,004] [INFO] [real_accelerator.py:260:get_accelerator] Setting ds_accelerator to cuda (auto detect)
A matching Triton is not available, some optimizations will not be enabled
Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/xformers/__init__.py", line 57, in _is_triton_available
    import triton  # noqa
ModuleNotFoundError: No module named 'triton'
[W1103 09:58:03.1 socket.cpp:697] [c10d] The client socket has failed to connect to [::]:29500 (errno: 97 - Address family not supported by protocol).
"""
STEPS = """step 10/4000 epoch 1/20 loss 0.3121 lr 2e-05 1.62 s/step
step 11/4000 epoch 1/20 loss 0.2874 lr 2e-05 1.61 s/step
"""

LOGS: dict[str, tuple[str, str, str]] = {
    "CUDA OOM after steps, with NCCL noise": (
        START
        + STEPS
        + TRACE.format(rank=1)
        + "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.12 GiB. GPU 1 has a total capacity of "
        "23.64 GiB of which 312.81 MiB is free. Process 4821 has 23.32 GiB memory in use. Of the allocated memory 21.01 GiB "
        "is allocated by PyTorch, and 1.73 GiB is reserved by PyTorch but unallocated.\n"
        "[rank0]:[W1103 10:01:59.9 ProcessGroupNCCL.cpp:1496] Warning: WARNING: destroy_process_group() was not called\n"
        "[rank0]: torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2251, remote process exited\n"
        + LAUNCHER,
        "GPU memory",
        "Tried to allocate 1.12 GiB",
    ),
    "cuBLAS could not allocate": (
        TRACE.format(rank=0) + "[rank0]: RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
        "`cublasCreate(handle)`\n" + LAUNCHER,
        "GPU memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
    ),
    "NCCL could not allocate": (
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:219, unhandled cuda error\n"
        "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nFailed to CUDA calloc async 608 bytes\n",
        "GPU memory",
        "CUDA calloc",
    ),
    "a dataloader worker killed by the system": (
        STEPS + "RuntimeError: DataLoader worker (pid 9120) is killed by signal: Killed.\n" + LAUNCHER,
        "host memory",
        "is killed by signal: Killed",
    ),
    "SLURM's out-of-memory handler": (
        STEPS
        + "slurmstepd: error: Detected 1 oom_kill event in StepId=812.0. Some of the step tasks have been OOM Killed.\n"
        "srun: error: node07: task 0: Out Of Memory\n",
        "host memory",
        "oom_kill event",
    ),
    "the shared memory of a container": (
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).\n"
        "RuntimeError: DataLoader worker (pid(s) 311) exited unexpectedly\n",
        "shared memory",
        "insufficient shared memory",
    ),
    "diffusion-pipe's loss is nan": (
        "steps: 410 loss: nan iter time (s): 2.104 samples/sec: 1.901\n"
        "steps: 411 loss: nan iter time (s): 2.101 samples/sec: 1.904\n",
        "diverged",
        "loss: nan",
    ),
    "float16's loss scale at its end": (
        "[2026-11-03 10:00:00,000] [INFO] [loss_scaler.py:190:update_scale] [deepspeed] OVERFLOW! Rank 0 Skipping step. "
        "Attempted loss scale: 1, but hysteresis is 2. Reducing hysteresis to 1\n"
        "Exception: Current loss scale already at minimum - cannot decrease scale anymore. Exiting run.\n",
        "diverged",
        "already at minimum",
    ),
    "NCCL's watchdog": (
        STEPS
        + "[rank1]:[E1103 10:12:01.5 ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog caught collective operation timeout: "
        "WorkNCCL(SeqNum=4410, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600011 milliseconds "
        "before timing out.\n[rank1]:[E1103 10:12:01.5 ProcessGroupNCCL.cpp:1785] terminate called\n",
        "NCCL",
        "Watchdog caught",
    ),
    "ranks that never met": (
        "[E1103 10:03:00.0 socket.cpp:1019] [c10d] The client socket has timed out after 600000ms while trying to connect to "
        "(10.0.0.4, 29500).\ntorch.distributed.DistNetworkError: The client socket has timed out\n",
        "NCCL",
        "timed out after 600000ms",
    ),
    "a full disk below safetensors": (
        STEPS
        + "safetensors_rust.SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)\n",
        "disk full",
        "No space left",
    ),
    "a full disk below torch.save": (
        STEPS + "RuntimeError: [enforce fail at inline_container.cc:626] . unexpected pos 448 vs 342\n"
        "OSError: [Errno 28] No space left on device\n",
        "disk full",
        "Errno 28",
    ),
    "a quota": ("OSError: [Errno 122] Disk quota exceeded: '/home/u/runs/epoch3'\n", "disk full", "quota"),
    "a dataset that is not there": (
        'Traceback (most recent call last):\n  File "x.py", line 3, in <module>\n'
        "FileNotFoundError: [Errno 2] No such file or directory: '/data/pictures/img_01.png'\n",
        "path",
        "img_01.png",
    ),
    "a model folder without weights": (
        "OSError: Error no file named diffusion_pytorch_model.safetensors found in directory /models/flux/transformer.\n",
        "path",
        "no file named",
    ),
    "a model that would have to be downloaded": (
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached "
        "files.\n",
        "path",
        "huggingface",
    ),
    "a gated model": (
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-67)\n"
        "Cannot access gated repo for url https://huggingface.co/black-forest-labs/FLUX.1-dev/resolve/main/config.json.\n",
        "path",
        "401 Client Error",
    ),
    "a missing package": (
        'Traceback (most recent call last):\n  File "optim.py", line 3, in build\n    import bitsandbytes\n'
        "ModuleNotFoundError: No module named 'bitsandbytes'\n" + LAUNCHER,
        "missing package",
        "bitsandbytes",
    ),
    "a package of another version": (
        "ImportError: cannot import name 'FluxTransformer2DModel' from 'diffusers' (/opt/venv/diffusers/__init__.py)\n",
        "missing package",
        "cannot import name",
    ),
    "weights of another model": (
        "RuntimeError: Error(s) in loading state_dict for FluxTransformer2DModel:\n"
        "\tsize mismatch for x_embedder.weight: copying a param with shape torch.Size([3072, 64]) from checkpoint, the shape "
        "in current model is torch.Size([3072, 384]).\n",
        "checkpoint",
        "Error(s) in loading",
    ),
    "a download that broke off": (
        "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered\n",
        "checkpoint",
        "not fully covered",
    ),
    "a torn .pt file": (
        "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory\n",
        "checkpoint",
        "central directory",
    ),
    "a GPU that fell off the bus": (
        STEPS + TRACE.format(rank=0) + "[rank0]: torch.AcceleratorError: CUDA error: unspecified launch failure\n"
        "[rank0]: CUDA kernel errors might be asynchronously reported at some other API call.\n",
        "lost GPU",
        "unspecified launch failure",
    ),
    "nvidia-smi no longer finds it": (
        "Unable to determine the device handle for GPU0000:01:00.0: Unknown Error\n",
        "lost GPU",
        "device handle",
    ),
    "a driver that is too old": (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver\n",
        "driver",
        "too old",
    ),
    "a torch without this GPU": (
        "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch installation.\n"
        "RuntimeError: CUDA error: no kernel image is available for execution on the device\n",
        "driver",
        "sm_120",
    ),
    "a disk that went read-only": (
        STEPS + "OSError: [Errno 30] Read-only file system: '/mnt/runs/.status.json.4820.tmp'\n",
        "disk",
        "Read-only",
    ),
    "a network disk that went away": ("OSError: [Errno 116] Stale file handle\n", "disk", "Stale"),
    "too many open files": ("OSError: [Errno 24] Too many open files: '/data/img.png'\n", "open files", "Errno 24"),
    "a port that is taken": (
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: "
        "29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use\n",
        "port",
        "EADDRINUSE",
    ),
    "SLURM's time limit": (
        STEPS + "slurmstepd: error: *** STEP 812.0 ON node07 CANCELLED AT 2026-11-03T12:00:00 DUE TO TIME LIMIT ***\n",
        "time limit",
        "TIME LIMIT",
    ),
    "a mistake in the file": (
        "/x/run.toml:3:1: error: epochz: unknown key. Did you mean 'epochs'?\n",
        "configuration",
        "epochz",
    ),
    "an error of nobody's list": (
        STEPS + TRACE.format(rank=0) + "[rank0]: KeyError: 'lora_A'\n" + LAUNCHER,
        "error",
        "KeyError: 'lora_A'",
    ),
}
