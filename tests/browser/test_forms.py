"""Forms in a real JupyterLab, filled in by hand: every kind of field, the file, search, undo, both themes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dpnb import toml
from dpnb.schema import AdamW, LoraAdapter, Monitoring, Prompt, Sampling, Training
from tests.dpnb.every_family import training
from tests.dpnb.test_fields import Dog, Keeper, Toy, Zoo

ZOO = """
from dpnb.widgets.form import Form
from tests.dpnb.test_fields import Zoo
form = Form(Zoo)
form
"""
TRAINING = """
import dpnb
from tests.browser.test_forms import begun
form = dpnb.TrainingForm(begun())
form
"""
CARD = ".dpnb >> nth=0"
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
# What a person types or chooses, by the kind of input; `SET` is the object that this makes.
TYPED = {
    "Whole": "12",
    "Fraction": "3e-5",
    "Number": "0.5",
    "Text": "some words",
    "Long": "two\nlines",
    "Named": "green",
    "Folder": "pictures",
    "Weights": "a.bin\nb.bin",
    "Parts": "a.bin",
    "Numbers": "0.5, 0.6",
    "Pairs": "[1, 2], [3, 4]",
    "Batch": "[512, 4], [1024, 1]",
    "Sizes": "512, 768",
    "Names": "a, b",
    "Free": "a = 0.5",
    "Maybe text": "something",
}
CHOSEN = {
    "Maybe": "no",
    "Choice": "b",
    "Maybe choice": "a",
    "Recompute": "unsloth",
    "Resume": "yes",
}
SET = Zoo(
    whole=12, fraction=3e-5, number=0.5, flag=True, maybe=False, choice="b", maybe_choice="a", text="some words",
    maybe_text="something", long="two\nlines", named="green", folder="pictures", weights=["a.bin", "b.bin"],
    parts="a.bin", key=SecretStr("hunter2"), numbers=[0.5, 0.6], pairs=[[1, 2], [3, 4]], batch=[[512, 4], [1024, 1]],
    sizes=[512, 768], names=["a", "b"], names_or_text=["x", "y"], free={"a": 0.5}, resume=True, recompute="unsloth",
    toys=[Toy(title="ball"), Toy(title="bone")], favourite=Toy(title="ball"), keeper=Keeper(name="Ann", age=40),
    pet=Dog(name="Rex", tricks=["sit"]),
)  # fmt: skip


def begun() -> Training:
    """What the forms of a training start from."""
    prompts = [Prompt(text="a cat"), Prompt(text="a lighthouse on a cliff at dusk")]
    return training(warmup_steps=20, sample=Sampling(prompts=prompts, every_n_epochs=5))


class Person:
    """Somebody with a mouse and a keyboard in front of one form."""

    def __init__(self, notebook: Any) -> None:
        self.notebook, self.page = notebook, notebook.page
        self.form = notebook.page.locator(CARD)

    def field(self, label: str) -> Any:
        """The input that a label is tied to."""
        return self.form.get_by_label(label, exact=True).locator("visible=true").first

    def type(self, label: str, text: str) -> None:
        field = self.field(label)
        field.fill(text)
        field.press("Tab")
        self.settle()

    def choose(self, label: str, option: str) -> None:
        self.field(label).select_option(label=option)
        self.settle()

    def check(self, label: str, on: bool = True) -> None:
        self.field(label).set_checked(on)
        self.settle()

    def press(self, name: str, which: int = 0) -> None:
        self.form.get_by_role("button", name=name, exact=True).locator("visible=true").nth(which).click()
        self.settle()

    def open(self, page: str) -> None:
        self.form.get_by_role("tab", name=page).first.click()
        self.settle()

    def settle(self) -> None:
        """Wait until the kernel has answered."""
        self.notebook.settle()

    def save(self, name: str) -> None:
        self.type("File", name)
        self.press("Save")
        self.form.get_by_text(f"Saved to {name}.").wait_for()

    def fold(self) -> None:
        self.form.get_by_role("button", name="TOML file").click()
        self.settle()


@pytest.fixture
def files(lab: Any) -> Path:
    """What the forms name, where the notebooks are."""
    (lab.root / "pictures").mkdir(exist_ok=True)
    for name in ("a.bin", "b.bin", "dataset.toml"):
        (lab.root / name).touch()
    return lab.root


def start(open_notebook: Any, source: str, *more: str, width_px: int = 1280) -> Person:
    notebook = open_notebook([source, *more], width_px=width_px)
    notebook.run_cell(0)
    notebook.page.wait_for_selector(".dpnb .dpnb-grid")
    return Person(notebook)


def test_every_kind_of_field_is_set_saved_reloaded_and_unset_by_hand(open_notebook: Any, files: Path) -> None:
    person = start(open_notebook, ZOO)
    set_everything(person)
    person.fold()
    person.notebook.screenshot("zoo-set", CARD)
    person.save("zoo.toml")
    assert (files / "zoo.toml").read_text() == toml.dump(SET)
    assert "hunter2" not in (files / "zoo.toml").read_text()
    unset_everything(person)
    person.save("empty.toml")
    assert toml.load(files / "empty.toml", Zoo).value == Zoo()
    person.type("File", "zoo.toml")
    person.press("Load")
    person.form.get_by_text("Loaded zoo.toml.").wait_for()
    person.open("General")
    for label, text in TYPED.items():
        assert person.field(label).input_value() == text
    assert person.field("Recompute").locator("option:checked").inner_text() == "unsloth"
    assert person.field("Flag").is_checked()
    person.save("again.toml")
    assert toml.load(files / "again.toml", Zoo, paths=False).value == SET.model_copy(update={"key": None})
    assert person.notebook.our_errors() == []


def set_everything(person: Person) -> None:
    for label, text in TYPED.items():
        person.type(label, text)
    for label, option in CHOSEN.items():
        person.choose(label, option)
    person.check("Flag")
    person.choose("Names or text", "several, with commas")
    person.type("several, with commas", "x, y")
    person.type("Key", "hunter2")
    person.open("Toys")
    for position, title in enumerate(("ball", "bone")):
        person.press("Add a toy")
        person.form.get_by_label("Title", exact=True).nth(position).fill(title)
        person.form.get_by_label("Title", exact=True).nth(position).press("Tab")
        person.settle()
    person.open("Favourite")
    person.check("Use Favourite")
    person.type("Title", "ball")
    person.open("Keeper")
    person.check("Use Keeper")
    person.type("Name", "Ann")
    person.type("Further parameters", "age = 40")
    person.open("Pet")
    person.choose("Pet type", "dog: A dog")
    person.type("Name", "Rex")
    person.type("Tricks", "sit")


def unset_everything(person: Person) -> None:
    """Empty what an emptied input unsets, and press Reset where a value of its own may be empty."""
    person.open("Pet")
    person.choose("Pet type", "cat: A cat")
    person.type("Name", "")
    for page in ("Keeper", "Favourite"):
        person.open(page)
        person.check(f"Use {page}", on=False)
    person.open("Toys")
    for _ in range(2):
        person.press("Remove")
    person.open("General")
    for label in ("Whole", "Number", "Folder", "Weights", "Pairs"):
        person.type(label, "")
    resets = person.form.get_by_role("button", name="Reset", exact=True).locator("visible=true")
    while left := resets.count():
        resets.first.click()
        person.settle()
        person.notebook.until(lambda left=left: resets.count() < left, "Reset does nothing")


def test_a_training_made_by_hand_is_the_training_made_in_code(open_notebook: Any, files: Path) -> None:
    person = start(open_notebook, TRAINING, "form.set('max_steps', 1234)", "print(form.value.warmup_steps)")
    person.open("Model")
    person.type("Diffusers path", "pictures")
    person.open("Optimizer")
    person.type("LR", "5e-4")
    person.page.keyboard.press("Enter")  # Tab has left the field for the button that takes it a step down
    person.notebook.until(lambda: person.field("LR").input_value() == "2e-4", "Enter takes no step")
    person.open("Adapter")
    person.type("Rank", "7")
    person.press("Rank: one step up")
    person.open("Sample")
    person.press("Remove")
    person.type("Text", 'a "zorbi"')
    person.open("Monitoring")
    person.check("Use Monitoring")
    person.open("General")
    person.type("Warmup steps", "33")
    person.notebook.run_cell(1)
    person.notebook.until(lambda: person.field("Max steps").input_value() == "1234", "code does not reach the form")
    person.notebook.run_cell(2)
    printed = person.page.locator(".jp-OutputArea-output pre").last
    person.notebook.until(lambda: printed.inner_text().strip() == "33", "the form does not reach code")
    person.fold()
    person.save("run.toml")
    wanted = training(
        {"diffusers_path": "pictures"},
        optimizer=AdamW(lr=2e-4),
        adapter=LoraAdapter(rank=8),
        sample=Sampling(prompts=[Prompt(text='a "zorbi"')], every_n_epochs=5),
        monitoring=Monitoring(),
        warmup_steps=33,
        max_steps=1234,
    )
    assert (files / "run.toml").read_text() == toml.dump(wanted)
    assert person.notebook.our_errors() == []


def test_undo_redo_and_search_by_hand(open_notebook: Any, files: Path) -> None:
    person = start(open_notebook, TRAINING)
    person.type("Warmup steps", "33")
    person.press("Undo")
    person.notebook.until(lambda: person.field("Warmup steps").input_value() == "20", "nothing is undone")
    person.press("Redo")
    person.notebook.until(lambda: person.field("Warmup steps").input_value() == "33", "nothing is redone")
    person.page.keyboard.press("Escape")
    search = person.field("Search fields")
    search.click()
    person.page.keyboard.type("uncond")
    person.form.get_by_text("1 field found.").wait_for()
    person.page.keyboard.press("Tab")  # Undo
    person.page.keyboard.press("Tab")  # Show advanced fields; Redo is off
    person.page.keyboard.press("Tab")
    person.page.keyboard.type("0.5")
    person.page.keyboard.press("Tab")
    person.settle()
    assert person.field("Uncond fraction").input_value() == "0.5"
    search.fill("")
    person.form.get_by_role("tab", name="General").wait_for()
    person.check("Show advanced fields")
    person.notebook.until(lambda: person.field("Uncond fraction").input_value() == "0.5", "the edit is lost")
    assert person.notebook.our_errors() == []


def test_a_path_is_chosen_from_the_list_with_the_keyboard(open_notebook: Any, files: Path) -> None:
    (files / "deep" / "er").mkdir(parents=True, exist_ok=True)
    person = start(open_notebook, TRAINING)
    browse = person.form.get_by_role("button", name="Browse").first
    browse.focus()
    person.page.keyboard.press("Enter")
    person.form.get_by_role("button", name="deep/").focus()
    person.page.keyboard.press("Enter")
    person.form.get_by_role("button", name="er/").wait_for()
    person.notebook.screenshot("picker", CARD)
    person.press("Use this folder")
    person.notebook.until(lambda: person.field("Output dir").input_value() == "deep", "nothing is picked")
    assert person.notebook.our_errors() == []


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_forms_are_readable_at_900_px(open_notebook: Any, files: Path, theme: str) -> None:
    person = start(open_notebook, TRAINING, width_px=900)
    name = theme.rsplit(maxsplit=1)[-1].lower()
    person.notebook.set_theme(theme)
    person.type("Epochs", "many")
    person.fold()
    person.check("Show advanced fields")
    for page in ("General", "Model", "Adapter", "Optimizer", "Evaluation", "Saving", "Sample", "Monitoring"):
        person.open(page)
        person.notebook.screenshot(f"900-{name}-{page.lower()}", CARD)
        width, room = person.form.evaluate("e => [e.scrollWidth, e.clientWidth]")
        assert width <= room + 1, f"{page} is wider than the page"
        assert cut_off(person) == []
    unlabelled = person.form.evaluate(
        """e => [...e.querySelectorAll('input, select, textarea')]
          .filter(i => i.offsetParent && ![...i.labels].some(label => label.textContent.trim())).length"""
    )
    assert unlabelled == 0
    assert person.notebook.our_errors() == []


def cut_off(person: Person) -> list[str]:
    """Labels and tab titles that are not seen whole."""
    return person.form.evaluate(
        """e => [...e.querySelectorAll('.lm-TabBar-tabLabel, .dpnb-cell .widget-label, .dpnb-small')]
          .filter(l => l.offsetParent && l.scrollWidth > l.clientWidth + 1 && !l.matches('.dpnb-fold, .dpnb-entry'))
          .map(l => l.textContent)"""
    )


FOLDERS = """
from dpnb.schema import Dataset, Directory
from dpnb.widgets.form import Form
folders = [Directory(path=f'pictures/{i}') for i in range(30)]
form = Form(Dataset(resolutions=[512], directory=folders), first=('directory',))
form
"""


def test_thirty_folders_are_folded_and_moved_by_hand(open_notebook: Any, files: Path) -> None:
    for position in range(30):
        (files / "pictures" / str(position)).mkdir(exist_ok=True)
    person = start(open_notebook, FOLDERS, "print([item.path for item in form.value.directory][:4])", width_px=900)
    folds = person.form.locator(".dpnb-fold")
    assert folds.nth(2).inner_text() == "▸ Directory 3: pictures/2"
    assert person.form.get_by_label("Path", exact=True).count() == 0
    folds.nth(2).click()
    person.field("Path").wait_for()
    person.press("Move up", 1)
    person.notebook.until(lambda: folds.nth(1).inner_text() == "▾ Directory 2: pictures/2", "it does not move")
    person.press("Duplicate", 0)
    person.notebook.until(lambda: folds.nth(1).inner_text() == "▾ Directory 2: pictures/0", "it is not duplicated")
    person.press("Remove", 0)
    person.notebook.until(lambda: folds.nth(0).inner_text() == "▾ Directory 1: pictures/0", "it is not removed")
    person.notebook.screenshot("folders-900", CARD)
    person.notebook.run_cell(1)
    printed = person.page.locator(".jp-OutputArea-output pre").last
    wanted = ["pictures/0", "pictures/2", "pictures/1", "pictures/3"]
    person.notebook.until(lambda: printed.inner_text().strip() == str(wanted), "the value is another one")
    assert person.notebook.our_errors() == []
