"""Form: any Section as widgets, and TrainingForm, the form of run.toml.

    form = Form(Training)          # or an instance: its values are filled in
    form                           # shown by the notebook; form.widget sits in other layouts
    form.value                     # the validated object, or ConfigError with every problem
    form.set("optimizer.lr", 1e-4) # what code sets, the widgets show, and the other way round
    form.toml, form.code()         # the same object as a file and as Python
    form.save()                    # to the file that it was loaded from, with its comments

The truth is the draft (draft.py); pages are built when they are first opened, and every edit validates the whole
section. All methods may be called from any thread: callbacks run on the kernel's main thread or on a subshell's,
depending on the version of ipykernel. What it looks like stands in face.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from dpnb.errors import ConfigError, Loc, Problem, errors_in
from dpnb.schema.base import Section
from dpnb.schema.training import Training
from dpnb.toml import Document, load
from dpnb.widgets.cells import replaces_predecessor
from dpnb.widgets.draft import UNSET, Draft, blank_data, to_data
from dpnb.widgets.face import Face, pages_of
from dpnb.widgets.filing import Filing, rough_text
from dpnb.widgets.history import History, moment_of
from dpnb.widgets.picker import Picker
from dpnb.widgets.preview import Preview
from dpnb.widgets.shapes import label_of

S = TypeVar("S", bound=Section)


class Form(Face, Generic[S]):
    """A section as widgets. Displays itself; `widget` is the same thing for other layouts."""

    usual_file: ClassVar[str] = ""

    def __init__(self, section: S | type[S], *, title: str = "", first: Sequence[str] = ()) -> None:
        """`section`: a class (nothing filled in) or an instance. `first`: fields whose pages come first."""
        super().__init__()
        self.cls: type[S] = section if isinstance(section, type) else type(section)
        self.draft = Draft(self.cls, blank_data(self.cls) if isinstance(section, type) else to_data(section))
        self.history = History()
        self.advanced = False
        self.problems: list[Problem] = []
        self._value: S | None = None
        self._filing: Filing[S] = Filing()
        self.picker = Picker(self.look, self._lock)
        self._watchers: list[Callable[[Form[S]], None]] = []
        self._build(title or label_of(self.cls.__name__), pages_of(self.cls, first))
        self._validate()
        self._preview = Preview(self, self._lock)
        self._card.children = (*self._card.children, self._preview.widget)
        self.redraw()
        replaces_predecessor(self)

    # --- the value -----------------------------------------------------------------------------------------------

    @property
    def value(self) -> S:
        """A copy of the validated object: to change the form, use `set`, or assign a changed copy to `value`.

        Raises `ConfigError` with every problem when there is none. A path that does not exist yet is among
        `problems`, but does not stop this: the folder may be made before the launch, which checks again.
        """
        with self._lock:
            if self._value is None or _stops(self.problems):
                raise ConfigError(self.problems)
            return self._value.model_copy(deep=True)

    @value.setter
    def value(self, section: S) -> None:
        self._change(lambda: self.draft.replace(to_data(section)))

    @property
    def data(self) -> dict[str, Any]:
        """A copy of what has been set, valid or not, as a TOML file would hold it; secrets stay closed."""
        with self._lock:
            return deepcopy(self.draft.data)

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
        self.edited(loc, plain)

    def undo(self) -> bool:
        """Take the last change back, whoever made it; False where there is none. Secrets stay as they are."""
        return self._go(self.history.undo)

    def redo(self) -> bool:
        """Make the change again that was taken back last; False where there is none."""
        return self._go(self.history.redo)

    def _go(self, step: Callable[[Draft], bool]) -> bool:
        done: list[bool] = []
        self._change(lambda: done.append(step(self.draft)), remember=False)
        return done == [True]

    def expect(self, *files: Path) -> None:
        """Take these files for coming ones, which will be written before they are needed."""
        coming = frozenset(file.absolute() for file in files)
        with self._lock:
            if coming != self.draft.coming:
                self.draft.coming = coming
                self._validate()
                self.redraw()

    def observe(self, watcher: Callable[[Form[S]], None]) -> Callable[[], None]:
        """Call `watcher(form)` after every change, on the thread that made it. Gives back a function that ends it."""
        with self._lock:
            self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def _change(self, change: Callable[[], object], *, remember: bool = True) -> None:
        with self._lock:
            if self._closed:
                return
            before = moment_of(self.draft)
            change()
            if remember:
                self.history.changed(before, self.draft)
            self._validate()
            self.redraw()
        # Outside the lock: a watcher may wait for a thread that needs this form.
        for watcher in list(self._watchers):
            watcher(self)

    def _validate(self) -> None:
        value, problems = self.draft.validate()
        self._value, self.problems = cast("S | None", value), problems

    # --- text ----------------------------------------------------------------------------------------------------

    @property
    def toml(self) -> str:
        """The TOML text of the value, with the comments of the file that it was loaded from.

        Raises `ConfigError` as `value` does; the preview below the form shows what is not valid yet too.
        """
        return self._filing.text_of(self.value)

    def code(self) -> str:
        """The Python that builds the same object, ready for a cell: what differs from the defaults, no secrets.

        Raises `ConfigError` as `value` does.
        """
        from dpnb.widgets.source import source_of

        return source_of(self.value)

    def text_now(self) -> tuple[str, bool]:
        """The TOML text as it stands, and whether it is valid; where it is not, as it has been typed."""
        with self._lock:
            if self._value is None or _stops(self.problems):
                return rough_text(self.cls, self.draft.data), False
            return self._filing.text_of(self._value), True

    # --- the file ------------------------------------------------------------------------------------------------

    @property
    def file(self) -> Path:
        """The file that this form was loaded from or saved to last, else the one that is usual."""
        document = self._filing.document
        return document.path if document is not None else Path(self.usual_file or f"{self.cls.__name__.lower()}.toml")

    def text_on_disk(self) -> str:
        """What the form's file holds now, without its secrets; empty where there is none.

        Raises `ConfigError` where it cannot be read or is no TOML.
        """
        return self._filing.shown_on_disk()

    def save(self, path: Path | str | None = None, *, overwrite: bool = False) -> Path:
        """Write the TOML text to a file (at once and whole), by default to the form's own, and give back its path.

        From then on the form belongs to that file. Comments and layout of the file that it was loaded from are kept.
        Raises `ConfigError` as `value` does, when the form came from no file and none is named, and when its file has
        been changed by something else since, unless `overwrite`.
        """
        with self._lock:
            written = self._filing.save(self.value, path, overwrite=overwrite)
            if not self._closed:
                self._preview.mark_from_here()
        return written

    def open(self, path: Path | str) -> None:
        """Show the values of a file, and belong to it from now on. Raises `ConfigError` when it is not one."""
        document = load(path, self.cls, paths=False)
        self.value = document.value
        self.adopt(document)

    def adopt(self, document: Document[S]) -> None:
        """Belong to a file whose values the form shows already: `save()` writes to it and keeps its comments."""
        with self._lock:
            self._filing.document = document
            self._preview.mark_from_here()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.cls.__name__}, {len(errors_in(self.problems))} errors)"


class TrainingForm(Form[Training]):
    """The form of run.toml."""

    usual_file = "run.toml"
    pages = ("output_dir", "model", "adapter", "optimizer", "eval_datasets", "save_dtype", "sample", "monitoring")

    def __init__(self, start: Training | str | None = None) -> None:
        """`start`: a Training, a name in dpnb.presets.PRESETS such as "flux", or None for an empty form."""
        begun = _preset(start) if isinstance(start, str) else start or Training
        super().__init__(begun, title="Training", first=self.pages)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """A form with the values of a run.toml, whose comments `save()` keeps.

        Raises `ConfigError` when the file is not one.
        """
        document = load(path, Training, paths=False)
        form = cls(document.value)
        form.adopt(document)
        return form


def _preset(name: str) -> Training:
    """The training of a preset, without knowing presets before one is asked for."""
    from dpnb.presets import preset

    return preset(name)[0]


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
