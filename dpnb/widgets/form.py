"""Form: any Section as widgets, and TrainingForm, the form of run.toml.

    form = Form(Training)          # or an instance: its values are filled in
    form                           # shown by the notebook; form.widget sits in other layouts
    form.value                     # the validated object, or ConfigError with every problem
    form.set("optimizer.lr", 1e-4) # what code sets, the widgets show, and the other way round

The truth is the draft (draft.py); pages are built when they are first opened, and every edit validates the whole
section. All methods may be called from any thread: callbacks run on the kernel's main thread or on a subshell's,
depending on the version of ipykernel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, cast

import ipywidgets as w

from dpnb.errors import ConfigError, Loc, Problem, errors_in
from dpnb.runs.rundir import write_text
from dpnb.schema.base import Section
from dpnb.schema.training import Training
from dpnb.toml import dump, load
from dpnb.widgets.cells import replaces_predecessor
from dpnb.widgets.controls import Control
from dpnb.widgets.draft import UNSET, Draft, blank_data, to_data
from dpnb.widgets.fields import kind_of
from dpnb.widgets.look import Look, close_tree, escape
from dpnb.widgets.sections import Panel
from dpnb.widgets.shapes import Spec, label_of

S = TypeVar("S", bound=Section)
GENERAL = "General"
STACKED_PAGES = 2  # a section of one or two pages needs no tabs
NAMED_IN_HEAD = 4


class _Page:
    """One tab: a group of plain fields, or one nested section or list; its panel is built when it is first shown."""

    def __init__(self, title: str, names: list[str], box: Any) -> None:  # noqa: ANN401 - a widget
        self.title, self.names, self.box = title, names, box
        self.panel: Panel | None = None

    def holds(self, loc: Loc) -> bool:
        return bool(loc) and loc[0] in self.names


class Form(Generic[S]):
    """A section as widgets. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(self, section: S | type[S], *, title: str = "", first: Sequence[str] = ()) -> None:
        """`section`: a class (nothing filled in) or an instance. `first`: fields whose pages come first."""
        self.cls: type[S] = section if isinstance(section, type) else type(section)
        self.draft = Draft(self.cls, blank_data(self.cls) if isinstance(section, type) else to_data(section))
        self.look = Look()
        self.advanced = False
        self.problems: list[Problem] = []
        self._value: S | None = None
        self._lock = threading.RLock()
        self._refresher: int | None = None
        self._watchers: list[Callable[[Form[S]], None]] = []
        self._closed = False
        self._build(title or label_of(self.cls.__name__), first)
        self._update()
        replaces_predecessor(self)

    # --- the value -----------------------------------------------------------------------------------------------

    @property
    def value(self) -> S:
        """A copy of the validated object.

        Raises `ConfigError` with every problem when there is none. A path that does not exist yet is among
        `problems`, but does not stop this: the folder may be made before the launch, which checks again.
        """
        with self._lock:
            if self._value is None or _stops(self.problems):
                raise ConfigError(self.problems)
            return self._value.model_copy(deep=True)

    @value.setter
    def value(self, section: S) -> None:
        with self._lock:
            self.draft = Draft(self.cls, to_data(section))
            self._update()
        self._tell()

    @property
    def data(self) -> dict[str, Any]:
        """A copy of what has been set, valid or not, as a TOML file would hold it."""
        with self._lock:
            return deepcopy(self.draft.data)

    @property
    def toml(self) -> str:
        """The TOML text of the value. Raises `ConfigError` as `value` does."""
        return dump(self.value)

    def save(self, path: Path | str) -> Path:
        """Write the TOML text to a file (at once and whole) and give back its path."""
        path = Path(path)
        text = self.toml
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        return path

    def set(self, loc: str | Loc, value: Any) -> None:  # noqa: ANN401 - anything that TOML can hold, or a Section
        """Set one key, as if typed: `set("optimizer.lr", 1e-4)`, `set(("directory", 0, "path"), "photos")`.

        None takes the key out, so that its default holds. A wrong value is kept and shown with its problem, as in the
        widgets; a key that does not exist raises `ConfigError` and changes nothing.
        """
        loc = _parts(loc) if isinstance(loc, str) else loc
        plain = UNSET if value is None else _plain(value)
        with self._lock:
            trial = Draft(self.cls, deepcopy(self.draft.data))
            try:
                trial.put(loc, plain)
            except (KeyError, IndexError) as error:
                raise ConfigError([_no_such_place(loc, str(error.args[0]))]) from error
            unknown = [p for p in trial.validate()[1] if p.code == "unknown_key" and loc[: len(p.loc)] == p.loc]
            if unknown:
                raise ConfigError(unknown)
            self.draft.put(loc, plain)
            self._update()
        self._tell()

    def observe(self, watcher: Callable[[Form[S]], None]) -> Callable[[], None]:
        """Call `watcher(form)` after every change, on the thread that made it. Gives back a function that ends it."""
        with self._lock:
            self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    # --- what controls call --------------------------------------------------------------------------------------

    @property
    def refreshing(self) -> bool:
        """True on the thread that is writing the widgets; another thread's events are a person's."""
        return self._refresher == threading.get_ident()

    def edited(self, loc: Loc, value: Any) -> None:  # noqa: ANN401 - anything that TOML can hold
        """A person typed a value at a place, or cleared it (UNSET)."""
        self.restructured(lambda draft: draft.put(loc, value))

    def restructured(self, change: Callable[[Draft], None]) -> None:
        """A person changed the draft: apply, validate, show, tell the watchers."""
        with self._lock:
            if self._closed:
                return
            change(self.draft)
            self._update()
        self._tell()

    def control_for(self, spec: Spec) -> Control:
        """The control of a field, by the table of fields.py."""
        return kind_of(spec).build(self, spec)

    def _tell(self) -> None:
        # Outside the lock: a watcher may wait for a thread that needs this form.
        for watcher in list(self._watchers):
            watcher(self)

    # --- widgets -------------------------------------------------------------------------------------------------

    def _build(self, title: str, first: Sequence[str]) -> None:
        look = self.look
        self._summary = look.html()
        self._toggle = look.make(w.Checkbox, description="Show advanced fields", indent=False)
        self._toggle.observe(self._toggled, "value")
        bar = look.box(
            (look.html(f"<h3>{escape(title)}</h3>"), look.html("", "dpnb-spring"), self._toggle), "dpnb-bar"
        )
        self._pages = [
            _Page(page, names, look.make(w.VBox, children=())) for page, names in _pages(self.cls, first).items()
        ]
        self._tab: Any = None
        if len(self._pages) > STACKED_PAGES:
            boxes = [page.box for page in self._pages]
            self._tab = look.make(w.Tab, children=boxes, selected_index=0, classes=("dpnb-pages",))
            self._tab.observe(self._opened, "selected_index")
            body = [self._tab]
        else:
            body = [part for page in self._pages for part in (self._heading(page), page.box) if part is not None]
        self.extra = look.make(w.VBox, children=())  # room for what a subclass shows below its fields
        self.widget = look.root(
            (look.make(w.VBox, children=(bar, self._summary, *body, self.extra), classes=("dpnb-card",)),)
        )

    def _heading(self, page: _Page) -> Any:  # noqa: ANN401 - a widget
        return self.look.html(f"<h4>{escape(page.title)}</h4>") if len(self._pages) > 1 else None

    def _toggled(self, change: dict[str, Any]) -> None:
        with self._lock:
            self.advanced = change["new"]
            self._refresh()

    def _opened(self, _change: dict[str, Any]) -> None:
        with self._lock:
            self._refresh()

    def _update(self) -> None:
        """Validate everything and show it."""
        value, problems = self.draft.validate()
        self._value, self.problems = cast("S | None", value), problems
        self._refresh()

    def _refresh(self) -> None:
        if self._closed:
            return
        with self._writing():
            self._summary.value = self._summary_html()
            for position, page in enumerate(self._pages):
                if self._tab is not None:
                    wrong = [p for p in errors_in(self.problems) if page.holds(p.loc)]
                    self._tab.set_title(position, f"{page.title} ({len(wrong)})" if wrong else page.title)
                if page.panel is None and (self._tab is None or self._tab.selected_index == position):
                    page.panel = Panel(self, self.cls, (), page.names)
                    page.box.children = (page.panel.widget,)
                if page.panel is not None:
                    page.panel.refresh()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        before, self._refresher = self._refresher, threading.get_ident()
        try:
            yield
        finally:
            self._refresher = before

    def _summary_html(self) -> str:
        errors = errors_in(self.problems)
        nowhere = [p for p in self.problems if not any(page.holds(p.loc) for page in self._pages)]
        lines = [f'<span class="dpnb-{p.severity}" role="alert">{escape(p)}</span>' for p in nowhere]
        if not errors:
            lines.insert(0, '<span class="dpnb-found">Ready: every field is valid.</span>')
        else:
            names = list(dict.fromkeys(p.key for p in errors if p.loc))
            shown = ", ".join(names[:NAMED_IN_HEAD]) + (", ..." if len(names) > NAMED_IN_HEAD else "")
            count = "1 field needs" if len(errors) == 1 else f"{len(errors)} fields need"
            lines.insert(0, f'<span class="dpnb-error">{count} attention: {escape(shown)}</span>')
        return "".join(lines)

    def close(self) -> None:
        """Close every widget of the form; `value` and `data` can still be read."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for page in self._pages:
                if page.panel is not None:
                    page.panel.close()
            close_tree(self.widget)
            self.look.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401 - what IPython passes and takes
        return self.widget._repr_mimebundle_(**kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.cls.__name__}, {len(errors_in(self.problems))} errors)"


class TrainingForm(Form[Training]):
    """The form of run.toml."""

    def __init__(self, start: Training | str | None = None) -> None:
        """`start`: a Training, a name in dpnb.presets.PRESETS such as "flux", or None for an empty form."""
        super().__init__(_preset(start) if isinstance(start, str) else start or Training, title="Training")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """A form with the values of a run.toml. Raises `ConfigError` when the file is not one."""
        return cls(load(path, Training, paths=False).value)


def _preset(name: str) -> Training:
    """The training of a preset, without knowing presets before one is asked for."""
    from dpnb.presets import PRESETS

    if name not in PRESETS:
        message = f"there is no preset '{name}'."
        raise ConfigError([Problem("error", "value", (), message, f"There are: {', '.join(PRESETS)}.")])
    return PRESETS[name]()[0]


def _pages(cls: type[Section], first: Sequence[str]) -> dict[str, list[str]]:
    """Page titles with their fields: plain fields, then each section, then the named groups; `first` before all."""
    plain: dict[str, list[str]] = {}
    sections: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for name in cls.model_fields:
        spec = Spec.of(cls, name, (name,))
        if spec.ui.group:
            groups.setdefault(spec.ui.group, []).append(name)
        elif spec.shape.holds_sections:
            sections[spec.label] = [name]
        else:
            plain.setdefault(GENERAL, []).append(name)
    pages = plain | sections | groups
    ahead = [title for title, names in pages.items() if set(names) & set(first)]
    return {title: pages[title] for title in [*ahead, *(t for t in pages if t not in ahead)]}


def _stops(problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in errors_in(problems) if problem.code != "path"]


def _parts(dotted: str) -> Loc:
    """`directory[0].path` or `directory.0.path` -> ("directory", 0, "path")."""
    parts = dotted.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything that TOML can hold, or sections in it
    """Sections in a value as plain data."""
    if isinstance(value, Section):
        return to_data(value)
    return [_plain(item) for item in value] if isinstance(value, list) else deepcopy(value)


def _no_such_place(loc: Loc, reason: str) -> Problem:
    return Problem("error", "unknown_key", loc, f"{reason}.", "Switch the section on or add the item first.")
