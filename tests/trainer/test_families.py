"""The registry of families, and what every family has in common."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dpnb.schema import FluxModel
from dpnb.schema.model import FAMILIES, model_of
from trainer import families
from trainer.families import base
from trainer.families.flux import Flux

FOLDER = Path(inspect.getfile(families)).parent


def test_schema_and_registry_name_the_same_families() -> None:
    assert families.FAMILIES.keys() == {family for family in FAMILIES if not model_of(family).pending}


def test_the_registry_needs_no_torch() -> None:
    code = "import sys, trainer.families; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_family_imports_another() -> None:
    own = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "base"}
    assert own == {place.split(":")[0].rsplit(".", 1)[-1] for place in families.FAMILIES.values()}
    for name in own:
        tree = ast.parse((FOLDER / f"{name}.py").read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not imported & {f"trainer.families.{other}" for other in own - {name}}


def test_building_a_family_loads_nothing() -> None:
    own = families.build(FluxModel(diffusers_path="nowhere"))
    assert isinstance(own, Flux)
    assert own.encoders == {}


@pytest.mark.parametrize("place", families.FAMILIES.values())
def test_a_family_has_every_member_of_the_protocol(place: str) -> None:
    module, name = place.split(":")
    family = getattr(sys.modules[module] if module in sys.modules else __import__(module), name)
    wanted = {member for member in vars(base.Family) if not member.startswith("_")} | {"adapter_blocks", "sensitive"}
    assert not {member for member in wanted if not hasattr(family, member)} - {"times"}


def test_dtypes_are_pytorchs_own() -> None:
    theirs = {"float8": "float8_e4m3fn"}  # as diffusion-pipe has it
    assert all(getattr(torch, theirs.get(name, name)) is dtype for name, dtype in base.DTYPES.items())


def test_a_fingerprint_sees_every_byte_name_and_value(tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "deep" / "weights").write_bytes(bytes(1000))

    def now(*parts: object) -> str:
        return base.fingerprint("latents-1", *parts, folder)

    first = now("float32")
    assert now("float32") == first
    assert len(first) == 32
    assert now("bfloat16") != first
    (folder / "deep" / "weights").write_bytes(bytes(999) + b"\1")
    changed = now("float32")
    assert changed != first
    (folder / "deep" / "weights").rename(folder / "deep" / "other")
    assert now("float32") not in (first, changed)


def test_a_fingerprint_does_not_depend_on_where_the_folder_stands(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"abc")
    assert base.fingerprint(tmp_path / "here") == base.fingerprint(tmp_path / "there")


def test_a_large_file_is_told_apart_by_size_first_and_last_byte(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    size = 70 * 2**20
    seen = set()
    for changed in (None, 0, size - 1):
        with file.open("wb") as handle:
            handle.truncate(size)
            if changed is not None:
                handle.seek(changed)
                handle.write(b"\1")
        seen.add(base.fingerprint(file))
    with file.open("ab") as handle:
        handle.truncate(size + 1)
    assert len(seen | {base.fingerprint(file)}) == 4
