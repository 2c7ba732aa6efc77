"""The files of other trainers as trees of plain values, every problem with file and line.

`read_source` parses TOML, YAML and JSON by the file's ending; `Node` is one table of a tree: it knows its way from the
root, checks the types of what is taken out, and remembers what was not. What is not here: what keys mean (one module
for each trainer).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from dpnb.errors import ConfigError, Loc, Problem
from dpnb.toml.places import nearest_place, places
from dpnb.toml.secrets import masked
from dpnb.toml.syntax import parse, read
from dpnb.toml.words import show

MOST_VALUES = 100_000  # a file with more is no configuration: YAML's aliases can stand for billions
DEEPEST = 50
YAML_ENDINGS = (".yaml", ".yml")
ENDINGS = (*YAML_ENDINGS, ".json", ".toml")
_VARIABLE = re.compile(r"\$\{([^}]+)\}")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file: its tree and where each key of it stands."""

    path: Path
    root: dict[str, Any]
    places: dict[Loc, tuple[int, int]]

    def problem(self, loc: Loc, message: str, suggestion: str) -> Problem:
        """An error at a key of this file."""
        problem = Problem("error", "value", loc, self.without_secrets(message), suggestion)
        return problem.at(self.path, *nearest_place(self.places, loc))

    def without_secrets(self, words: str) -> str:
        """Words that may show values of this file, without its secrets."""
        return masked([Problem("error", "value", (), words)], self.root)[0].message

    def fail(self, loc: Loc, message: str, suggestion: str) -> NoReturn:
        """Raise the error at a key of this file."""
        raise ConfigError([self.problem(loc, message, suggestion)])


def read_source(path: Path | str, environment: Mapping[str, str]) -> Source:
    """Parse a file by its ending; raises `ConfigError` with the line where the parser knows it.

    `${NAME}` in YAML and JSON is replaced from `environment` before parsing, everywhere in the text, as AI
    Toolkit does.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        message = f"'{path.suffix}' is not an ending of a file that can be imported."
        hint = "AI Toolkit's files end in .yaml, .yml or .json, kohya's in .toml, Transformer Lab's in .json."
        raise ConfigError([Problem("error", "path", (), message, hint, str(path))])
    text = read(path)
    if ending == ".toml":
        return Source(path, _tree(path, parse(path, text)), places(text))
    text = _substitute(path, text.removeprefix("\ufeff"), environment)
    tree = _yaml(path, text) if ending in YAML_ENDINGS else _json(path, text)
    return Source(path, _tree(path, tree), _yaml_places(text))


# --- parsing ---------------------------------------------------------------------------------------------------------


def _substitute(path: Path, text: str, environment: Mapping[str, str]) -> str:
    problems = []
    for found in _VARIABLE.finditer(text):
        if found[1] not in environment:
            line = text.count("\n", 0, found.start()) + 1
            column = found.start() - text.rfind("\n", 0, found.start())
            message = f"the environment variable {found[1]!r} is not set."
            hint = "Set it, or write the value in place of ${...}; AI Toolkit replaces it in comments too."
            problems.append(Problem("error", "value", (), message, hint).at(path, line, column))
    if problems:
        raise ConfigError(problems)
    return _VARIABLE.sub(lambda found: environment[found[1]], text)


def _json(path: Path, text: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ConfigError([_too_deep(path)]) from error
    except json.JSONDecodeError as error:
        message, line, column = f"{error.msg}.", error.lineno, error.colno
        hint = "This is not valid JSON: look at this line and the one before it. JSON has no comments."
        raise ConfigError([Problem("error", "syntax", (), message, hint).at(path, line, column)]) from error
    except ValueError as error:
        message = "a number has too many digits."
        raise ConfigError([Problem("error", "syntax", (), message, "Shorten it.").at(path, 1, 1)]) from error


def _yaml(path: Path, text: str) -> Any:  # noqa: ANN401 - any YAML
    import yaml

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - a SafeLoader with one more number format
    except RecursionError as error:
        raise ConfigError([_too_deep(path)]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        message = f"{said}."
        hint = "This is not valid YAML: look at this line and the one before it, at spaces above all."
        raise ConfigError([Problem("error", "syntax", (), message, hint).at(path, line, column)]) from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # PyYAML's own constructors fail like this on a tag that its value does not fit, such as `!!int x`.
        message = "a value does not fit its type, such as a date that no calendar has."
        raise ConfigError([Problem("error", "syntax", (), message, "Put it in quotes.").at(path, 1, 1)]) from error


def _loader() -> Any:  # noqa: ANN401 - PyYAML has no types
    """A SafeLoader that takes 1e-4 for a number, as AI Toolkit's does; YAML 1.1 takes it for a text."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    number = r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$"
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(number), list("-+0123456789."))
    return Loader


