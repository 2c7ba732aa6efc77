"""kohya's sd-scripts and musubi-tuner: the training file (`--config_file`), alone or with its dataset file.

Which script runs it, and so which family is trained, is not in the file: `network_module` mostly tells. The folders
of pictures: kohya_dataset.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from dpnb.importers import kohya_dataset, settings
from dpnb.importers.draft import DATASET_FILE, Draft
from dpnb.importers.families import HOMES, complete, put_weights, takes
from dpnb.importers.kohya_loss import put_loss
from dpnb.importers.kohya_train import pairs_of, put_lengths, put_optimizer, put_sample, put_saving
from dpnb.importers.report import Imported
from dpnb.importers.source import Node, Source, as_number, read_source
from dpnb.schema.foreign import KOHYA, MUSUBI
from dpnb.schema.model import FACTS, FAMILIES
from dpnb.schema.paths import kind_of_path

MODULES = {
    "networks.lora_flux": "flux",
    "networks.oft_flux": "flux",
    "networks.lora_sd3": "sd3",
    "networks.lora_lumina": "lumina_2",
    "networks.lora_hunyuan_image": "hunyuan_image",
    "networks.lora_anima": "anima",
    "networks.lora_wan": "wan",
    "networks.lora_flux_2": "flux2",
    "networks.lora_qwen_image": "qwen_image",
    "networks.lora_zimage": "z_image",
    "networks.lora_hv_1_5": "hunyuan_video_15",
    "networks.lora_ideogram4": "ideogram4",
    "networks.lora_krea2": "krea2",
    "networks.lora_ernie_image": "ernie_image",
}
_KINDS = {"lora": "lora", "locon": "lora", "lokr": "lokr", "loha": "loha", "dora": "dora"}
WAN_RELEASES = {
    "t2v-1.3B": "Wan-AI/Wan2.1-T2V-1.3B",
    "t2v-14B": "Wan-AI/Wan2.1-T2V-14B",
    "i2v-14B": "Wan-AI/Wan2.1-I2V-14B-480P",
    "t2v-A14B": "Wan-AI/Wan2.2-T2V-A14B",
    "i2v-A14B": "Wan-AI/Wan2.2-I2V-A14B",
}
_DEFAULT = "kohya's default."
_BY_HAND = settings.say_family(FAMILIES)
_UNETS = ("sdxl", "sd15")  # what networks.lora and LyCORIS are used for without another key that tells
_TRAIN_TYPES = {"sdxl": "sdxl", "sd": "sd15", "flux": "flux", "sd3": "sd3", "lumina": "lumina_2", "anima": "anima"}


def flattened(root: dict[str, Any]) -> dict[str, Any]:
    """A training file without its table headers, which kohya's scripts take no notice of."""
    flat: dict[str, Any] = {}
    for key, value in root.items():
        flat.update(value if isinstance(value, dict) else {key: value})
    return flat


def import_kohya(
    training: Source | None,
    dataset: Source | None,
    *,
    name: str | None,
    model: str | None,
    environment: Mapping[str, str],
) -> Imported:
    """A training file, a dataset file, or both; a training file brings the dataset file that it names."""
    trainer = MUSUBI if _is_musubi(training, dataset) else KOHYA
    draft = Draft(trainer, trainer)
    if training is None:
        assert dataset is not None
        kohya_dataset.put_dataset(draft, dataset, with_training=False)
        return draft.finish(training=False)
    node = Node(_without_headers(training), flattened(training.root))
    dataset = dataset or _named_dataset(draft, node, environment)
    family = _family(node, model)
    _put_model(draft, node, family, by_hand=model is not None)
    _put_adapter(draft, node)
    if dataset is not None and kohya_dataset.says(dataset, "batch_size") and node.has("train_batch_size"):
        draft.drop(node, "train_batch_size", "batch_size of the dataset file takes its place, in kohya's scripts too.")
    put_lengths(draft, node)
    put_optimizer(draft, node, family)
    put_loss(draft, node, family)
    put_saving(draft, node, name)
    put_sample(draft, node, family)
    node.taken.add("dataset_config")
    draft.add("dataset", DATASET_FILE, "the folders stand in a file of their own.")
    if dataset is not None:
        if trainer == KOHYA:
            kohya_dataset.put_fallbacks(draft, node, dataset)
        kohya_dataset.put_dataset(draft, dataset, with_training=True, masked=bool(node.flag("masked_loss")))
    else:
        kohya_dataset.put_train_data_dir(draft, node)
    draft.rest(node)
    settings.complete_monitoring(draft, "network_train", node.text("output_name") or "run")
    complete(draft, family, f"{node.text('pretrained_model_name_or_path')} {node.text('dit')} {node.text('task')}")
    return draft.finish()


def _without_headers(source: Source) -> Source:
    """The file as kohya's scripts see it, each key still at its own line."""
    headers = {key for key, value in source.root.items() if isinstance(value, dict)}
    places = {loc[1:] if loc and loc[0] in headers else loc: place for loc, place in source.places.items()}
    return Source(source.path, flattened(source.root), places)


