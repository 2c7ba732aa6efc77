"""Widgets for single values: text with a codec, yes or no, choice, text, secret, and a choice between two notations.

A control shows what its draft holds (`refresh`) and tells its host what was typed (`edited`). It never judges: a text
that no codec understands is handed on as it stands, and the validator finds the words. Which control a field gets
stands in fields.py; sections and lists of them in sections.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import ipywidgets as w

from dpnb.errors import Loc, Problem
from dpnb.widgets.draft import UNSET, Draft
from dpnb.widgets.look import Look, set_class
from dpnb.widgets.picker import Picker, Wanted
from dpnb.widgets.shapes import Spec
from dpnb.widgets.stepping import SMALL


class Host(Protocol):
    """What a control knows of the form around it."""

    draft: Draft
    look: Look
    advanced: bool
    problems: list[Problem]

    @property
    def picker(self) -> Picker:
        """The form's one list of files and folders."""

    def redraw(self) -> None:
        """Show everything as the draft is now."""

    def edited(self, loc: Loc, value: Any) -> None:  # noqa: ANN401 - anything that TOML can hold
        """A person typed a value at a place, or cleared it (UNSET)."""

    def restructured(self, change: Callable[[Draft], None]) -> None:
        """A person added, removed, moved or switched sections: `change` does it to the draft."""

    def control_for(self, spec: Spec) -> Control:
        """The control of a field, by the table of fields.py."""

    @property
    def refreshing(self) -> bool:
        """True while controls are written from the draft: their events are not a person's doing."""


class Control(Protocol):
    """One field's widget."""

    spec: Spec
    widget: Any

    def refresh(self) -> None:
        """Show what the draft holds."""

    def close(self) -> None:
        """Close every widget that the control owns."""


# --- notations -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Codec:
    """How a value stands in a text field. `parse` gives back the text itself where it understands nothing."""

    parse: Callable[[str], Any]
    show: Callable[[Any], str]
    example: str = ""
    multiline: bool = False


def parse_number(text: str) -> Any:  # noqa: ANN401 - a number, or the text
    """`2e-5` -> 2e-05, `1_000` -> 1000; anything else stays a text."""
    text = text.strip()
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_float(text: str) -> Any:  # noqa: ANN401 - a float, or the text
    """A number, always with a fraction: `1` -> 1.0."""
    value = parse_number(text)
    return float(value) if isinstance(value, int) else value


def show_number(value: Any) -> str:  # noqa: ANN401 - a number, or a text that is none yet
    """`2e-05` as a person writes it: `2e-5`."""
    return re.sub(r"e([+-])0+(?=\d)", r"e\1", repr(value)) if isinstance(value, float) else str(value)


def show_rate(value: Any) -> str:  # noqa: ANN401 - a number, or a text that is none yet
    """A number that is known by its order of magnitude, as a learning rate is: `0.0001` -> `1e-4`."""
    if not isinstance(value, float) or not 0 < abs(value) < SMALL:
        return show_number(value)
    digits, _, power = f"{Decimal(repr(value)):e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}e{int(power)}"


def parse_list(text: str) -> Any:  # noqa: ANN401 - a list, or the text
    """`512, 768`, `[512, 4], [1024, 1]`, `1280x720` or `1280x720; 960x544`, with or without brackets around all."""
    text = re.sub(r"(?<!\d)\.(?=\d)", "0.", text.strip())
    if re.search(r"[\d.]\s*[x×]\s*\d", text):  # noqa: RUF001 - the sign that people paste
        text = ", ".join(f"[{re.sub('[x×]', ',', part)}]" for part in re.split("[;,]", text) if part.strip())  # noqa: RUF001
    if ";" in text:
        text = ", ".join(f"[{part}]" for part in text.split(";") if part.strip())
    for attempt in (f"[{text.rstrip(', ')}]", text):
        try:
            value = json.loads(attempt)
        except ValueError:
            continue
        # `[[512, 4], [1024, 1]]` with its outer brackets, or `[512, 768]` where plain numbers are meant
        nested = isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
        inner_is_pairs = nested and bool(value[0]) and isinstance(value[0][0], list)
        return value[0] if inner_is_pairs else value
    return text


def parse_numbers(text: str) -> Any:  # noqa: ANN401 - a list, or the text
    """A list of numbers; brackets around it are taken off."""
    value = parse_list(text)
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return value


