"""What it costs to start: whole processes, so the interpreter's own start is in every row."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from timing import median_seconds, show

TRAINING = """\
output_dir = "out"
dataset = "dataset.toml"
epochs = 10
save_every_n_epochs = 1
[model]
type = "flux"
diffusers_path = "model"
dtype = "bfloat16"
[adapter]
type = "lora"
rank = 16
[optimizer]
type = "adamw"
lr = 2e-5
"""
DATASET = """\
resolutions = [512]
[[directory]]
path = "pictures"
"""
STATEMENTS = {
    "bare python": "pass",
    "pydantic": "from pydantic import BaseModel",
    "import dpnb": "import dpnb",
    "dpnb.toml (schema, tomlkit)": "import dpnb.toml",
    "dpnb.TrainingForm": "import dpnb; dpnb.TrainingForm",
    "dpnb validate (limit 600 ms)": "import sys; from dpnb.cli import start; sys.exit(start())",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.toml").write_text(TRAINING)
        (folder / "dataset.toml").write_text(DATASET)
        command = ["validate", "--no-paths", str(folder / "run.toml")]
        rows = {
            name: median_seconds(
                lambda code=code: subprocess.run(
                    [sys.executable, "-c", code, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder
                ),
                repeats=9,
            )
            for name, code in STATEMENTS.items()
        }
    show("start-up", rows)


if __name__ == "__main__":
    main()
