"""Forward and backward of the embedded model: CPU threads that wait by spinning (libgomp's default) or asleep (ours).

Each in a process of its own, since libgomp reads OMP_WAIT_POLICY once; alone, and beside one busy process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from timing import median_seconds, show

REPEATS = 10
POLICIES = {"spinning": "ACTIVE", "libgomp's default": None, "asleep": "PASSIVE"}


def step_seconds() -> float:
    """Median of one forward and backward pass on all cores."""
    import torch
    from diffusers import FluxTransformer2DModel

    from trainer.tiny import model_dir

    transformer = FluxTransformer2DModel.from_pretrained(model_dir() / "transformer")
    config, batch, tokens, texts = transformer.config, 4, 64, 32
    inputs = {
        "hidden_states": torch.randn(batch, tokens, config.in_channels),
        "encoder_hidden_states": torch.randn(batch, texts, config.joint_attention_dim),
        "pooled_projections": torch.randn(batch, config.pooled_projection_dim),
        "timestep": torch.full((batch,), 0.5),
        "guidance": torch.ones(batch),
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(texts, 3),
    }
    return median_seconds(lambda: transformer(**inputs)[0].square().mean().backward(), repeats=REPEATS)


def measured(policy: str | None) -> float:
    """The same in a process with that policy; `None` takes ours away, which importing trainer would set."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if policy is not None:
        environment["OMP_WAIT_POLICY"] = policy
    argv = [sys.executable, __file__, "step"]
    return float(subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    for title, neighbours in (("alone", 0), ("beside a busy process", 1)):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
        try:
            time.sleep(1)
            rows = {
                name: statistics.median(measured(policy) for _ in range(3))
                for name, policy in reversed(POLICIES.items())
            }
        finally:
            for process in busy:
                process.kill()
                process.wait()
        show(f"one forward and backward pass, {os.cpu_count()} cores, {title}", rows)


if __name__ == "__main__":
    if sys.argv[1:] == ["step"]:
        import torch  # noqa: F401 - loads libgomp before trainer is imported, which would set the policy

        print(step_seconds())
    else:
        main()
