"""TensorBoard as a child that cannot outlive its parent: it ends when its standard input does.

    python -m dpnb.tensorboard_server --logdir DIR --host 127.0.0.1 --port 6006

The parent holds the other end of a pipe, which the system closes however the parent ends, kill -9 included.
"""

from __future__ import annotations

import os
import sys
import threading


def main() -> None:
    """Serve until standard input ends."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    from tensorboard.main import run_main

    sys.argv[0] = "tensorboard"
    run_main()


def _end_with_input() -> None:
    while sys.stdin.buffer.read(1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
