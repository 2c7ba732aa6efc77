"""The reference page of every key, made from the schema: `python -m dpnb.reference` writes it anew.

dpnb/docs/keys.md is committed, so that it can be read where nothing is installed; a test holds it to the schema.
Keys that several kinds of one table have (families, adapters, optimizers) stand once, with the kinds that have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dpnb.importers import eri, transformer_lab
from dpnb.reference_words import default_cell, escape, marks, meaning_cell, type_cell
from dpnb.schema import foreign, foreign_nobody, pytorch_optimizers
from dpnb.schema.base import Section, help_of, ui_of
from dpnb.schema.dataset import Dataset, DirectorySettings
from dpnb.schema.families.base import FamilyFacts, ModelSection
from dpnb.schema.model import FACTS, model_of
from dpnb.schema.training import Training
from dpnb.schema.unions import arm_of, section_types, sections_below, tag_of

_OF_ALL_CLASSES = ("gradient_release", "beta2_half_life")  # diffusion-pipe's own, for any optimizer

PAGE = Path(__file__).with_name("docs") / "keys.md"
COMMAND = "python -m dpnb.reference"

_INTRO = f"""# Every key

What `run.toml`, the training file, and `dataset.toml`, the dataset file, can say. Made from `dpnb/schema` by
`{COMMAND}`: change the schema, not this page.

Without a mark, a key means what it means in diffusion-pipe. **ours** marks what diffusion-pipe does not read;
**not yet** what dpnb's own trainer does not act on yet: a run with a key marked *ignored* gives the same result
in more time or memory, one with a key marked *refused* does not start.
Relative paths count from the folder in which a command is started.
"""


class Key(NamedTuple):
    """One row: cells of a key."""

    name: str
    type: str
    default: str
    meaning: str


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        [_INTRO],
        _training(),
        _dataset(),
        _optimizer_classes(),
        _elsewhere(),
    ]
    return "\n".join(line for part in parts for line in part)


def main() -> None:
    """Write the page into the package."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


# --- the two files ---------------------------------------------------------------------------------------------------


def _training() -> Iterator[str]:
    yield "## The training file\n"
    groups: dict[str, list[Key]] = {}
    for name, info in Training.model_fields.items():
        if not sections_below(info.annotation) or name == "eval_datasets":
            groups.setdefault(ui_of(info).group or "At the top", []).append(_key(Training, name))
    for group, keys in groups.items():
        yield f"### {group}\n"
        yield from _keys(keys)
    yield from _tables_of(Training, "", "###")


def _dataset() -> Iterator[str]:
    yield "## The dataset file\n"
    yield "These keys stand at the top; a folder may say each of them for itself as well, for its own pictures.\n"
    yield from _keys([_key(Dataset, name) for name in DirectorySettings.model_fields if not _is_table(Dataset, name)])
    own = [name for name in Dataset.model_fields if name not in DirectorySettings.model_fields]
    yield "And this one at the top alone:\n"
    yield from _keys([_key(Dataset, name) for name in own if not _is_table(Dataset, name)])
    yield from _tables_of(Dataset, "", "###")


def _tables_of(owner: type[Section], path: str, level: str) -> Iterator[str]:
    """The tables below a section, each under a heading of its own."""
    for name, info in owner.model_fields.items():
        kinds = sections_below(info.annotation)
        if not kinds:
            continue
        here = f"{path}{name}"
        heading = f"[{here}]" if section_types(info.annotation) else f"[[{here}]]"
        needed = "" if info.is_required() else " (optional)"
        own_marks = marks(ours=all(k.ours for k in kinds), pending="" if len(kinds) > 1 else kinds[0].pending)
        yield f"{level} `{heading}`{needed}\n"
        yield " ".join([escape(help_of(owner, name)), *own_marks]) + "\n"
        if len(kinds) > 1:
            yield from _variants(kinds, here, level + "#")
        else:
            names = [n for n in kinds[0].model_fields if not _is_table(kinds[0], n)]
            if owner is Dataset and name == "directory":
                names = [n for n in names if n not in DirectorySettings.model_fields]
            yield from _keys([_key(kinds[0], n) for n in names])
        if name != "directory":
            for kind in _with_tables(kinds):
                yield from _tables_of(kind, f"{here}.", level)


def _with_tables(kinds: Sequence[type[Section]]) -> list[type[Section]]:
    """Of several kinds of one table, one for each set of tables below it."""
    found: dict[tuple[str, ...], type[Section]] = {}
    for kind in kinds:
        below = tuple(name for name in kind.model_fields if _is_table(kind, name))
        if below:
            found.setdefault(below, kind)
    return list(found.values())


def _is_table(owner: type[Section], name: str) -> bool:
    return bool(sections_below(owner.model_fields[name].annotation))


# --- kinds of one table ----------------------------------------------------------------------------------------------


def _variants(kinds: Sequence[type[Section]], name: str, level: str) -> Iterator[str]:
    """The keys that several kinds have, with those kinds; then each kind with its own."""
    having: dict[Key, list[str]] = {}
    for kind in kinds:
        for key in _own_rows(kind):
            having.setdefault(key, []).append(arm_of(kind))
    shared = {key: arms for key, arms in having.items() if len(arms) > 1}
    if name == "model":
        yield from _facts()
    yield f"{level} Keys of several kinds\n"
    everyone = [arm_of(kind) for kind in kinds]
    cells = [(*_cells(key), _who(arms, everyone)) for key, arms in sorted(shared.items(), key=lambda item: item[0])]
    yield from _table(("key", "type", "default", "meaning", "of"), cells)
    for kind in kinds:
        tag = tag_of(kind)
        heading = f'`type = "{tag}"`' if tag else "`type` = any other"
        told = " ".join([_first_line(kind), *marks(ours=kind.ours, pending=kind.pending)])
        own = [key for key in _own_rows(kind) if key not in shared]
        yield f"{level} {heading}\n"
        yield f"{told}{'' if own else ' No keys of its own.'}\n"
        if own:
            yield from _keys(own)


