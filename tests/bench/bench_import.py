"""What it costs to start: whole processes, so the interpreter's own start is in every row."""

from __future__ import annotations

import subprocess
import sys

from timing import median_seconds, show

STATEMENTS = {
    "bare python": "pass",
    "import dpnb": "import dpnb",
    "dpnb.toml (schema, tomlkit)": "import dpnb.toml",
    "dpnb.TrainingForm": "import dpnb; dpnb.TrainingForm",
}


def main() -> None:
    rows = {
        name: median_seconds(lambda code=code: subprocess.run([sys.executable, "-c", code], check=True))
        for name, code in STATEMENTS.items()
    }
    show("start-up", rows)


if __name__ == "__main__":
    main()