def _yaml_places(text: str) -> dict[Loc, tuple[int, int]]:
    """Line and column of each key of a YAML text (JSON is nearly YAML); empty where PyYAML cannot tell."""
    import yaml

    found: dict[Loc, tuple[int, int]] = {}

    def visit(node: Any, loc: Loc) -> None:  # noqa: ANN401 - PyYAML has no types
        if len(found) >= MOST_VALUES or len(loc) > DEEPEST:
            return
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*loc, str(key.value))
                found[here] = (key.start_mark.line + 1, key.start_mark.column + 1)
                visit(value, here)
        elif isinstance(node, yaml.SequenceNode):
            for position, value in enumerate(node.value):
                found[(*loc, position)] = (value.start_mark.line + 1, value.start_mark.column + 1)
                visit(value, (*loc, position))

    try:
        visit(yaml.compose(text, Loader=yaml.SafeLoader), ())
    except (yaml.YAMLError, RecursionError):
        return {}
    return found


def _tree(path: Path, tree: Any) -> dict[str, Any]:  # noqa: ANN401 - any parsed file
    """The parsed file as dicts, lists, texts, numbers and None, each its own; aliases are written out."""
    seen = 0

    def copy(value: Any, depth: int) -> Any:  # noqa: ANN401 - any parsed file
        nonlocal seen
        seen += 1
        if seen > MOST_VALUES or depth > DEEPEST:
            raise ConfigError([_too_deep(path)])
        if isinstance(value, dict):
            return {str(key): copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set):
            return [copy(item, depth + 1) for item in value]
        return value if value is None or isinstance(value, str | bool | int | float) else str(value)

    copied = copy(tree, 0)
    if not isinstance(copied, dict):
        seen_words = "nothing" if copied is None else f"no table but {show(copied)}"
        message = f"holds {seen_words}."
        raise ConfigError(
            [Problem("error", "syntax", (), message, "Name the configuration of a training.", str(path))]
        )
    return copied


def _too_deep(path: Path) -> Problem:
    message = f"holds more than {MOST_VALUES} values, or tables more than {DEEPEST} deep."
    return Problem("error", "syntax", (), message, "This is no configuration of a training.").at(path, 1, 1)


# --- tables ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Node:
    """One table of a source. Getters check the type and raise a `ConfigError` at the key; null counts as unset."""

    source: Source
    data: dict[str, Any]
    loc: Loc = ()
    taken: set[str] = field(default_factory=set)

    def at(self, key: str) -> Loc:
        """The way from the root to a key of this table."""
        return (*self.loc, key)

    def has(self, key: str) -> bool:
        """Is the key set, to anything but null?"""
        return self.data.get(key) is not None

    def any(self, key: str) -> Any:  # noqa: ANN401 - whatever the file holds
        """A value of any type, or None."""
        self.taken.add(key)
        return self.data.get(key)

    def text(self, key: str) -> str | None:
        """A text, or None where the key is not set."""
        value = self.any(key)
        return value if value is None or isinstance(value, str) else self._wrong(key, "a text")

    def flag(self, key: str) -> bool | None:
        """True or false, or None where the key is not set."""
        value = self.any(key)
        if isinstance(value, str) and value.lower() in (*_TRUE, *_FALSE):
            return value.lower() in _TRUE
        return value if value is None or isinstance(value, bool) else self._wrong(key, "true or false")

    def number(self, key: str) -> float | None:
        """A finite number, also one in quotes, or None where the key is not set."""
        value = self.any(key)
        number = as_number(value)
        return number if value is None or number is not None else self._wrong(key, "a number")

    def whole(self, key: str) -> int | None:
        """A whole number, also one in quotes or with .0, or None where the key is not set."""
        number = self.number(key)
        if number is None:
            return None
        return int(number) if float(number).is_integer() else self._wrong(key, "a whole number")

    def texts(self, key: str) -> list[str]:
        """A list of texts; a bare text is a list of one, an unset key an empty list."""
        value = self.any(key)
        if value is None:
            return []
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            self._wrong(key, "a list of texts")
        return items

    def table(self, key: str) -> Node:
        """A table below this one; an empty one where the key is not set."""
        value = self.any(key)
        if value is not None and not isinstance(value, dict):
            self._wrong(key, "a table")
        return Node(self.source, value or {}, self.at(key))

    def tables(self, key: str) -> list[Node]:
        """A list of tables; an empty one where the key is not set, one of one for a bare table."""
        value = self.any(key)
        items = [value] if isinstance(value, dict) else value or []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            self._wrong(key, "a list of tables")
        return [Node(self.source, item, (*self.at(key), i)) for i, item in enumerate(items)]

    def rest(self) -> Iterator[tuple[Loc, str, Any]]:
        """What nobody has taken: the way, the key, the value. Keys set to null mean nothing and are left out."""
        for key, value in self.data.items():
            if key not in self.taken and value is not None:
                yield self.at(key), key, value

    def _wrong(self, key: str, wanted: str) -> NoReturn:
        self.source.fail(self.at(key), f"{show(self.data[key])} is not {wanted}.", f"Write {wanted}.")


def as_number(value: Any) -> float | None:  # noqa: ANN401 - whatever the file holds
    """The number that a value is or, as text, spells; None for anything else and for inf and nan."""
    if isinstance(value, str):
        try:
            value = float(value) if re.search(r"[.eE]", value) else int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None
