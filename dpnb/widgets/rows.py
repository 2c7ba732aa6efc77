"""One field of a form: its control, and below it help, what differs from the default, and what the validator says.

A number has two buttons beside it that take it a step down or up. They are buttons since a text field of ipywidgets
tells of no keys, and a number field of the browser would neither take `1_000` nor show 2e-5 as it was typed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from dpnb.errors import Loc, Problem
from dpnb.widgets.controls import Control, Host, show_list, show_rate
from dpnb.widgets.draft import UNSET, Draft
from dpnb.widgets.look import close_tree, escape, set_class
from dpnb.widgets.shapes import Spec
from dpnb.widgets.stepping import Direction, is_number, steps_of

LONG_DEFAULT = 40  # characters of a default that are shown


class Row:
    """A field with its note, and a Reset button from the moment on that it differs from its default."""

    def __init__(self, host: Host, spec: Spec, *, alone: bool = False, found: bool = False) -> None:
        """`alone`: the field has a page to itself, whose title says its name. `found`: it is a result of a search,
        shown even where it has no effect."""
        self.host, self.spec, self.found = host, spec, found
        self.control: Control = host.control_for(spec)
        self.note = host.look.html("", "dpnb-note")
        self.reset: Any = None
        self.nested = spec.shape.holds_sections
        self._heading = f"<h4>{escape(spec.label)}</h4>" if self.nested and not alone else ""
        self._steps = steps_of(spec)
        self._step_buttons = self._make_step_buttons() if self._steps is not None else ()
        field = (self.control.widget, *self._step_buttons)
        parts = (self.note, *field) if self.nested else (*field, self.note)
        wide = self.nested or spec.ui.multiline or spec.is_table or spec.ui.path is not None
        classes = [name for name, on in (("dpnb-wide", wide), ("dpnb-stepped", self._steps is not None)) if on]
        self.widget = host.look.box(parts, "dpnb-cell", *classes)

    def _make_step_buttons(self) -> tuple[Any, ...]:
        """Two buttons with a sign to see, and the field's name for who hears it."""
        buttons = []
        for word, direction in (("down", -1), ("up", 1)):
            tooltip = f"{self.spec.label}: one step {word}"
            button = self.host.look.button(tooltip, "dpnb-step", f"dpnb-step-{word}")
            button.on_click(lambda _, direction=direction: self._step(direction))
            buttons.append(button)
        return tuple(buttons)

    def _step(self, direction: Direction) -> None:
        value = self.host.draft.value(self.spec)
        if self._steps is not None and (value is None or is_number(value)):
            self.host.edited(self.spec.loc, self._steps.step(value, direction))

    def refresh(self) -> None:
        """Show value, help and problems of the field as they are now."""
        self.control.refresh()
        draft, spec = self.host.draft, self.spec
        problems = [p for p in self.host.problems if belongs(p.loc, spec.loc, exactly=self.nested)]
        applies, changed = draft.applies(spec), draft.changed(spec)
        # What has been set is shown even where it has no effect: nobody can take out what is out of sight.
        set_class(self.widget, "dpnb-hidden", not (applies or problems or changed or self.found))
        set_class(self.widget, "dpnb-bad", any(p.severity == "error" for p in problems) and not self.nested)
        idle = "" if applies or problems else '<span class="dpnb-quiet">Without effect as things are.</span> '
        value = draft.value(spec)
        for button in self._step_buttons:
            # A text that is no number yet, or a list where a number may stand too, shall not be lost to a click.
            set_class(button, "dpnb-hidden", not (value is None or is_number(value)))
        self.note.value = self._heading + idle + note_html(spec, draft, problems)
        self._offer_reset(not self.nested and changed)

    def _offer_reset(self, offered: bool) -> None:
        """Show or hide the button; it is made when it is first needed, since most fields never need one."""
        if offered and self.reset is None:
            tooltip = f"Set {self.spec.label} back to its default"
            self.reset = self.host.look.button("Reset", "dpnb-small", "dpnb-reset", tooltip=tooltip)
            self.reset.on_click(lambda _: self.host.edited(self.spec.loc, UNSET))
            self.widget.children = (*self.widget.children, self.reset)
        if self.reset is not None:
            set_class(self.reset, "dpnb-hidden", not offered)

    def close(self) -> None:
        """Close every widget of the row."""
        self.control.close()
        close_tree(self.widget)


