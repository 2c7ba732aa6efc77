"""What has been typed into a form so far: plain data, as a TOML file would hold it, and its validation.

The draft is the truth and widgets are views of it, so a page that nobody has opened costs nothing and a form works
without a browser. The data is sparse: a key that was not set is absent, and then holds its default. A text that is
not a number yet is kept as the text, and the validator says so in its own words. No widgets here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from pydantic import SecretStr

from dpnb.errors import Loc, Problem
from dpnb.schema.base import Section
from dpnb.schema.rules import check_paths
from dpnb.toml import validate
from dpnb.widgets.shapes import Spec, member_for, tag_of


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
            data[name] = value.get_secret_value() if isinstance(value, SecretStr) else deepcopy(value)
    return data


def blank_data(cls: type[Section]) -> dict[str, Any]:
    """The data of a section in which nothing has been typed: its `type`, and the tables that must stand below it."""
    data: dict[str, Any] = {}
    for name in cls.model_fields:
        spec = Spec.of(cls, name, (name,))
        if name == "type" and (tag := tag_of(cls)) is not None:
            data[name] = tag
        elif isinstance(spec.default, Section):
            data[name] = to_data(spec.default)
        elif "list[section]" in spec.shape.arms and spec.default:
            data[name] = [to_data(item) for item in spec.default]
        elif spec.required and "section" in spec.shape.arms:
            data[name] = blank_data(spec.shape.sections[0])
        elif spec.required and "list[section]" in spec.shape.arms:
            data[name] = [blank_data(spec.shape.sections[0])]
    return data


class Draft:
    """Sparse plain data of one section, with the edits that a form makes. Not locked: the form does that."""

    def __init__(self, cls: type[Section], data: dict[str, Any]) -> None:
        self.cls = cls
        self.data = data
        # What was typed into a union's other variants and into switched-off sections: (place, tag) -> data.
        self._left: dict[tuple[Loc, str | None], dict[str, Any]] = {}

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

    def applies(self, spec: Spec) -> bool:
        """False when the field has no effect as things are (`Ui.when`).

        A sibling that is not set is looked up in the enclosing sections too: a dataset's folder inherits from it.
        """
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
            cls = member_for(pending, data if isinstance(data, Mapping) else {})
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
                yield from self._sections(place, member_for(below, item), item)

    def validate(self) -> tuple[Section | None, list[Problem]]:
        """The object (None when it cannot be built) and all problems, missing paths among them."""
        value, problems = validate(self.data, self.cls)
        return value, [*problems, *self._path_problems()]

    def _path_problems(self) -> list[Problem]:
        """Paths that must exist and do not; found section by section, so that an error elsewhere hides none."""
        found = []
        for loc, cls, data in self.sections():
            own: dict[str, Any] = dict.fromkeys(cls.model_fields)
            own |= {name: value for name, value in data.items() if name in own and isinstance(value, str)}
            found += [
                Problem(p.severity, p.code, (*loc, *p.loc), p.message, p.suggestion)
                for p in check_paths(cls.model_construct(**own))
            ]
        return found

    # --- editing -------------------------------------------------------------------------------------------------

    def put(self, loc: Loc, value: Any) -> None:  # noqa: ANN401 - anything that TOML can hold
        """Set a key (UNSET takes it out); sections on the way that are not there yet are made."""
        for cut in range(1, len(loc)):
            if self.get(loc[:cut]) is UNSET and (cls := self.class_at(loc[:cut])) is not None:
                self._parent(loc[:cut])[loc[cut - 1]] = blank_data(cls)
        parent = self._parent(loc)
        if value is not UNSET:
            parent[loc[-1]] = value
        elif isinstance(parent, dict):
            parent.pop(loc[-1], None)

    def _parent(self, loc: Loc) -> Any:  # noqa: ANN401 - a dict or a list
        parent = self.get(loc[:-1])
        if not isinstance(parent, (dict, list)):
            raise KeyError(f"there is no {'.'.join(map(str, loc[:-1]))} to hold {loc[-1]!r}")
        return parent

    def switch(self, loc: Loc, to: type[Section]) -> None:
        """Make a union hold another variant: shared keys keep what was typed, the variant's own come back."""
        old = self.get(loc)
        old = old if isinstance(old, dict) else {}
        before = self.class_at(loc)
        self._left[loc, old.get("type")] = old
        new = deepcopy(self._left.get((loc, tag_of(to)), blank_data(to)))
        shared = [name for name in to.model_fields if name in before.model_fields] if before is not None else []
        for name in shared:
            if name == "type" or before is None:
                continue
            if name in old and (
                Spec.of(before, name, loc).required or old[name] != Spec.of(before, name, loc).default
            ):
                new[name] = deepcopy(old[name])
            else:
                # The key stands at its default now: it shall not spring back to something typed long ago.
                new.pop(name, None)
        self.put(loc, new)

    def toggle(self, loc: Loc, cls: type[Section], on: bool) -> None:
        """Switch an optional section on (with what it held before) or off."""
        here = self.get(loc)
        if on and here is UNSET:
            self.put(loc, deepcopy(self._left.get((loc, None), blank_data(cls))))
        elif not on and isinstance(here, dict):
            self._left[loc, None] = here
            self.put(loc, UNSET)

    def add(self, loc: Loc, cls: type[Section]) -> None:
        """Append a blank section to a list."""
        items = self.get(loc)
        self.put(loc, [*(items if isinstance(items, list) else []), blank_data(cls)])

    def remove(self, loc: Loc, position: int) -> None:
        """Take an item out of a list of sections; the last one takes the key out too."""
        items = [item for i, item in enumerate(self.get(loc)) if i != position]
        self._forget(loc)
        self.put(loc, items or UNSET)

    def move(self, loc: Loc, position: int, by: int) -> None:
        """Move an item of a list up (`by=-1`) or down; at the end of the list nothing happens."""
        items = list(self.get(loc))
        target = position + by
        if 0 <= target < len(items):
            items[position], items[target] = items[target], items[position]
            self._forget(loc)
            self.put(loc, items)

    def _forget(self, loc: Loc) -> None:
        """Places below a list mean other items once it is reordered: drop what was kept for them."""
        self._left = {key: data for key, data in self._left.items() if key[0][: len(loc)] != loc}