def _is_musubi(training: Source | None, dataset: Source | None) -> bool:
    keys = set() if training is None else set(flattened(training.root))
    folders = dataset.root.get("datasets") if dataset is not None else []
    folders = folders if isinstance(folders, list) else []
    return "dit" in keys or any(
        isinstance(item, dict)
        and any(key.startswith(("image_d", "image_j", "video_")) and key != "image_dir" for key in item)
        for item in folders
    )


def _named_dataset(draft: Draft, node: Node, environment: Mapping[str, str]) -> Source | None:
    """The file that dataset_config names, from the working directory or beside the training file."""
    named = node.text("dataset_config")
    if not named:
        return None
    beside = (
        node.source.path.parent / PurePosixPath(named.replace("\\", "/")).name
    )  # it was written on another machine
    for path in (Path(named), node.source.path.parent / named, beside):
        if kind_of_path(path) == "file":
            if path == beside:
                draft.put(node, "dataset_config", "dataset", DATASET_FILE, f"Read from {path}.")
            return read_source(path, environment)
    hint = "Correct the path, or name the dataset file behind the training file: dpnb import TRAINING DATASET."
    return node.source.fail(node.at("dataset_config"), f"'{named}' is no file.", hint)


# --- the model and its adapter ---------------------------------------------------------------------------------------


def _family(node: Node, model: str | None) -> str:
    if model is not None:
        return model
    written, weights = node.text("network_module") or "", node.text("pretrained_model_name_or_path") or ""
    module = written.removeprefix("musubi_tuner.")
    found = MODULES.get(module)
    if found == "flux" and node.data.get("model_type") == "chroma":
        found = "chroma"
    if found is None and str(node.data.get("model_version")).startswith("klein"):
        found = "flux2"
    if found is None and module.startswith("networks.lora_"):
        node.source.fail(node.at("network_module"), f"'{module}' is for a family that is not trained here.", _BY_HAND)
    if found is None and node.has("clip_l"):
        found = "sd3" if node.has("clip_g") else "flux"
    if found is None and module == "networks.lora" and node.has("dit"):
        found = "hunyuan-video"
    if found is None and node.has("task") and (node.text("task") or "").partition("-")[0] in ("t2v", "i2v", "flf2v"):
        found = "wan"
    found = found or _said(node)
    if found is None:
        found = "sd15" if node.flag("v2") else settings.family_of_name(weights)
    if found is None:
        key = "network_module" if node.has("network_module") else "pretrained_model_name_or_path"
        message = f"does not tell which family is trained{f' ({module})' if module else ''}."
        usual = module in ("networks.lora", "lycoris.kohya") and not node.has("dit")
        node.source.fail(node.at(key), message, settings.say_family(_UNETS) if usual else _BY_HAND)
    return found


def _said(node: Node) -> str | None:
    """The family that GUIs around kohya's scripts write into the file."""
    if node.data.get("sdxl") is True:
        return "sdxl"
    return _TRAIN_TYPES.get(str(node.data.get("model_train_type")).partition("-")[0])


def _put_model(draft: Draft, node: Node, family: str, *, by_hand: bool) -> None:
    module = node.text("network_module")
    if by_hand:
        draft.add("model.type", family, "as --model says.")
    elif family == "chroma" and node.has("model_type"):
        draft.put(node, "model_type", "model.type", family)
    elif family == "flux2" and node.has("model_version"):
        draft.put(node, "model_version", "model.type", family)
    elif (module or "").removeprefix("musubi_tuner.") in MODULES:
        draft.put(node, "network_module", "model.type", family)
    elif (key := next((key for key in ("model_train_type", "sdxl") if node.has(key)), "")) and family == _said(node):
        draft.put(node, key, "model.type", family)
    else:
        draft.add("model.type", family, "by the other keys; --model overrules it.")
    if node.has("mixed_precision"):
        settings.put_dtype(draft, node, "mixed_precision", "model.dtype")
    else:
        draft.add("model.dtype", "float32", _DEFAULT)
    for key in ("pretrained_model_name_or_path", "dit"):
        if node.text(key):
            put_weights(draft, family, node, key)
    if family == "wan" and (release := WAN_RELEASES.get(node.text("task") or "")):
        folder = f"models/{release.rpartition('/')[2]}"
        note = f"Get it with `hf download {release} --local-dir {folder}`, or name the folder where it lies."
        draft.put(node, "task", "model.ckpt_path", folder, note)
    _put_parts(draft, node, family)
    _put_memory(draft, node, family)