def show_list(value: Any) -> str:  # noqa: ANN401 - a list, or a text that is none yet
    """A list without its outer brackets."""
    if not isinstance(value, list):
        return show_number(value)
    return ", ".join(f"[{show_list(item)}]" if isinstance(item, list) else show_number(item) for item in value)


def parse_number_or_list(text: str) -> Any:  # noqa: ANN401 - a number, a list, or the text
    """A single number stays one; anything else is a list."""
    value = parse_number(text)
    return parse_list(text) if isinstance(value, str) else value


def parse_names(text: str) -> Any:  # noqa: ANN401 - a list of texts
    """`to_q, to_k` -> ["to_q", "to_k"]."""
    return [part.strip() for part in text.split(",") if part.strip()]


def show_names(value: Any) -> str:  # noqa: ANN401 - a list of texts
    """Names with commas between them."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


NUMBER = Codec(parse_number, show_number)
FLOAT = Codec(parse_float, show_number)
RATE = Codec(parse_float, show_rate)
NUMBERS = Codec(parse_numbers, show_list, "512, 768")
PAIRS = Codec(parse_list, show_list, "[512, 4], [1024, 1]")
NUMBER_OR_PAIRS = Codec(parse_number_or_list, show_list, "4 or [512, 4], [1024, 1]")
NUMBERS_OR_PAIRS = Codec(parse_list, show_list, "512, 768 or [1280, 720]")
NAMES = Codec(parse_names, show_names, "to_q, to_k, to_v")
WORDS = Codec(str, str)


# --- controls --------------------------------------------------------------------------------------------------------


class _Single:
    """A control with one input widget."""

    def __init__(self, host: Host, spec: Spec, widget: Any) -> None:  # noqa: ANN401 - a widget
        self.host, self.spec, self.widget = host, spec, widget
        widget.observe(self._typed, "value")

    def _typed(self, change: dict[str, Any]) -> None:
        if not self.host.refreshing:
            self.host.edited(self.spec.loc, self.read(change["new"]))

    def read(self, shown: Any) -> Any:  # noqa: ANN401 - what the widget holds
        """The value that the widget's state stands for."""
        return shown

    def close(self) -> None:
        """Close every widget that the control owns."""
        self.widget.close()


class TextControl(_Single):
    """A text field with a codec. Empty means not set: the key is left out and the default holds."""

    def __init__(self, host: Host, spec: Spec, codec: Codec) -> None:
        self.codec = codec
        suggestions = spec.ui.suggestions or tuple(map(codec.show, spec.shape.choices))
        kind = w.Combobox if suggestions else w.Textarea if codec.multiline else w.Text
        extra: dict[str, Any] = {"options": suggestions, "ensure_option": False} if suggestions else {}
        widget = host.look.make(
            kind,
            description=spec.label,
            placeholder=_placeholder(spec, codec),
            continuous_update=False,
            tooltip=spec.help,
            **extra,
        )
        super().__init__(host, spec, widget)

    def read(self, shown: str) -> Any:  # noqa: ANN401 - what the codec gives
        """The value that the shown text stands for."""
        return self.codec.parse(shown) if shown.strip() else UNSET

    def refresh(self) -> None:
        """Show what the draft holds."""
        value = self.host.draft.value(self.spec)
        # A person's own notation stays while it means the same value: 2e-5 is not rewritten as 2e-05.
        shown = self.read(self.widget.value)
        if shown is UNSET or type(shown) is not type(value) or shown != value:
            self.widget.value = "" if value is None else self.codec.show(value)


