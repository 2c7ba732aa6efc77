"""Paths of a configuration: whether what they name is there, and whether a model folder is what its family needs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from stat import S_ISDIR

from dpnb.errors import Loc, Problem
from dpnb.schema.base import PathKind, Section, ui_of, walk
from dpnb.schema.model import FACTS
from dpnb.schema.training import Training


def check_paths(section: Section) -> list[Problem]:
    """Every path of a schema object that must exist and does not."""
    found: list[Problem] = []
    for loc, info, value in walk(section):
        kind = ui_of(info).path
        if kind is not None:
            found += check_paths_at(loc, value, kind)
    return found


def check_paths_at(loc: Loc, value: object, kind: PathKind) -> list[Problem]:
    """What is wrong with the value of a key of paths: one, or a list of them. Nothing about values of other types."""
    if isinstance(value, list):
        items = [((*loc, i), item) for i, item in enumerate(value)]
        return [problem for here, item in items if isinstance(item, str) for problem in check_path(here, item, kind)]
    return check_path(loc, value, kind) if isinstance(value, str) else []


def check_path(loc: Loc, value: str, kind: PathKind) -> list[Problem]:
    """What is wrong with one path. Relative paths count from the working directory, as diffusion-pipe's do."""
    wanted = {
        "dir": "folder",
        "file": "file",
        "path": "file or folder",
        "output_dir": "folder",
        "pictures": "folder or .tar file",
    }[kind]
    if not value:
        return [Problem("error", "path", loc, "must not be empty.", f"Name a {wanted}.")]
    # A message stays on one line, whatever the path holds.
    shown = f"'{value}'" if value.isprintable() else repr(value)
    found = kind_of_path(value)
    if kind == "output_dir":
        obstacle = _in_the_way(Path(value))
        if not obstacle:
            return []
        return [Problem("error", "path", loc, f"{shown} cannot be created: {obstacle}.", "Name another folder.")]
    if kind == "pictures":
        kind = "file" if value.lower().endswith(".tar") else "dir"
    if found == kind or (kind == "path" and found in ("dir", "file")):
        return []
    if found in ("dir", "file"):
        return [Problem("error", "path", loc, f"{shown} is not a {wanted}.", f"Name a {wanted}.")]
    message = f"{shown} cannot be read: {found}." if found else f"{shown} does not exist."
    return [Problem("error", "path", loc, message, _what_to_do(value))]


def kind_of_path(value: Path | str) -> str:
    """What stands at a path: "dir", "file", an empty text for nothing, or why that cannot be told."""
    try:
        return "dir" if S_ISDIR(Path(value).stat().st_mode) else "file"
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:  # no permission, a name that is too long, links in a circle
        return error.strerror or str(error)
    except ValueError:  # a zero byte
        return "it holds a zero byte"


def _in_the_way(path: Path) -> str:
    """Why the folder cannot be made, or an empty text: some ancestor is a file, or cannot be looked at."""
    for ancestor in (path, *path.parents):
        found = kind_of_path(ancestor)
        if found:
            return "" if found == "dir" else f"'{ancestor}' is a file" if found == "file" else found
    return ""


def _what_to_do(value: str) -> str:
    if value.startswith("~"):
        return f"'~' is not expanded in a TOML file: write the full path, such as '{os.path.expanduser(value)}'."  # noqa: PTH111 - Path.expanduser raises for an unknown user
    if "$" in value:
        return "Variables are not expanded in a TOML file: write the full path."
    if "\\" in value and os.sep == "/":
        return "Folders are separated by / here: write the path with / instead of \\ (under WSL, C: is /mnt/c)."
    if not Path(value).is_absolute():
        return f"Relative paths count from the working directory ({Path.cwd()}): correct it, or write the full path."
    return "Correct the path."


def check_model_folder(training: Training) -> list[Problem]:
    """Does diffusers_path hold a whole model of the family that is asked for? Nothing about a folder that is not, nor
    for families whose folder is not known here."""
    model, loc, facts = training.model, ("model", "diffusers_path"), FACTS[training.model.type]
    folder = Path(getattr(model, "diffusers_path", None) or "")
    if not facts.components or not folder.name or not folder.is_dir():
        return []

    def problem(message: str, suggestion: str) -> Problem:
        return Problem("error", "path", loc, message, suggestion)

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        hint = "Name a folder in diffusers format, as `huggingface-cli download REPOSITORY` makes it."
        return [problem(f"'{folder}' has no readable model_index.json.", hint)]
    found = []
    missing = [name for name in facts.components if not (folder / name).is_dir()]
    if missing:
        found.append(problem(f"'{folder}' lacks {', '.join(missing)}.", "Download the model again, whole."))
    entry = index.get("transformer") if isinstance(index, dict) else None
    seen = entry[-1] if isinstance(entry, list) and entry else None
    if seen is not None and seen != facts.network:
        message = f"'{folder}' holds a {seen}; {facts.title} is a {facts.network}."
        found.append(problem(message, "Change model.type or the folder."))
    own_network = "transformer" not in missing and getattr(model, "transformer_path", None) is None
    if own_network and not any((folder / "transformer").glob("*.safetensors")):
        message = f"'{folder / 'transformer'}' holds no .safetensors file."
        found.append(problem(message, "Download the model again, whole."))
    return found
