"""From another trainer's name of a model to our [model] table.

A source names a model by a repository on the hub or by a path of its own layout; a family here wants certain folders
and files. What the source does not give becomes a path below `models/` that does not exist yet, so that
`dpnb validate` reports it, and the report says what to download there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dpnb.importers.draft import Draft, has_field
from dpnb.importers.source import Node
from dpnb.schema.base import ui_of
from dpnb.schema.model import FACTS, model_of

SINGLE_FILE = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CONVERTED = re.compile(r"(?P<owner>.*?)(?P<release>[^/]*)-Diffusers(?:-bf16)?/*")  # Wan's releases, for diffusers
_HUB_FILE = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/(.+\.safetensors)")


@dataclass(frozen=True, slots=True)
class Home:
    """Where a family's weights lie: `folder` and `file` name the keys that take a folder and a single file.

    `hub` is the repository of a folder that the source does not name, `encoder` the kind of text encoder in families
    that load ComfyUI's files.
    """

    folder: str = ""
    file: str = ""
    hub: str = ""
    encoder: str = ""


HOMES: Mapping[str, Home] = {
    "flux": Home("diffusers_path", "transformer_path", "black-forest-labs/FLUX.1-dev"),
    "flux2": Home("", "diffusion_model", encoder="flux2"),
    "sdxl": Home("", "checkpoint_path"),
    "sd15": Home("diffusers_path", "checkpoint_path", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "sd3": Home("diffusers_path", "", "stabilityai/stable-diffusion-3.5-medium"),
    "chroma": Home("", "transformer_path", "black-forest-labs/FLUX.1-dev"),
    "qwen_image": Home("diffusers_path", "transformer_path", "Qwen/Qwen-Image"),
    "z_image": Home("", "diffusion_model", encoder="lumina2"),
    "hidream": Home("diffusers_path", "", "HiDream-ai/HiDream-I1-Full"),
    "lumina_2": Home("", "transformer_path"),
    "auraflow": Home("", "transformer_path"),
    "anima": Home("", "transformer_path"),
    "cosmos_predict2": Home("", "transformer_path"),
    "omnigen2": Home("diffusers_path", "", "OmniGen2/OmniGen2"),
    "hunyuan_image": Home("", "transformer_path"),
    "ernie_image": Home("", "diffusion_model", encoder="flux2"),
    "ideogram4": Home("", "diffusion_model", encoder="ideogram4"),
    "krea2": Home("", "diffusion_model", encoder="krea2"),
    "wan": Home("ckpt_path", "transformer_path", "Wan-AI/Wan2.1-T2V-1.3B"),
    "hunyuan-video": Home("ckpt_path", "transformer_path", "tencent/HunyuanVideo"),
    "hunyuan_video_15": Home("", "diffusion_model", encoder="hunyuan_video_15"),
    "ltx-video": Home("diffusers_path", "single_file_path", "Lightricks/LTX-Video"),
    "ltx2": Home("", "diffusion_model"),
    "cosmos": Home("", "transformer_path"),
    "minimax_h3": Home("", "diffusion_model", encoder="minimax"),
}


# Repositories for the sizes of a family, by what the name of a model has in it.
_SIZES: Mapping[str, Mapping[str, str]] = {
    "sd3": {
        "large": "stabilityai/stable-diffusion-3.5-large",
        "sd3_medium": "stabilityai/stable-diffusion-3-medium-diffusers",
    },
    "flux": {"schnell": "black-forest-labs/FLUX.1-schnell", "kontext": "black-forest-labs/FLUX.1-Kontext-dev"},
    "wan": {"i2v": "Wan-AI/Wan2.1-I2V-14B-480P", "14b": "Wan-AI/Wan2.1-T2V-14B"},
}


def is_hub_id(name: str) -> bool:
    """Is this a repository on the Hugging Face hub (owner/name), by its look?"""
    return _HUB.fullmatch(name) is not None and not name.lower().endswith(SINGLE_FILE)


def takes(family: str, key: str) -> bool:
    """Does the [model] table of this family have a key?"""
    return has_field(model_of(family), key)


def put_weights(draft: Draft, family: str, node: Node, key: str, target: str = "") -> None:
    """Put what the source names its weights by under the key of the family that takes it.

    `target` is the key of a folder for weights that are not those of the model as a whole.
    """
    home, name = Home(target) if target else HOMES[family], node.text(key) or ""
    if found := _HUB_FILE.fullmatch(name):
        target = home.file or home.folder
        local = _local(found[1], found[2])
        draft.put(node, key, f"model.{target}", local, _download(f"{found[2]} of {found[1]}", local))
    elif name.lower().endswith(SINGLE_FILE):
        if home.file:
            draft.put(node, key, f"model.{home.file}", name)
        else:
            draft.drop(node, key, f"{FACTS[family].title} is loaded from a folder here, not from a single file.")
    elif not home.folder:
        if is_hub_id(name):
            local = _local(name, home.file)
            note = (
                f"{FACTS[family].title} is loaded from single files here. {_download(f'the weights of {name}', local)}"
            )
            draft.put(node, key, f"model.{home.file}", local, note)
        else:
            draft.drop(node, key, f"{FACTS[family].title} is loaded from single files here, not from a folder.")
    elif family == "wan" and (converted := _CONVERTED.fullmatch(name)):
        official = f"{converted['owner'].replace('ai-toolkit/', 'Wan-AI/')}{converted['release']}"
        local = _local(official) if is_hub_id(name) else official
        note = f"Wan is loaded from the official release here. {_download(official, local)}"
        draft.put(node, key, f"model.{home.folder}", local, note)
    elif is_hub_id(name):
        local = _local(name)
        draft.put(node, key, f"model.{home.folder}", local, _download(name, local))
    else:
        draft.put(node, key, f"model.{home.folder}", name)


def complete(draft: Draft, family: str, named: str = "") -> None:
    """Add a path that does not exist yet for each part of the model that the source does not name.

    `named` is what the source calls the model: it may tell its size.
    """
    section, home = model_of(family), HOMES[family]
    needs = list(section.facts.needs)
    started = [keys for keys in needs if any(draft.get(f"model.{key}") for key in keys)]
    whole = [keys for keys in needs if all(draft.get(f"model.{key}") for key in keys)]
    wanted = (whole or started or needs or [()])[0]
    required = [name for name, info in section.model_fields.items() if info.is_required()]
    for key in dict.fromkeys([*wanted, *required]):
        if draft.get(f"model.{key}"):
            continue
        value, why = _missing(family, key, home, named.lower())
        draft.add(f"model.{key}", value, why)


def _missing(family: str, key: str, home: Home, named: str) -> tuple[Any, str]:
    if key == "max_sequence_length":
        return 256, "AuraFlow's own length; Pony V7 has 768."
    title = FACTS[family].title
    if key == "text_encoders":
        path = f"models/{family}/text_encoder.safetensors"
        return [{"path": path, "type": home.encoder}], f"{title} needs its text encoder as one file: {_put_it(path)}"
    if key in ("diffusers_path", "ckpt_path"):
        hub = next((repository for word, repository in _SIZES.get(family, {}).items() if word in named), home.hub)
        return _local(hub), f"{title} needs it. {_download(hub, _local(hub))}"
    is_folder = ui_of(model_of(family).model_fields[key]).path == "dir"
    path = f"models/{family}/{key.removesuffix('_path')}{'' if is_folder else '.safetensors'}"
    return path, f"{title} needs it: {_put_it(path)}"


def _local(repository: str, part: str = "") -> str:
    """Where a repository of the hub is expected on this machine, relative to the working directory."""
    folder = PurePosixPath("models", repository.rpartition("/")[2])
    if not part:
        return str(folder)
    return str(folder / (part if part.endswith(".safetensors") else f"{part.removesuffix('_path')}.safetensors"))


def _download(what: str, local: str) -> str:
    if is_hub_id(what):
        return f"Download it with `hf download {what} --local-dir {local}`, or name the folder where it lies."
    return f"Download {what} to {local}, or name the file where it lies."


def _put_it(path: str) -> str:
    return f"put it at {path}, or name the file where it lies."
