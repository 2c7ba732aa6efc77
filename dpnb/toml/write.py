"""Sections as TOML text: a whole file (`dump`), one table with its header (`block`), one value (`inline`).

What is written is what differs from the defaults, in the schema's order, in a form that diffusion-pipe's own parser
(toml 0.10.2) reads too: no array mixes whole numbers with fractions. What is not here: changes to a text that
somebody wrote (dpnb/toml/edit.py).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dpnb.errors import ConfigError, Loc, errors_in
from dpnb.schema.base import Section, help_of, ui_of

if TYPE_CHECKING:
    from tomlkit.container import Container
    from tomlkit.items import Table

Profile: TypeAlias = Literal["dpnb", "diffusion-pipe"]


def dump(value: Section, *, everything: bool = False, comments: bool = False, profile: Profile = "dpnb") -> str:
    """The TOML text of a section: only what differs from the defaults unless `everything`, in the schema's order.

    `comments` puts each key's help above it. Secrets are never written. None is left out. With the profile
    "diffusion-pipe", raises `ConfigError` with every key and value that diffusion-pipe would not read or would refuse,
    and leaves out our own keys even where `everything` is asked for.
    """
    import tomlkit

    upstream = profile == "diffusion-pipe"
    if upstream:
        from dpnb.schema.profiles import not_upstream

        if problems := errors_in(not_upstream(value)):
            raise ConfigError(problems)
    document = tomlkit.document()
    _fill(document, value, everything=everything, comments=comments, ours=not upstream)
    return tomlkit.dumps(document)


def block(loc: Loc, value: Section | list[Section]) -> str:
    """One table, or a list of tables, below its header: [sample] or [[sample.prompts]]."""
    import tomlkit

    inner: Any = tomlkit.aot() if isinstance(value, list) else tomlkit.table()
    for entry in value if isinstance(value, list) else [value]:
        table = tomlkit.table() if isinstance(value, list) else inner
        _fill(table, entry, everything=False, comments=False, ours=True)
        if isinstance(value, list):
            inner.append(table)
    path = [part for part in loc if isinstance(part, str)]
    for part in reversed(path[1:]):
        outer = tomlkit.table(is_super_table=True)
        outer.add(part, inner)
        inner = outer
    document = tomlkit.document()
    document.add(path[0], inner)
    return tomlkit.dumps(document)


def inline(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
    """A value on one line; sections become inline tables."""
    import tomlkit

    if isinstance(value, Section):
        value = {key: item for key, item in keys_of(value).items() if item is not None and differs(value, key)}
    if isinstance(value, dict):
        return "{" + ", ".join(f"{tomlkit.key(k).as_string()} = {inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, homogeneous(value))) + "]"
    return str(tomlkit.item(value).as_string())


def keys_of(value: Section) -> dict[str, Any]:
    """The keys of a section with their values, in the schema's order; those that it takes besides come last."""
    return {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})


def differs(value: Section, key: str) -> bool:
    """Whether a key has to stand in a file: it differs from its default, or a reader could not do without it."""
    info = type(value).model_fields.get(key)
    if info is None or info.is_required() or key == "type":
        return True
    return bool(getattr(value, key) != info.get_default(call_default_factory=True))


def homogeneous(value: Any) -> Any:  # noqa: ANN401 - anything that TOML can hold
    """Lists that mix whole numbers and fractions become all fractions: diffusion-pipe's parser wants one type."""
    if not isinstance(value, list):
        return value
    if any(isinstance(item, float) for item in value):
        return [float(item) for item in value]
    return [homogeneous(item) for item in value]


def _fill(table: Container | Table, value: Section, *, everything: bool, comments: bool, ours: bool) -> None:
    """Add the keys of a section to a tomlkit container, sub-tables last: a key below a header would belong to it."""
    import tomlkit

    fields = type(value).model_fields
    tables: list[tuple[str, Any]] = []
    for name, item in keys_of(value).items():
        info = fields.get(name)
        ui = ui_of(info) if info is not None else None
        if item is None or (ui is not None and (ui.secret or (ui.ours and not ours))):
            continue
        if (
            not everything
            and not (ui is not None and ui.is_always_written(partial(getattr, value)))
            and not differs(value, name)
        ):
            continue
        if isinstance(item, Section) or (isinstance(item, list) and item and isinstance(item[0], Section)):
            tables.append((name, item))
            continue
        if comments and (words := help_of(type(value), name)):
            table.add(tomlkit.comment(words))
        if isinstance(item, dict):
            # As a table of its own it would swallow the keys behind it.
            braces = tomlkit.inline_table()
            braces.update(item)
            table.add(name, braces)
        else:
            table.add(name, homogeneous(item))
    for name, item in tables:
        below: Any = tomlkit.aot() if isinstance(item, list) else tomlkit.table()
        for entry in item if isinstance(item, list) else [item]:
            inner = tomlkit.table() if isinstance(item, list) else below
            _fill(inner, entry, everything=everything, comments=comments, ours=ours)
            if isinstance(item, list):
                below.append(inner)
        table.add(name, below)
