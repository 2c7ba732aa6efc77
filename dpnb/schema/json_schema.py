"""The JSON Schema of a file, for completion and checks in editors (taplo, Even Better TOML in VS Code).

pydantic derives most of it; here it becomes what an editor of TOML can use: draft 7, no null (TOML has none), no class
names, the unit in each description, `type` required where it tells tables apart, and short forms allowed. What is not
here: rules across keys and paths, which only `dpnb validate` knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from dpnb.schema.base import Section, help_of, ui_of
from dpnb.schema.unions import sections_below, tag_of

Node: TypeAlias = dict[str, Any]
_PYTHONS_OWN = ("discriminator", "format", "writeOnly", "title")


def json_schema(cls: type[Section]) -> Node:
    """The JSON Schema (draft 7) of the training or the dataset file."""
    raw = cls.model_json_schema()
    sections = {section.__name__: section for section in _sections(cls)}
    names = {name: _name(section) for name, section in sections.items()}
    top = _table(raw, cls, names)
    definitions = {names[name]: _table(node, sections[name], names) for name, node in raw.get("$defs", {}).items()}
    for node in definitions.values():
        _close_open_kind(node, [tag for section in sections.values() if (tag := tag_of(section))])
    return {"$schema": "http://json-schema.org/draft-07/schema#"} | top | {"definitions": definitions}


def _sections(cls: type[Section]) -> Iterator[type[Section]]:
    """A section and all those below it."""
    yield cls
    for info in cls.model_fields.values():
        for section in sections_below(info.annotation):
            yield from _sections(section)


def _name(section: type[Section]) -> str:
    """What a table is called in the schema: its kind, or the words of its class, without Python's spelling."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in section.__name__.strip("_"))
    tag = tag_of(section)
    return f"{words.split()[-1]}-{tag}" if tag else "-".join(words.split())


def _table(node: Node, cls: type[Section], names: dict[str, str]) -> Node:
    """One table: its keys with titles, and descriptions that name the unit."""
    found: Node = {"type": "object", "title": _first_sentence(cls.__doc__ or "")}
    found["description"] = " ".join((cls.__doc__ or "").split())
    properties: Node = {}
    for key, info in cls.model_fields.items():
        value = _value(node["properties"][key], names)
        for section in sections_below(info.annotation):
            if section.of_text("") is not None and "items" in value:
                value["items"] = {"anyOf": [value["items"], {"type": "string"}]}
        if "$ref" in value:
            value = {"allOf": [{"$ref": value.pop("$ref")}], **value}  # draft 7 ignores what stands beside a $ref
        unit = ui_of(info).unit
        words = help_of(cls, key)
        properties[key] = {
            "title": key.replace("_", " ").capitalize(),
            "description": f"{words} Unit: {unit}." if unit else words,
            **{name: item for name, item in value.items() if name != "description"},
        }
    found["properties"] = properties
    tagged = ["type"] if tag_of(cls) else []
    required = tagged + [key for key in node.get("required", []) if key not in tagged]
    if required:
        found["required"] = required
    found["additionalProperties"] = cls.model_config.get("extra") == "allow"
    return found


def _value(node: Any, names: dict[str, str]) -> Any:  # noqa: ANN401 - a JSON value
    """A node of pydantic's without null, without what only Python needs, and with our names."""
    if isinstance(node, list):
        return [_value(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        node = node | {"$ref": f"#/definitions/{names[node['$ref'].rpartition('/')[2]]}"}
    node = {key: item for key, item in node.items() if key not in _PYTHONS_OWN}
    if "default" in node and node["default"] is None:
        del node["default"]
    arms = [arm for arm in node.get("anyOf", []) if arm != {"type": "null"}]
    if "anyOf" in node and len(arms) == 1:
        rest = {key: item for key, item in node.items() if key != "anyOf"}
        return _value(arms[0] | rest, names)
    if "anyOf" in node:
        node = node | {"anyOf": arms}
    if "const" in node:
        node.pop("type", None)
        node.pop("default", None)
    return {key: item if key == "default" else _value(item, names) for key, item in node.items()}


def _close_open_kind(node: Node, tags: list[str]) -> None:
    """The kind that takes any other type must not take the types of its siblings: oneOf wants exactly one match."""
    if node["additionalProperties"] is True and "type" in node["properties"]:
        node["properties"]["type"]["not"] = {"enum": tags}


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).split(". ")[0].split(": ")[0].rstrip(".")