def _put_memory(draft: Draft, node: Node, family: str) -> None:
    """Weights in 8 bits, and blocks that wait in host memory."""
    for key in ("fp8_base", "fp8_base_unet", "fp8_scaled"):
        if node.flag(key) and not (key == "fp8_scaled" and node.flag("fp8_base")):
            keys = [target for target in ("transformer_dtype", "diffusion_model_dtype") if takes(family, target)]
            settings.put_quantised(draft, node, key, keys)
    for key in ("fp8_t5", "fp8_llm", "fp8_vl", "fp8_text_encoder"):
        if node.flag(key) and takes(family, "text_encoder_fp8"):
            draft.put(node, key, "model.text_encoder_fp8", True)
        elif node.flag(key):
            draft.drop(node, key, "text encoders are unloaded once captions are cached.")
    if (pictures := node.whole("vae_batch_size")) is not None and pictures > 0:
        draft.put(node, "vae_batch_size", "caching_batch_size", pictures)
    swapped = node.whole("blocks_to_swap")
    if swapped and FACTS[family].block_swap:
        draft.put(node, "blocks_to_swap", "blocks_to_swap", swapped)
    elif swapped:
        draft.drop(node, "blocks_to_swap", f"{FACTS[family].title} cannot swap blocks.")


def _put_parts(draft: Draft, node: Node, family: str) -> None:
    """VAE and text encoders, where the family takes them one by one."""
    candidates = {
        "vae": ("vae", "vae_path"),
        "ae": ("vae", "vae_path"),
        "text_encoder": ("text_encoders", "text_encoder_path", "text_encoder"),
        "text_encoder1": ("llm_path", "text_encoder_path"),
        "text_encoder2": ("clip_path", "byt5_path"),
        "qwen3": ("llm_path",),
        "t5": ("llm_path",),
        "byt5": ("byt5_path",),
        "gemma2": ("llm_path",),
    }
    for key, targets in candidates.items():
        path = node.text(key)
        target = next((each for each in targets if takes(family, each)), None)
        if path and target == "text_encoders":
            value = [{"path": path, "type": HOMES[family].encoder}]
            draft.put(node, key, "model.text_encoders", value)
        elif path and target is not None:
            draft.put(node, key, f"model.{target}", path)
        elif path:
            whole = "the folder of the whole model" if HOMES[family].folder else "its checkpoint"
            draft.drop(node, key, f"{FACTS[family].title} finds it in {whole}.")


def _put_adapter(draft: Draft, node: Node) -> None:
    """[adapter], or none where there is no network_module: then the whole model is trained."""
    module = node.text("network_module")
    arguments = Node(node.source, pairs_of(node, "network_args"), ("network_args",))
    if not module:
        draft.rest(arguments)
        return
    named = module.rpartition(".")[2]
    kind = str(arguments.any("algo") or "lora").lower() if module.startswith("lycoris") else named.partition("_")[0]
    if kind == "full":
        for key in ("network_dim", "network_alpha", "network_module"):
            if node.has(key):
                draft.drop(node, key, "the whole model is trained: there is no [adapter].")
        return
    if kind not in _KINDS:
        hint = f"Use one of: {', '.join(_KINDS)}."
        node.source.fail(node.at("network_module"), f"the kind of adapter '{kind}' is not trained here.", hint)
    weighted = "true" in (str(arguments.any(key)).lower() for key in ("dora_wd", "use_dora"))
    draft.put(node, "network_module", "adapter.type", "dora" if weighted else _KINDS[kind])
    rank, alpha = node.whole("network_dim"), node.number("network_alpha")
    if rank is None:
        draft.add("adapter.rank", 4, _DEFAULT)
    else:
        draft.put(node, "network_dim", "adapter.rank", rank)
    if alpha is None:
        draft.add("adapter.alpha", 1.0, _DEFAULT)
    elif alpha > 0:
        draft.put(node, "network_alpha", "adapter.alpha", float(alpha))
    else:
        draft.drop(node, "network_alpha", "0 stands for the rank, as does leaving it out.")
    if (dropout := node.number("network_dropout")) and _KINDS[kind] == "lora":
        draft.put(node, "network_dropout", "adapter.dropout", dropout)
    _put_network_args(draft, arguments, _KINDS[kind])
    if paths := node.texts("base_weights"):
        written = node.any("base_weights_multiplier")
        weights = [as_number(item) for item in (written if isinstance(written, list) else [written])]
        settings.put_fused(draft, node, "base_weights", paths, [weight for weight in weights if weight is not None])


def _put_network_args(draft: Draft, node: Node, kind: str) -> None:
    for key in ("conv_dim", "conv_alpha"):
        if node.has(key):
            draft.drop(node, key, "adapters cover linear layers alone, none of the convolutions.")
    if kind == "lokr" and (factor := node.whole("factor")) is not None:
        draft.put(node, "factor", "adapter.decompose_factor", factor)
    if (dropout := node.number("rank_dropout")) and kind in ("lokr", "loha"):
        draft.put(node, "rank_dropout", "adapter.rank_dropout", dropout)
    elif dropout:
        draft.drop(node, "rank_dropout", "lokr and loha alone have it; adapter.dropout is the closest here.")
    draft.rest(node)