def belongs(found: Loc, loc: Loc, *, exactly: bool) -> bool:
    """A section's head shows what is said of the section itself, a field also what is said of a part of it."""
    return found == loc if exactly else found[: len(loc)] == loc


def note_html(spec: Spec, draft: Draft, problems: Sequence[Problem]) -> str:
    """Help, the default where it was left, and the validator's words, as HTML."""
    parts = [f'<span title="{escape(spec.name)} in the TOML file">{escape(spec.help)}</span>']
    if spec.ui.pending or (len(spec.shape.sections) == 1 and spec.shape.sections[0].pending):
        parts.append('<span class="dpnb-quiet">(The trainer of dpnb does not act on this yet.)</span>')
    if draft.changed(spec) and not spec.shape.holds_sections:
        parts.append(f'<span class="dpnb-changed">Changed (default: {escape(default_words(spec))}).</span>')
    if spec.ui.path is not None and not problems:
        parts.append(_found_html(draft.get(spec.loc)))
    parts += [problem_html(problem, spec.help, _key_in(problem, spec)) for problem in problems]
    return " ".join(part for part in parts if part)


def _key_in(problem: Problem, spec: Spec) -> str:
    """Which key of a table of free keys a problem is about; "" elsewhere."""
    below = problem.loc[len(spec.loc) :]
    return below[0] if below and isinstance(below[0], str) else ""


def default_words(spec: Spec) -> str:
    """The default of a field as a person would say it."""
    if spec.default is None or isinstance(spec.default, SecretStr):
        return "not set"
    if isinstance(spec.default, bool):
        return "yes" if spec.default else "no"
    if spec.default in ("", [], {}):
        return "empty"
    if (steps := steps_of(spec)) is not None and steps.size is None:
        return show_rate(spec.default)
    words = str(spec.default) if isinstance(spec.default, dict) else show_list(spec.default)
    return words if len(words) <= LONG_DEFAULT else f"{words[: LONG_DEFAULT - 3]}..."


def problem_html(problem: Problem, shown: str = "", key: str = "") -> str:
    """The validator's words as HTML, without a suggestion that only repeats the help `shown` above it.

    `key`: what it is about, where several keys share a field.
    """
    meaning = re.fullmatch(r"\(Meaning: (.*?)\.*\)", problem.suggestion)
    repeats = meaning is not None and meaning[1] in shown
    words = problem.message if repeats else f"{problem.message} {problem.suggestion}".rstrip()
    words = escape(words[:1].upper() + words[1:])
    if key:
        words = f"<b>{escape(key)}</b>: {words}"
    return f'<span class="dpnb-{problem.severity}" role="alert">{words}</span>'


def told_html(problem: Problem) -> str:
    """A problem away from its field, as a sentence that begins with the key, as HTML.

    `output_dir is missing. Folder in which ...`, `Warning: epochs: ...`, with its place where it came from a file.
    """
    place = ":".join(str(part) for part in (problem.file, problem.line, problem.column) if part is not None)
    key = f"<b>{escape(problem.key)}</b>" if problem.loc else ""
    words = problem.message if problem.loc else problem.message[:1].upper() + problem.message[1:]
    joint = "" if not key else " " if words.startswith(("is ", "has ", "are ", "cannot ")) else ": "
    advice = re.sub(r"^\(Meaning: (.*)\)$", r"\1", problem.suggestion)
    before = f"{'Warning: ' if problem.severity == 'warning' else ''}{escape(f'{place}: ' if place else '')}"
    text = f"{before}{key}{joint}{escape(f'{words} {advice}'.rstrip())}"
    return f'<span class="dpnb-{problem.severity}" role="alert">{text}</span>'


def _found_html(value: Any) -> str:  # noqa: ANN401 - whatever was typed
    """That paths are there, or will be made; a missing one is a problem and needs no second word."""
    paths = [path for path in (value if isinstance(value, list) else [value]) if isinstance(path, str) and path]
    if not paths:
        return ""
    there = all(Path(path).exists() for path in paths)
    return f'<span class="dpnb-found">{"Found." if there else "Will be created."}</span>'
