"""Pair: a training form and a dataset form whose files stay together. No widgets of its own.

    run.toml --names--> dataset.toml

    show      a configuration from elsewhere (a preset, an import, a previous run), to be saved into files of its own
    open      files that are there: they are edited in place, with their comments
    save      both, or neither; a training file that moves takes its dataset file along

The dataset form is built when it is first asked for: it reads folders. Relative paths count from the working
directory, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dpnb import toml
from dpnb.errors import ConfigError, Problem
from dpnb.plain_toml import loads
from dpnb.schema.dataset import Dataset
from dpnb.schema.training import Training
from dpnb.toml import Document
from dpnb.widgets.cells import parts_of_a_panel
from dpnb.widgets.dataset import DatasetForm
from dpnb.widgets.form import Form, TrainingForm
from dpnb.widgets.picker import shown_path

RUN_FILE, DATASET_FILE = "run.toml", "dataset.toml"


class Pair:
    """The two forms, and where they are saved."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where files go that come from nowhere."""
        self.said: Callable[[str], object] = lambda words: None  # gets what happened unasked, as plain text
        with parts_of_a_panel():
            self.training = TrainingForm()
        self._run_file = folder / RUN_FILE
        self._home = self._run_file  # of the training form; a dataset file of another folder stays where it is
        self._dataset_form: DatasetForm | None = None
        self._dataset: Document[Dataset] | None = None  # what the dataset form will start with
        self._known: dict[Path, str] = {}  # what files held when they were read or written here
        self._named = ""
        self._watchers: list[Callable[[], object]] = []
        self._leave = self.training.observe(lambda _: self._follow_name())
        self._coming: tuple[Path, ...] = ()  # what a configuration from elsewhere names before it is saved
        self._expect()

    @property
    def dataset(self) -> DatasetForm:
        """The form of dataset.toml, which plans for the training's family and batch."""
        if self._dataset_form is None:
            with parts_of_a_panel():
                form = DatasetForm(None if self._dataset is None else self._dataset.value)
            if self._dataset is not None:
                form.adopt(self._dataset)
            form.use_training(self.training)
            self._dataset_form = form
        return self._dataset_form

    @property
    def has_dataset_form(self) -> bool:
        """Whether the dataset form has been asked for yet."""
        return self._dataset_form is not None

    @property
    def run_file(self) -> Path:
        """Where the training is saved next; set it to save elsewhere."""
        return self._run_file

    @run_file.setter
    def run_file(self, file: Path) -> None:
        self._run_file = file
        self._expect()

    def _expect(self) -> None:
        """A dataset file that `save` writes, or names anew, need not be there yet."""
        self.training.expect(self.dataset_file, *self._coming)

    @property
    def dataset_file(self) -> Path:
        """Where the dataset is saved next: its own file, or beside a training file that goes elsewhere."""
        own = self._own_dataset_file
        if own is not None and _same(self.run_file, self._home):
            return own
        return self.run_file.parent / (own.name if own is not None else DATASET_FILE)

    @property
    def _own_dataset_file(self) -> Path | None:
        if self._dataset_form is not None and self._dataset is not None:
            return self._dataset_form.file
        return None if self._dataset is None else self._dataset.path

    def observe(self, watcher: Callable[[], object]) -> None:
        """Call `watcher` when other files are shown, named or saved."""
        self._watchers.append(watcher)

    # --- bringing in ---------------------------------------------------------------------------------------------

    def show(self, training: Document[Training] | None, dataset: Document[Dataset] | None) -> None:
        """Show these; None leaves a form as it is. Their paths say where they will be saved; nothing need be there."""
        if dataset is not None:
            self._take_dataset(dataset)
        if training is not None:
            self.run_file = self._home = training.path
            self._named = training.value.dataset
            self.training.value = training.value
            self.training.adopt(training)
        self._tell()

    def show_new(self, training: Training | None, dataset: Dataset | None, folder: Path, *, comments: bool) -> None:
        """Show objects that come from no file of ours; `comments` adds the help of each key to their files."""
        run_file, dataset_file = folder / RUN_FILE, folder / DATASET_FILE
        self._coming = (dataset_file,)
        texts = [None if value is None else toml.dump(value, comments=comments) for value in (training, dataset)]
        if training is not None:
            training = training.model_copy(update={"dataset": shown_path(dataset_file.absolute())})
            texts[0] = toml.dump(training, comments=comments)
        self.show(
            None if training is None else Document(run_file, training, texts[0] or ""),
            None if dataset is None else Document(dataset_file, dataset, texts[1] or ""),
        )

    def open(self, path: Path) -> None:
        """Open a training file with the dataset file that it names, or a dataset file alone.

        Raises `ConfigError` when the file is not one; a dataset file that cannot be read is said of.
        """
        if _is_dataset(path):
            self.show(None, self._read(toml.load(path, Dataset, paths=False)))
            return
        training = self._read(toml.load(path, Training, paths=False))
        self._coming = ()
        self.show(training, self._named_dataset(training.value.dataset, path.parent))

    def copy_of(self, run_toml: Path, dataset_toml: Path, folder: Path) -> None:
        """Show the files of a run, to be saved into another folder: those of the run stay what it was started with.

        Raises `ConfigError` when one of them is not valid any more.
        """
        training = toml.load(run_toml, Training, paths=False)
        dataset = toml.load(dataset_toml, Dataset, paths=False)
        self._coming = (folder / DATASET_FILE,)
        renamed = training.value.model_copy(
            update={"dataset": shown_path((folder / DATASET_FILE).absolute()), "resume_from_checkpoint": False}
        )
        self.show(
            Document(folder / RUN_FILE, renamed, training.edited(renamed)),
            Document(folder / DATASET_FILE, dataset.value, dataset.text),
        )

    def _named_dataset(self, name: str, beside: Path) -> Document[Dataset] | None:
        """The dataset file that a training names: as from the working directory, else beside the training file."""
        found = next((path for path in (Path(name), beside / name) if name and path.is_file()), None)
        if found is None:
            self.said(f"The dataset file '{name}' is not there: the Dataset tab keeps what it had.")
            return None
        try:
            return self._read(toml.load(found, Dataset, paths=False))
        except ConfigError as error:
            self.said(f"The Dataset tab keeps what it had: {error}")
            return None

    def _read(self, document: Document) -> Document:  # type: ignore[type-arg]  # of either file
        self._known[document.path.absolute()] = document.text
        return document

    def _take_dataset(self, document: Document[Dataset]) -> None:
        self._dataset = document
        if self._dataset_form is not None:
            self._dataset_form.value = document.value
            self._dataset_form.adopt(document)

    def _follow_name(self) -> None:
        """A person named another dataset file in the training form: one that is there is opened."""
        name = self.training.data.get("dataset")
        if not isinstance(name, str) or name == self._named:
            return
        self._named = name
        path = Path(name)
        if path.is_file() and not _same(path, self.dataset_file):
            document = self._named_dataset(name, path.parent)
            if document is not None:
                self._take_dataset(document)
                self.said(f"The Dataset tab shows {name} now.")
        self._tell()

    # --- saving --------------------------------------------------------------------------------------------------

    def in_the_way(self) -> list[Path]:
        """Files that a save would replace, and that hold what was neither read nor written here."""
        files = (self.run_file, self.dataset_file)
        return [file for file in files if file.is_file() and _text(file) != self._known.get(file.absolute())]

    def save(self) -> tuple[Path, Path]:
        """Write both files, in the way or not; gives their paths. Raises `ConfigError` with the problems of both."""
        dataset_file = self.dataset_file
        problems: list[Problem] = []
        for form in (self.training, self.dataset):
            try:
                _ = form.value
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        _make_folder(self.run_file.parent)
        self._save(self.dataset, dataset_file)
        self._dataset = Document(dataset_file, self.dataset.value, _text(dataset_file))
        self._named = shown_path(dataset_file.absolute())
        if not _same(Path(self.training.data.get("dataset") or ""), dataset_file):
            self.training.set("dataset", self._named)
        else:
            self._named = self.training.data["dataset"]
        self._save(self.training, self.run_file)
        self._home = self.run_file
        self.training.redraw()  # its dataset file is there now
        self._tell()
        return self.run_file, dataset_file

    def _save(self, form: Form, path: Path) -> None:  # type: ignore[type-arg]  # either
        form.save(path, overwrite=True)
        self._known[path.absolute()] = _text(path)

    def _tell(self) -> None:
        self._expect()
        for watcher in list(self._watchers):
            watcher()

    def close(self) -> None:
        """Close both forms."""
        self._leave()
        self.training.close()
        if self._dataset_form is not None:
            self._dataset_form.close()


def _is_dataset(path: Path) -> bool:
    """A dataset file is known by its keys; what is no TOML is left to the message of `load`."""
    try:
        data = loads(_text(path))
    except ValueError:
        return False
    return "directory" in data and "model" not in data


def _text(path: Path) -> str:
    """What a file holds; empty where it is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _same(one: Path, other: Path) -> bool:
    return one.absolute() == other.absolute()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot be made: {error.strerror or error}."
        raise ConfigError([Problem("error", "path", (), message, "Save to another folder.", str(folder))]) from error
