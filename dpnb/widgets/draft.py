"""What has been typed into a form so far: plain data, as a TOML file would hold it, and its validation.

The draft is the truth and widgets are views of it, so a page that nobody has opened costs nothing and a form works
without a browser. The data is sparse: a key that was not set is absent, and then holds its default. A text that is
not a number yet is kept as the text, and the validator says so in its own words. No widgets here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import SecretStr

from dpnb.errors import Loc, Problem
from dpnb.schema.base import Section
from dpnb.schema.families.base import FamilyFacts
from dpnb.schema.model import FACTS
from dpnb.schema.paths import check_paths
from dpnb.schema.unions import arm_of, section_for, tag_of
from dpnb.toml import validate
from dpnb.widgets.applies import family_allows
from dpnb.widgets.further import own_keys, read_further
from dpnb.widgets.shapes import Spec


class _Unset:
    """The value of a key that is absent."""

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Final = _Unset()


def to_data(section: Section) -> dict[str, Any]:
    """A section as sparse plain data: what differs from the defaults, what is required, and every nested section."""
    data: dict[str, Any] = {}
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None:
            continue
        if isinstance(value, Section):
            data[name] = to_data(value)
        elif isinstance(value, list) and value and isinstance(value[0], Section):
            data[name] = [to_data(item) for item in value]
        elif info.is_required() or name == "type" or value != info.get_default(call_default_factory=True):
            data[name] = (
                SecretStr(value) if isinstance(value, str) and is_secret(type(section), name) else deepcopy(value)
            )
    return data | deepcopy(section.model_extra or {})


def blank_data(cls: type[Section]) -> dict[str, Any]:
    """The data of a section in which nothing has been typed: its `type`, and the tables that must stand below it."""
    data: dict[str, Any] = {}
    for name in cls.model_fields:
        spec = Spec.of(cls, name, (name,))
        if name == "type":
            # The section that takes any other type has none yet; an empty one is what says that it is meant.
            data[name] = tag_of(cls) or ""
        elif isinstance(spec.default, Section):
            data[name] = to_data(spec.default)
        elif "list[section]" in spec.shape.arms and spec.default:
            data[name] = [to_data(item) for item in spec.default]
        elif spec.required and "section" in spec.shape.arms:
            data[name] = blank_data(spec.shape.sections[0])
        elif spec.required and "list[section]" in spec.shape.arms:
            data[name] = [blank_data(spec.shape.sections[0])]
    return data


Left: TypeAlias = dict[tuple[Loc, str | None], dict[str, Any]]


class Draft:
    """Sparse plain data of one section, with the edits that a form makes. Not locked: the form does that."""

    def __init__(self, cls: type[Section], data: dict[str, Any]) -> None:
        self.cls = cls
        self.data = data
        self.family: FamilyFacts | None = None
        # What was typed into a union's other variants and into switched-off sections: (place, tag) -> data.
        self.left: Left = {}
        # Files that somebody will write before they are needed: not to be there yet is no mistake.
        self.coming: frozenset[Path] = frozenset()
        # Texts of further parameters that cannot be read, by the section that they belong to.
        self.unread: dict[Loc, str] = {}

    # --- reading -------------------------------------------------------------------------------------------------

    def get(self, loc: Loc) -> Any:  # noqa: ANN401 - anything that TOML can hold
        """What is typed at a place, or UNSET."""
        here: Any = self.data
        for part in loc:
            in_list = isinstance(here, list) and isinstance(part, int) and part < len(here)
            if in_list or (isinstance(here, dict) and part in here):
                here = here[part]
            else:
                return UNSET
        return here

    def value(self, spec: Spec) -> Any:  # noqa: ANN401 - anything that TOML can hold
        """What holds for a field: what is typed, else its default."""
        typed = self.get(spec.loc)
        return spec.default if typed is UNSET else typed

    def changed(self, spec: Spec) -> bool:
        """True when a field with a default holds something else."""
        typed = self.get(spec.loc)
        return not spec.required and typed is not UNSET and typed != spec.default

    @property
    def facts(self) -> FamilyFacts | None:
        """The facts of the architecture that this is for: `family` where a form was told it, else the model's type."""
        return self.family or FACTS.get(str(self.get(("model", "type"))))

    def applies(self, spec: Spec) -> bool:
        """False when the field has no effect as things are (`Ui.when`, and what the family supports).

        A sibling that is not set is looked up in the enclosing sections too: a dataset's folder inherits from it.
        """
        if not family_allows(spec, self.facts):
            return False
        if spec.ui.when is None:
            return True
        sibling, wanted = spec.ui.when
        for cut in range(len(spec.loc) - 1, -1, -1):
            owner = self.class_at(spec.loc[:cut])
            if owner is None or sibling not in owner.model_fields:
                continue
            value = self.value(Spec.of(owner, sibling, (*spec.loc[:cut], sibling)))
            if value is not None:
                return value in wanted
        return None in wanted

    def class_at(self, loc: Loc) -> type[Section] | None:
        """The section class that stands at a place, by the `type` keys of the data; None where there is none."""
        cls: type[Section] = self.cls
        pending: tuple[type[Section], ...] = (self.cls,)
        is_list = False
        for depth, part in enumerate(loc):
            if isinstance(part, int):
                is_list = False
                continue
            if is_list or part not in cls.model_fields:
                return None
            shape = Spec.of(cls, part, (part,)).shape
            pending = shape.sections
            if not pending:
                return None
            is_list = "list[section]" in shape.arms
            after = loc[: depth + 2] if is_list else loc[: depth + 1]
            data = self.get(after)
            cls = section_for(pending, data if isinstance(data, Mapping) else {})
        return None if is_list else cls

    def sections(self) -> Iterator[tuple[Loc, type[Section], dict[str, Any]]]:
        """Every section of the data from the root down: its place, class and own data."""
        yield from self._sections((), self.cls, self.data)

    def _sections(
        self, loc: Loc, cls: type[Section], data: dict[str, Any]
    ) -> Iterator[tuple[Loc, type[Section], dict[str, Any]]]:
        yield loc, cls, data
        for name, value in data.items():
            below = Spec.of(cls, name, (name,)).shape.sections if name in cls.model_fields else ()
            if not below:
                continue
            places = [((*loc, name), value)] if isinstance(value, dict) else []
            if isinstance(value, list):
                places = [((*loc, name, i), item) for i, item in enumerate(value) if isinstance(item, dict)]
            for place, item in places:
                yield from self._sections(place, section_for(below, item), item)

    def validate(self) -> tuple[Section | None, list[Problem]]:
        """The object (None when it cannot be built) and all problems, missing paths among them."""
        value, problems = validate(_with_texts_told(self), self.cls)
        for loc, text in self.unread.items():
            cls = self.class_at(loc)
            problems = [*problems, *read_further(text, loc, tuple(cls.model_fields) if cls is not None else ())[1]]
        return value, [*problems, *self._path_problems()]

    def _path_problems(self) -> list[Problem]:
        """Paths that must exist and do not; found section by section, so that an error elsewhere hides none."""
        found = []
        for loc, cls, data in self.sections():
            own: dict[str, Any] = dict.fromkeys(cls.model_fields)
            own |= {name: value for name, value in data.items() if name in own and isinstance(value, str | list)}
            found += [
                Problem(p.severity, p.code, (*loc, *p.loc), p.message, p.suggestion)
                for p in check_paths(cls.model_construct(**own))
            ]
        return [problem for problem in found if not self._is_coming(problem.loc)]

    def _is_coming(self, loc: Loc) -> bool:
        path = self.get(loc)
        return isinstance(path, str) and Path(path).absolute() in self.coming

    # --- editing -------------------------------------------------------------------------------------------------

    def put(self, loc: Loc, value: Any) -> None:  # noqa: ANN401 - anything that TOML can hold
        """Set a key (UNSET takes it out); sections on the way that are not there yet are made.

        A `type` that means another section of its union switches to that one.
        """
        for cut in range(1, len(loc)):
            if self.get(loc[:cut]) is UNSET and (cls := self.class_at(loc[:cut])) is not None:
                self._parent(loc[:cut])[loc[cut - 1]] = blank_data(cls)
        if loc[-1:] == ("type",) and self._retype(loc, value):
            return
        parent = self._parent(loc)
        if value is not UNSET:
            parent[loc[-1]] = _sealed(self, loc, value)
        elif isinstance(parent, dict):
            parent.pop(loc[-1], None)

    def _parent(self, loc: Loc) -> Any:  # noqa: ANN401 - a dict or a list
        parent = self.get(loc[:-1])
        if not isinstance(parent, (dict, list)):
            raise KeyError(f"there is no {'.'.join(map(str, loc[:-1]))} to hold {loc[-1]!r}")
        return parent

    def _retype(self, loc: Loc, value: Any) -> bool:  # noqa: ANN401 - anything that TOML can hold
        """Switch a union's variant where a new `type` means another one; False where it means the same."""
        kinds = self.kinds_at(loc[:-1])
        to = section_for(kinds, {"type": value}) if kinds and isinstance(value, str) else None
        if to is None or to is self.class_at(loc[:-1]):
            return False
        self.switch(loc[:-1], to)
        self.data_at(loc[:-1])["type"] = value
        return True

    def kinds_at(self, loc: Loc) -> tuple[type[Section], ...]:
        """The sections that may stand at a place."""
        names = [part for part in loc if isinstance(part, str)]
        if not names:
            return ()
        owner = self.class_at(loc[: len(loc) - 1 - loc[::-1].index(names[-1])])
        return Spec.of(owner, names[-1], loc).shape.sections if owner and names[-1] in owner.model_fields else ()

    def data_at(self, loc: Loc) -> dict[str, Any]:
        """The table at a place; an empty one that belongs to nothing where there is none."""
        here = self.get(loc)
        return here if isinstance(here, dict) else {}

    def replace(self, data: dict[str, Any]) -> None:
        """Hold other data altogether."""
        self.data, self.left, self.unread = data, {}, {}

    def put_further(self, loc: Loc, text: str) -> None:
        """Replace the keys of an open section (`extra="allow"`) that are none of its fields, from TOML lines."""
        cls, data = self.class_at(loc), self.data_at(loc)
        assert cls is not None, f"there is no section at {loc}"
        further, problems = read_further(text, loc, tuple(cls.model_fields))
        self.unread.pop(loc, None)
        if problems:
            self.unread[loc] = text
            return
        for key in own_keys(cls, data):
            del data[key]
        data.update(further)

    def switch(self, loc: Loc, to: type[Section]) -> None:
        """Make a union hold another variant: shared keys keep what was typed, the variant's own come back."""
        before, old = self.class_at(loc), self.data_at(loc)
        self.unread.pop(loc, None)
        self.left[loc, arm_of(before) if before is not None else None] = old
        new = deepcopy(self.left.get((loc, arm_of(to)), blank_data(to)))
        for name in to.model_fields:
            if name == "type" or before is None or name not in before.model_fields:
                continue
            if name in old and (
                Spec.of(before, name, loc).required or old[name] != Spec.of(before, name, loc).default
            ):
                new[name] = deepcopy(old[name])
            else:
                # The key stands at its default now: it shall not spring back to something typed long ago.
                new.pop(name, None)
        parent = self._parent(loc)
        parent[loc[-1]] = new

    def toggle(self, loc: Loc, cls: type[Section], on: bool) -> None:
        """Switch an optional section on (with what it held before) or off."""
        here = self.get(loc)
        if on and here is UNSET:
            self.put(loc, deepcopy(self.left.get((loc, None), blank_data(cls))))
        elif not on and isinstance(here, dict):
            self.left[loc, None] = here
            self.unread.pop(loc, None)
            self.put(loc, UNSET)

    def add(self, loc: Loc, cls: type[Section]) -> None:
        """Append a blank section to a list."""
        items = self.get(loc)
        self._reorder(loc, [*(items if isinstance(items, list) else []), blank_data(cls)])

    def duplicate(self, loc: Loc, position: int) -> None:
        """Put a copy of an item of a list right behind it."""
        items = list(self.get(loc))
        items.insert(position + 1, deepcopy(items[position]))
        self._reorder(loc, items)

    def remove(self, loc: Loc, position: int) -> None:
        """Take an item out of a list of sections; the last one takes the key out too."""
        self._reorder(loc, [item for i, item in enumerate(self.get(loc)) if i != position])

    def move(self, loc: Loc, position: int, by: int) -> None:
        """Move an item of a list up (`by=-1`) or down; at the end of the list nothing happens."""
        items = list(self.get(loc))
        target = position + by
        if 0 <= target < len(items):
            items[position], items[target] = items[target], items[position]
            self._reorder(loc, items)

    def _reorder(self, loc: Loc, items: list[Any]) -> None:
        """Places below a list mean other items from now on: drop what was kept for them."""
        self.left = {key: data for key, data in self.left.items() if key[0][: len(loc)] != loc}
        self.unread = {place: text for place, text in self.unread.items() if place[: len(loc)] != loc}
        parent = self._parent(loc)
        if items:
            parent[loc[-1]] = items
        else:
            parent.pop(loc[-1], None)