class ProseControl(_Single):
    """Free text, where empty is a value of its own. An optional one has a box that says whether it is set."""

    def __init__(self, host: Host, spec: Spec) -> None:
        self.area = host.look.make(
            w.Textarea if spec.ui.multiline else w.Text,
            description=spec.label,
            placeholder=_placeholder(spec, WORDS) if spec.required or spec.shape.optional else "",
            continuous_update=False,
            tooltip=spec.help,
        )
        super().__init__(host, spec, self.area)
        self.is_set: Any = None
        if spec.shape.optional:
            self.is_set = host.look.make(w.Checkbox, description=f"Set {spec.label.lower()}", indent=False)
            self.is_set.observe(self._toggled, "value")
            self.widget = host.look.box((self.area, self.is_set), "dpnb-cell")

    def read(self, shown: str) -> Any:  # noqa: ANN401 - a text, or UNSET
        """The value that the shown text stands for."""
        return UNSET if shown == "" and self.spec.required else shown

    def refresh(self) -> None:
        """Show what the draft holds."""
        value = self.host.draft.value(self.spec)
        self.area.value = "" if value is None else str(value)
        if self.is_set is not None:
            self.is_set.value = value is not None

    def _toggled(self, change: dict[str, Any]) -> None:
        if not self.host.refreshing:
            self.host.edited(self.spec.loc, self.area.value if change["new"] else UNSET)

    def close(self) -> None:
        """Close every widget that the control owns."""
        for widget in (self.area, self.is_set, self.widget):
            if widget is not None:
                widget.close()


class CheckControl(_Single):
    """Yes or no."""

    def __init__(self, host: Host, spec: Spec) -> None:
        super().__init__(
            host, spec, host.look.make(w.Checkbox, description=spec.label, indent=False, tooltip=spec.help)
        )

    def refresh(self) -> None:
        """Show what the draft holds."""
        self.widget.value = bool(self.host.draft.value(self.spec))


class ChoiceControl(_Single):
    """One of a few values; "not set" stands first where the key may be left out."""

    def __init__(self, host: Host, spec: Spec, choices: Sequence[tuple[str, Any]]) -> None:
        unset = [("not set", UNSET)] if spec.shape.optional or spec.required else []
        self._options = [*unset, *choices]
        super().__init__(
            host,
            spec,
            host.look.make(w.Dropdown, description=spec.label, options=self._options, index=0, tooltip=spec.help),
        )

    def refresh(self) -> None:
        """Show what the draft holds."""
        value = self.host.draft.value(self.spec)
        known = [i for i, (_, option) in enumerate(self._options) if option is not UNSET and option == value]
        if known:
            self.widget.index = known[0]
        elif self._options[0][1] is UNSET and value is None:
            self.widget.index = 0
        else:
            # A value that is not among the choices is shown as it stands; the validator says what is.
            self._options.append((str(value), value))
            self.widget.options = self._options
            self.widget.index = len(self._options) - 1


class SecretControl(_Single):
    """A value that is never shown. It moves from the widget into the draft at once: widget state can be saved."""

    def __init__(self, host: Host, spec: Spec) -> None:
        widget = host.look.make(
            w.Password, description=spec.label, placeholder="not set", continuous_update=False, tooltip=spec.help
        )
        super().__init__(host, spec, widget)

    def _typed(self, change: dict[str, Any]) -> None:
        # The widget is emptied by `refresh`, and that event must not clear what was typed.
        if change["new"] and not self.host.refreshing:
            self.host.edited(self.spec.loc, change["new"])

    def refresh(self) -> None:
        """Show what the draft holds."""
        self.widget.placeholder = "set (hidden)" if self.host.draft.value(self.spec) else "not set"
        self.widget.value = ""


class PathControl(_Single):
    """A path to type, and a button that opens the form's list of files and folders below it."""

    def __init__(self, host: Host, spec: Spec) -> None:
        self.text = host.look.make(
            w.Text,
            description=spec.label,
            placeholder=_placeholder(spec, WORDS),
            continuous_update=False,
            tooltip=spec.help,
        )
        super().__init__(host, spec, self.text)
        self.browse = browse_button(host, spec)
        self.browse.on_click(lambda _: self._open())
        self.widget = host.look.box((self.text, self.browse), "dpnb-cell", "dpnb-path")

    def _open(self) -> None:
        self.host.picker.open(
            self.widget, Wanted.by(self.spec), self.text.value, lambda path: self.host.edited(self.spec.loc, path)
        )

    def read(self, shown: str) -> Any:  # noqa: ANN401 - a text, or UNSET
        """The value that the shown text stands for."""
        return shown.strip() or UNSET

    def refresh(self) -> None:
        """Show what the draft holds."""
        value = self.host.draft.value(self.spec)
        self.text.value = "" if value is None else str(value)

    def close(self) -> None:
        """Close every widget that the control owns; the picker is the form's."""
        _close_paths(self.host, self.widget)


