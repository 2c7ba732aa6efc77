"""`dpnb sync`, `duplicates`, `repair` and `tag`: tools for a folder of pictures, before it is a dataset.

With --json, stdout is one JSON object for programs. Exit codes as everywhere: 0 well, 1 a problem of the whole; what
is wrong with single files is told, and is no failure.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dpnb.cli_arguments import positive
from dpnb.cli_cache import size_words
from dpnb.errors import DpnbError

if TYPE_CHECKING:
    from dpnb.tools.aside import Change, Tool
    from dpnb.tools.duplicates import Duplicates

_SHOWN = 20  # so many of a kind, without --all
_PROGRESS_EVERY = 50


class _Progress:
    """A line on a terminal that says how far it is; nothing where nobody looks."""

    def __init__(self, verb: str) -> None:
        self._verb, self._shown = verb, False

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty() and (done % _PROGRESS_EVERY == 0 or done == total):
            self._shown = True
            print(f"\r{self._verb} {done:,} of {total:,}", end="", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _listed(lines: list[str], *, everything: bool) -> None:
    shown = lines if everything else lines[:_SHOWN]
    for line in shown:
        print(f"  {line}")
    if len(shown) < len(lines):
        print(f"  and {len(lines) - len(shown):,} more (--all names them)")


# --- repair ----------------------------------------------------------------------------------------------------------


def add_repair(command: argparse.ArgumentParser) -> None:
    """The command line of `dpnb repair`."""
    command.add_argument("folder", type=Path, metavar="FOLDER", help="pictures and captions, with all folders below")
    _add_change(command, "only say what is wrong and what would be done")


def _add_change(command: argparse.ArgumentParser, dry_run: str) -> None:
    how = command.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help=dry_run)
    how.add_argument("--undo", action="store_true", help="take the newest change of the folder back")
    command.add_argument("--all", action="store_true", help="name every file")
    command.add_argument("--json", action="store_true", help="for programs")


def repair(arguments: argparse.Namespace) -> int:
    """`dpnb repair`."""
    from dpnb.tools.repair import look, mend

    if arguments.undo:
        return _undo(arguments, "repair")
    with _Progress("looked at") as progress:
        found = look(arguments.folder, progress=progress)
    change = None if arguments.dry_run else mend(found)
    if arguments.json:
        findings = [finding.to_json() for finding in found.findings]
        _print_json(arguments.folder, change, files=found.files, findings=findings)
        return 0
    mended = [finding.words for finding in found.findings if finding.steps]
    told = [finding.words for finding in found.findings if not finding.steps]
    print(f"{found.files:,} pictures, clips and captions in {found.folder}; {len(found.findings):,} findings")
    if mended:
        print("would be mended:" if arguments.dry_run else "mended:")
        _listed(mended, everything=arguments.all)
    if told:
        print("left to you:")
        _listed(told, everything=arguments.all)
    _tell_change(arguments, change, "repair")
    return 0


def _tell_change(arguments: argparse.Namespace, change: Change | None, tool: Tool) -> None:
    if change is None:
        return
    for why in change.refused:
        print(why, file=sys.stderr)
    if change.place is not None:
        print(f"report, and what was moved aside: {change.place}; take it back with: dpnb {tool} ", end="")
        print(f"{arguments.folder} --undo")


def _print_json(folder: Path, change: Change | None, **more: Any) -> None:  # noqa: ANN401 - plain data
    done = None
    if change is not None:
        place = None if change.place is None else str(change.place)
        done = {"done": change.done, "refused": list(change.refused), "report": place}
    print(json.dumps({"folder": str(folder), **more, "change": done}, indent=1))


def _undo(arguments: argparse.Namespace, tool: Tool) -> int:
    from dpnb.tools.aside import undo

    change = undo(arguments.folder, tool)
    if arguments.json:
        _print_json(arguments.folder, change)
        return 0
    print(f"{change.place}: undone")
    for why in change.refused:
        print(why, file=sys.stderr)
    return 0


# --- duplicates ------------------------------------------------------------------------------------------------------


def add_duplicates(command: argparse.ArgumentParser) -> None:
    """The command line of `dpnb duplicates`."""
    from dpnb.tools import DEFAULT_THRESHOLD

    command.add_argument("folder", type=Path, metavar="FOLDER", help="pictures and clips, with all folders below")
    words = (
        f"how many of 128 bits of two pictures may differ: 0 to 64, -1 for equal files; default {DEFAULT_THRESHOLD}"
    )
    command.add_argument("--threshold", type=int, default=DEFAULT_THRESHOLD, metavar="BITS", help=words)
    _add_change(command, "only say which pictures are copies, and which would be kept")


def duplicates(arguments: argparse.Namespace) -> int:
    """`dpnb duplicates`."""
    from dpnb.tools.duplicates import find_duplicates, set_aside

    if arguments.undo:
        return _undo(arguments, "duplicates")
    with _Progress("looked at") as progress:
        found = find_duplicates(arguments.folder, threshold=arguments.threshold, progress=progress)
    change = None if arguments.dry_run else set_aside(found)
    if arguments.json:
        groups = [[copy.to_json(found.folder) for copy in group] for group in found.groups]
        _print_json(
            arguments.folder,
            change,
            files=found.files,
            groups=groups,
            unreadable=list(found.unreadable),
            passed=list(found.passed),
        )
        return 0
    words = "would go aside" if arguments.dry_run else "are aside"
    print(f"{found.files:,} pictures and clips in {found.folder}; {found.extra:,} copies {words}", end="")
    print(f" ({size_words(found.extra_bytes)})" if found.extra else "")
    _listed(_group_words(found), everything=arguments.all)
    for why in found.passed:
        print(f"passed by: {why}")
    if found.unreadable:
        print("cannot be read, see dpnb repair:")
        _listed(list(found.unreadable), everything=arguments.all)
    _tell_change(arguments, change, "duplicates")
    return 0


def _group_words(found: Duplicates) -> list[str]:
    lines = []
    for kept, *others in found.groups:
        names = [f"{copy.path.relative_to(found.folder)} ({copy.kind})" for copy in others]
        lines.append(f"{kept.path.relative_to(found.folder)} is kept; {', '.join(names)}")
    return lines


# --- tag -------------------------------------------------------------------------------------------------------------


def add_tag(command: argparse.ArgumentParser) -> None:
    """The command line of `dpnb tag`."""
    from dpnb.dataset.tagged import DEFAULT_LONGEST_PX, DEFAULT_TOKENS, TAG_STEPS

    command.add_argument(
        "folder", type=Path, metavar="FOLDER", help="its raw/ holds the pictures, its train/ gets them"
    )
    command.add_argument("--model", type=Path, metavar="DIR", help="folder of a vision-language model")
    steps = f"some of {', '.join(TAG_STEPS)}; default: the first two"
    command.add_argument("--steps", nargs="+", choices=TAG_STEPS, metavar="STEP", help=steps)
    command.add_argument("--prompt", help="what the model is asked for the long caption")
    command.add_argument("--short-prompt", metavar="PROMPT", help="and for the short one")
    command.add_argument("--write", choices=("long", "short"), help="the caption for the .txt file; default: long")
    tokens = f"the longest caption; default: {DEFAULT_TOKENS}"
    command.add_argument("--max-new-tokens", type=positive, metavar="N", help=tokens)
    longest = f"the model sees no longer side than this; default: {DEFAULT_LONGEST_PX}"
    command.add_argument("--longest-px", type=positive, metavar="N", help=longest)
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), help="default: a GPU where there is one")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--wait", action="store_true", help="show progress until it is done")
    what.add_argument("--status", action="store_true", help="only say how far it is")
    what.add_argument("--stop", action="store_true", help="stop it after the picture it is at")


def tag(arguments: argparse.Namespace) -> int:
    """`dpnb tag`."""
    from dpnb.runs.progress import follow
    from dpnb.tools import tagging

    if arguments.status or arguments.stop:
        run = tagging.attach(arguments.folder)
        if run is None:
            raise DpnbError(f"no tagger was ever started in {arguments.folder}: start one with --model DIR")
        if arguments.stop:
            run.stop()
        status = run.status
        print(f"{run.state}: {status.step} of {status.total_steps} pictures; {status.last_error or status.detail}")
        return 0
    run = tagging.start(_job(arguments))
    print(run.path, flush=True)
    if not arguments.wait:
        return 0
    code = follow(run)
    return 0 if code is None else min(abs(code), 1)


def _job(arguments: argparse.Namespace) -> Any:  # noqa: ANN401 - a TagJob, of a module that is imported late
    from dpnb.dataset.tagged import TagJob

    asked: dict[str, Any] = {name: getattr(arguments, name) for name in ("prompt", "short_prompt", "write", "device")}
    asked |= {"max_new_tokens": arguments.max_new_tokens, "longest_px": arguments.longest_px}
    asked["steps"] = None if arguments.steps is None else tuple(arguments.steps)
    model = "" if arguments.model is None else str(arguments.model)
    return TagJob(str(arguments.folder), model, **{name: value for name, value in asked.items() if value is not None})


# --- sync ------------------------------------------------------------------------------------------------------------


def add_sync(command: argparse.ArgumentParser) -> None:
    """The command line of `dpnb sync`."""
    from dpnb.tools import DEFAULT_LEAST_PX

    command.add_argument(
        "host", choices=("unsplash", "pexels"), help="UNSPLASH_ACCESS_KEY or PEXELS_API_KEY holds the key"
    )
    command.add_argument("collection", metavar="COLLECTION", help="its id, or the address of its page")
    command.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="its raw/ gets the photos")
    least = f"pixels; smaller photos are passed over; default: {DEFAULT_LEAST_PX}"
    command.add_argument("--min-width", type=positive, default=DEFAULT_LEAST_PX, metavar="N", help=least)
    command.add_argument("--min-height", type=positive, default=DEFAULT_LEAST_PX, metavar="N", help="likewise")
    short = "let the host scale larger photos down to this shorter side; default: as they are"
    command.add_argument("--short-side", type=positive, metavar="N", help=short)
    command.add_argument("--most", type=positive, metavar="N", help="so many new photos at most")
    command.add_argument("--api", metavar="URL", help="another address of the API, such as a proxy of your own")
    command.add_argument("--json", action="store_true", help="for programs")


def sync(arguments: argparse.Namespace) -> int:
    """`dpnb sync`; 1 when some photo could not be fetched, so that a script runs it again."""
    from dpnb.tools.sync import Sizes
    from dpnb.tools.sync import sync as fetch
    from dpnb.tools.web import Web

    def tell(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    with _Progress("fetched") as progress:
        done = fetch(
            arguments.host,
            arguments.collection,
            arguments.out,
            sizes=Sizes(arguments.min_width, arguments.min_height, arguments.short_side),
            most=arguments.most,
            api=arguments.api,
            web=replace(Web(), tell=tell),
            progress=progress,
        )
    if arguments.json:
        print(json.dumps(asdict(done), indent=1))
    else:
        print(f"{arguments.out}: {done}")
        for words, names in (("failed", done.refused), ("has left the collection", done.left)):
            for name in names:
                print(f"  {words}: {name}")
        if done.unfinished:
            print(f"  not finished: {done.unfinished}")
    return int(bool(done.refused))
