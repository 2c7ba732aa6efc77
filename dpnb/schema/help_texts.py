"""The help of fields: the string literals below them, read from the source of their class.

They are read when a help is asked for, not when classes are made: checking a file needs none of them. What is not
here: which text is whose where a section inherits fields (`help_of` in base.py).
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from types import FrameType


@cache
def texts_of_module(name: str) -> dict[str, dict[str, str]]:
    """For each class of a module, by its qualified name, the text below each of its fields; {} without a source."""
    try:
        return _texts_of_source(inspect.getsource(sys.modules[name]))
    except (KeyError, OSError, TypeError):
        return {}


def texts_of_running_source(cls: type) -> dict[str, str]:
    """The text below each field of a class that is being made in a notebook's cell or a script."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != cls.__module__:
        frame = frame.f_back
    if frame is None:
        return {}
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    return _texts_of_source(source).get(cls.__qualname__, {})


def _texts_of_source(source: str) -> dict[str, dict[str, str]]:
    try:
        return dict(_texts_in(ast.parse(source)))
    except SyntaxError:  # a cell with %magic lines; the help is lost, nothing else
        return {}


def _texts_in(node: ast.AST, path: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.ClassDef(name=name, body=body):
                yield f"{path}{name}", dict(_texts_below_fields(body))
                yield from _texts_in(child, f"{path}{name}.")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield from _texts_in(child, f"{path}{name}.<locals>.")
            case ast.stmt():
                yield from _texts_in(child, path)


def _texts_below_fields(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
