"""`dpnb cache`: how large the cache of latents and embeds is, and what no run needs any more.

    dpnb cache [DIR] [--prune DAYS [--dry-run]] [--json]

DIR is what cache_dir names in a training file; without it the cache of those that name none. An entry that a run asks
for after it was removed is encoded again: pruning costs time, never a picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpnb.dataset.cache_folder import Share

_WORDS = {
    "latents": "pictures",
    "masks": "masks",
    "text": "captions",
    "tried": "tried",
    "old": "old layout",
    "tmp": "unfinished",
}
_STEP = 1024


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command line of `dpnb cache`."""
    command.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="cache_dir; default: the cache of all runs"
    )
    command.add_argument(
        "--prune", type=_days, metavar="DAYS", help="remove entries that no run has asked for in so many days"
    )
    command.add_argument("--dry-run", action="store_true", help="only say what --prune would remove")
    command.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out. Raises `RunError` for a cache that cannot be read or pruned."""
    from dpnb.dataset.cache_folder import default_root, prune, usage

    root = arguments.folder or default_root()
    removed = None
    if arguments.prune is not None:
        removed = prune(root, unused_days=arguments.prune, remove=not arguments.dry_run)
    found = usage(root)
    if arguments.json:
        told = {kind: {"entries": own.entries, "bytes": own.size_bytes} for kind, own in found.items()}
        if removed is not None:
            told["removed"] = {"entries": removed.entries, "bytes": removed.size_bytes}
        print(json.dumps({"folder": str(root), "kinds": told}, indent=1))
        return 0
    print(root)
    for kind, own in found.items():
        if own.entries or kind not in ("tried", "old", "tmp"):
            print(f"  {_WORDS[kind]:<11} {_count(own)}")
    if removed is not None:
        print(f"{'would be removed' if arguments.dry_run else 'removed'}: {_count(removed)}")
    return 0


def _days(text: str) -> float:
    number = float(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return number


def _count(share: Share) -> str:
    entries = f"{share.entries} entr{'y' if share.entries == 1 else 'ies'}"
    return f"{entries}, {size_words(share.size_bytes)}"


def size_words(size_bytes: int) -> str:
    """A number of bytes as a person says it: `1.5 GiB`."""
    size, unit = float(size_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < _STEP:
            break
        size, unit = size / _STEP, larger
    return f"{size_bytes} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