class PathsControl(_Single):
    """Several paths, one a line; a field that takes a single text too gets one where there is one line."""

    def __init__(self, host: Host, spec: Spec) -> None:
        self.text = host.look.make(
            w.Textarea,
            description=spec.label,
            placeholder="not set; one path a line",
            continuous_update=False,
            tooltip=spec.help,
        )
        super().__init__(host, spec, self.text)
        self.browse = browse_button(host, spec)
        self.browse.on_click(lambda _: self._open())
        self.widget = host.look.box((self.text, self.browse), "dpnb-cell", "dpnb-path")

    def _open(self) -> None:
        last = self.text.value.strip().rpartition("\n")[2]
        self.host.picker.open(self.widget, Wanted.by(self.spec), last, self._append)

    def _append(self, path: str) -> None:
        self.host.edited(self.spec.loc, self.read(f"{self.text.value}\n{path}"))

    def read(self, shown: str) -> Any:  # noqa: ANN401 - a list, a text, or UNSET
        """The value that the shown text stands for."""
        paths = [line.strip() for line in shown.splitlines() if line.strip()]
        single = len(paths) == 1 and "str" in self.spec.shape.arms
        return UNSET if not paths else paths[0] if single else paths

    def refresh(self) -> None:
        """Show what the draft holds."""
        value = self.host.draft.value(self.spec)
        paths = value if isinstance(value, list) else [] if value is None else [value]
        self.text.value = "\n".join(map(str, paths))

    def close(self) -> None:
        """Close every widget that the control owns; the picker is the form's."""
        _close_paths(self.host, self.widget)


def browse_button(host: Host, spec: Spec) -> Any:  # noqa: ANN401 - a widget
    """The button beside a path."""
    return host.look.button("Browse", "dpnb-small", tooltip=f"Choose {spec.label} from a list")


def _close_paths(host: Host, widget: Any) -> None:  # noqa: ANN401 - a widget
    host.picker.leave_box(widget)
    for part in (*widget.children, widget):
        part.close()


@dataclass(frozen=True, slots=True)
class Mode:
    """One notation of an `EitherControl`: a fixed value, or a text in a codec."""

    title: str
    fits: Callable[[Any], bool]
    value: Any = None
    codec: Codec | None = None


class EitherControl:
    """A choice between notations: no / yes / a name, or several names / one text."""

    def __init__(self, host: Host, spec: Spec, modes: Sequence[Mode]) -> None:
        self.host, self.spec, self.modes = host, spec, modes
        self.unset = [("not set", -1)] if spec.shape.optional else []
        options = [*self.unset, *((mode.title, i) for i, mode in enumerate(modes))]
        look = host.look
        self.which = look.make(w.Dropdown, description=spec.label, options=options, tooltip=spec.help)
        self.text = look.make(w.Text, description="", continuous_update=False, tooltip=spec.help)
        self.widget = look.box((self.which, self.text), "dpnb-cell")
        self.which.observe(self._typed, "value")
        self.text.observe(self._typed, "value")

    def _typed(self, _change: dict[str, Any]) -> None:
        if self.host.refreshing:
            return
        mode = None if self.which.value < 0 else self.modes[self.which.value]
        if mode is None:
            self.host.edited(self.spec.loc, UNSET)
        elif mode.codec is None:
            self.host.edited(self.spec.loc, mode.value)
        else:
            self.host.edited(self.spec.loc, mode.codec.parse(self.text.value))

    def refresh(self) -> None:
        """Show what the draft holds."""
        value = self.host.draft.value(self.spec)
        position = -1 if value is None else next((i for i, mode in enumerate(self.modes) if mode.fits(value)), 0)
        self.which.value = position if position >= 0 or self.unset else 0
        codec = self.modes[position].codec if position >= 0 else None
        set_class(self.text, "dpnb-hidden", codec is None)
        if codec is not None:
            self.text.description = self.modes[position].title
            self.text.placeholder = codec.example
            if codec.parse(self.text.value) != value:
                self.text.value = codec.show(value)

    def close(self) -> None:
        """Close every widget that the control owns."""
        for widget in (self.which, self.text, self.widget):
            widget.close()


def _placeholder(spec: Spec, codec: Codec) -> str:
    """What an empty field says: that it must be filled, or that it is not set and what would go there."""
    example = f"such as {codec.example}" if codec.example else ""
    if spec.required:
        return example or "required"
    return ", ".join(part for part in ("not set", example) if part) if spec.shape.optional else example
