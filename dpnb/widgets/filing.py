"""The file that a form belongs to: its text with what was changed in the form, and saving without loss.

What a person wrote into the file stays as it is (dpnb/toml/edit.py); what somebody else has written since it was read
is not overwritten unless that is asked for. No widgets here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import SecretStr

from dpnb.errors import ConfigError, Problem
from dpnb.schema.base import Section, ui_of
from dpnb.schema.unions import section_for, sections_below
from dpnb.toml import Document, dump
from dpnb.toml.edit import save
from dpnb.toml.secrets import without_secrets
from dpnb.toml.syntax import parse, read
from dpnb.toml.write import homogeneous

S = TypeVar("S", bound=Section)


class Filing(Generic[S]):
    """The file of one form, or none yet."""

    def __init__(self) -> None:
        self.document: Document[S] | None = None

    def text_of(self, value: S) -> str:
        """The TOML text of a value, with the comments of the file that it came from and without any secret."""
        return dump(value) if self.document is None else without_secrets(self.document.edited(value))

    def shown_on_disk(self) -> str:
        """The text that the file holds now, without its secrets; empty where there is none.

        Raises `ConfigError` where it cannot be read or is no TOML.
        """
        if self.document is None or not self.document.path.exists():
            return ""
        text = read(self.document.path)
        parse(self.document.path, text)
        return without_secrets(text)

    def save(self, value: S, path: Path | str | None, *, overwrite: bool) -> Path:
        """Write the file, whole or not at all, and belong to it from now on.

        Raises `ConfigError` when no file is known, when another program has changed it since it was read, unless
        `overwrite`, or when it cannot be written.
        """
        own = self.document.path if self.document is not None else None
        target = Path(path) if path is not None else own
        if target is None:
            message = "this form came from no file."
            raise ConfigError([Problem("error", "path", (), message, "Name one: save('run.toml').")])
        same = own is not None and target.absolute() == own.absolute()
        if same and not overwrite:
            self._must_be_unchanged()
        # In a person's own file a secret of theirs stays; into another one it does not go.
        text = self.document.edited(value) if same and self.document is not None else self.text_of(value)
        target.parent.mkdir(parents=True, exist_ok=True)
        save(target, text)
        self.document = Document(target, value, text)
        return target

    def _must_be_unchanged(self) -> None:
        assert self.document is not None
        if self.document.path.exists() and read(self.document.path) != self.document.text:
            message = "has been changed by something else since this form read or saved it."
            advice = "Load it again, save to another file, or write over it with save(overwrite=True)."
            raise ConfigError([Problem("error", "path", (), message, advice, str(self.document.path))])


def rough_text(cls: type[Section], data: dict[str, Any]) -> str:
    """TOML of data that is not valid yet, as typed, in the order of the schema and without secrets."""
    import tomlkit

    return tomlkit.dumps(_ordered(cls, data))


def _ordered(cls: type[Section] | None, data: dict[str, Any]) -> dict[str, Any]:
    """Plain keys before tables, as a TOML file needs them, without what TOML cannot hold."""
    fields = cls.model_fields if cls is not None else {}
    always = {
        name: info.default
        for name, info in fields.items()
        if ui_of(info).is_always_written(data.get) and not info.is_required()
    }
    data = always | data
    order = [*(key for key in fields if key in data), *(key for key in data if key not in fields)]
    kept = {key: data[key] for key in order if data[key] is not None and not isinstance(data[key], SecretStr)}
    tables: dict[str, Any] = {}
    for key in [key for key, value in kept.items() if _is_table(value)]:
        kinds, value = sections_below(fields[key].annotation) if key in fields else [], kept.pop(key)
        items = [_ordered(section_for(kinds, item) if kinds else None, item) for item in _as_list(value)]
        tables[key] = items if isinstance(value, list) else items[0]
    return {key: homogeneous(value) for key, value in kept.items()} | tables


def _is_table(value: Any) -> bool:  # noqa: ANN401 - anything that a draft holds
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401 - a table or a list of them
    return value if isinstance(value, list) else [value]