def is_secret(cls: type[Section], name: str) -> bool:
    """True for a key whose value is never shown, kept or written."""
    if name not in cls.model_fields:
        return False
    spec = Spec.of(cls, name, (name,))
    return spec.ui.secret or "secret" in spec.shape.arms


def _sealed(draft: Draft, loc: Loc, value: Any) -> Any:  # noqa: ANN401 - anything that TOML can hold
    """A value with every secret in it closed, so that no print or message shows it."""
    if isinstance(value, dict):
        return {key: _sealed(draft, (*loc, key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_sealed(draft, (*loc, i), item) for i, item in enumerate(value)]
    if not isinstance(value, str) or not isinstance(loc[-1], str):
        return value
    kinds = {cls for cls in (draft.class_at(loc[:-1]), *draft.kinds_at(loc[:-1])) if cls is not None}
    return SecretStr(value) if any(is_secret(cls, loc[-1]) for cls in kinds) else value


def _with_texts_told(draft: Draft) -> dict[str, Any]:
    """The data of a draft, with the secrets of plain text fields told: a strict `str` takes no SecretStr."""
    told = [
        (loc, name, value)
        for loc, cls, data in draft.sections()
        for name, value in data.items()
        if isinstance(value, SecretStr) and "secret" not in Spec.of(cls, name, loc).shape.arms
    ]
    trial = Draft(draft.cls, deepcopy(draft.data)) if told else draft
    for loc, name, value in told:
        trial.data_at(loc)[name] = value.get_secret_value()
    return trial.data