def _own_rows(kind: type[Section]) -> list[Key]:
    return [_key(kind, name) for name in kind.model_fields if tag_of(kind) is None or name != "type"]


def _who(arms: Sequence[str], everyone: Sequence[str]) -> str:
    """The kinds that have a key, the shorter way."""
    others = [arm for arm in everyone if arm not in arms]
    if not others:
        return "all"
    return f"all but {', '.join(others)}" if len(others) < len(arms) else ", ".join(arms)


def _facts() -> Iterator[str]:
    """What each family needs and can."""
    yield "What the families need and can. Sides of pictures are multiples of *sides*; a clip has *frames* frames.\n"
    head = (
        "type", "model", "needs", "sides", "frames", "fps", "pairs", "adapters", "in diffusion-pipe", "all weights",
        "swaps", "captions encoded",
    )  # fmt: skip
    yield from _table(head, [_fact_cells(model_of(family), facts) for family, facts in FACTS.items()])


def _fact_cells(model: type[ModelSection], facts: FamilyFacts) -> tuple[str, ...]:
    offset = f" + {facts.frame_offset}" if facts.frame_offset else ""
    swaps = (
        ("as the weights allow" if facts.max_swap is None else f"up to {facts.max_swap}") if facts.block_swap else ""
    )
    needs = "; or ".join(", ".join(f"`{key}`" for key in keys) for keys in facts.needs)
    return (
        " ".join([f"`{arm_of(model)}`", *marks(ours=model.ours, pending=model.pending)]),
        facts.title,
        needs,
        f"{facts.multiple_px} px",
        f"1 or {facts.frames_per_latent}n{offset}" if facts.video else "1",
        f"{facts.fps:g}" if facts.fps else "",
        "yes" if facts.edit else "",
        ", ".join(facts.adapters),
        ", ".join(facts.upstream_adapters),
        "yes" if facts.full_finetune else "",
        swaps,
        "before training" if facts.cached_text else "while training",
    )


def _optimizer_classes() -> Iterator[str]:
    """The library's classes with their own parameters."""
    yield f"## Optimizers of {pytorch_optimizers.LIBRARY}\n"
    yield (
        "`[optimizer]` takes each of these classes as its `type`, with these parameters and their defaults, besides "
        f"{' and '.join(f'`{key}`' for key in _OF_ALL_CLASSES)}.\n"
    )
    rows, hidden = [], ("type", *_OF_ALL_CLASSES)
    for name in pytorch_optimizers.names():
        fields = (pytorch_optimizers.signature(name) or Section).model_fields
        cells = [f"`{key}` {default_cell(info).strip('`')}" for key, info in fields.items() if key not in hidden]
        rows.append((f"`{name}`", ", ".join(cells)))
    yield from _table(("type", "parameters"), rows)


# --- names elsewhere -------------------------------------------------------------------------------------------------


def _elsewhere() -> Iterator[str]:
    yield "## What other trainers call it\n"
    yield "`dpnb import` reads files of AI Toolkit, EriDiffusion, kohya, musubi-tuner and Transformer Lab.\n"
    yield from _names("Transformer Lab", transformer_lab.PARAMETERS)
    yield from _names("EriDiffusion", eri.PARAMETERS)
    for trainer in (foreign.AI_TOOLKIT, foreign.KOHYA, foreign.MUSUBI, foreign.ONETRAINER, foreign.DIFFUSERS):
        for file in ("training", "dataset"):
            found = foreign.rows(trainer, file)  # type: ignore[arg-type]  # a loop over both Literals
            if found:
                yield from _names(f"{trainer}, {file} file", found)
    nobody = foreign_nobody.TRAINING | foreign_nobody.DATASET
    yield from _names("Keys that people write and nothing reads", nobody)


def _names(title: str, rows: Mapping[str, foreign.Row]) -> Iterator[str]:
    yield f"### {title}\n"
    cells = [
        (f"`{name}`", ", ".join(f"`{key.strip()}`" for key in ours.split(",")) if ours else "none", escape(note))
        for name, (ours, note) in sorted(rows.items(), key=lambda item: item[0].lower())
    ]
    yield from _table(("there", "here", "what is different"), cells)


# --- Markdown --------------------------------------------------------------------------------------------------------


def _key(owner: type[Section], name: str) -> Key:
    info = owner.model_fields[name]
    return Key(name, type_cell(info), default_cell(info), meaning_cell(owner, name))


def _cells(key: Key) -> tuple[str, ...]:
    return (f"`{key.name}`", key.type, key.default, key.meaning)


def _keys(keys: Iterable[Key]) -> Iterator[str]:
    yield from _table(("key", "type", "default", "meaning"), [_cells(key) for key in keys])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _first_line(section: type[Section]) -> str:
    return escape((section.__doc__ or "").strip().partition("\n")[0])


if __name__ == "__main__":
    main()
