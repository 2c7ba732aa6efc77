"""What the tests of whole runs share: a project with drawn pictures, and the argv of a real DeepSpeed launch."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from dpnb import toml
from dpnb.schema import (
    AdamW,
    EvalDataset,
    FluxModel,
    LoraAdapter,
    Prompt,
    Sampling,
    Training,
)
from trainer.tiny import model_dir

ONE_THREAD = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
STEPS_PER_EPOCH = 6


@dataclass(frozen=True)
class Project:
    """A folder with pictures and dataset files; `write` puts a training file into it."""

    root: Path

    def training(self, **changes: object) -> Training:
        """A complete training file for this project: 6 steps an epoch of 2 x 2 examples in two buckets."""
        values: dict[str, object] = {
            "output_dir": str(self.root / "runs"),
            "dataset": str(self.root / "dataset.toml"),
            "epochs": 2,
            "micro_batch_size_per_gpu": 2,
            "gradient_accumulation_steps": 2,
            "save_every_n_epochs": 2,
            "checkpoint_every_n_epochs": 1,
            "cache_dir": str(self.root / "cache"),
            "model": FluxModel(diffusers_path=str(model_dir()), dtype="float32"),
            "adapter": LoraAdapter(rank=4),
            "optimizer": AdamW(lr=2e-3),
        }
        return Training(**(values | changes))

    def write(self, name: str, **changes: object) -> Path:
        """Write `<name>.toml` whose runs go below `runs-<name>/`."""
        changes.setdefault("output_dir", str(self.root / f"runs-{name}"))
        path = self.root / f"{name}.toml"
        path.write_text(toml.dump(self.training(**changes)))
        return path

    @property
    def held_out(self) -> list[EvalDataset]:
        return [EvalDataset(name="held", config=str(self.root / "held.toml"))]

    @property
    def sample(self) -> Sampling:
        return Sampling(
            prompts=[Prompt(text="a zorbi on a white background"), Prompt(text="a red circle", width=96)],
            every_n_epochs=1,
            width=64,
            height=64,
            steps=4,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def deepspeed(config: Path, *arguments: str, processes: int = 1) -> list[str]:
    launcher = Path(sys.executable).parent / "deepspeed"
    options = ["--num_gpus", str(processes), "--master_port", str(free_port())]
    return [str(launcher), *options, "--module", "trainer.train", "--config", str(config), *arguments]
