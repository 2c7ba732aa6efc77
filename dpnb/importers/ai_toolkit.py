"""AI Toolkit's job files (YAML or JSON), and EriDiffusion's, which have the same layout.

AI Toolkit counts steps, not epochs, leaves unknown keys alone in silence, and for most of its keys has a default of
its own, which is written out here where it differs from ours. Here: the job, its model and network. The rest of a job:
ai_toolkit_train.py; its folders of pictures: ai_toolkit_dataset.py.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from dpnb.importers import settings
from dpnb.importers.ai_toolkit_dataset import put_datasets
from dpnb.importers.ai_toolkit_train import put_sample, put_save, put_train
from dpnb.importers.draft import DATASET_FILE, Draft
from dpnb.importers.families import complete, put_weights, takes
from dpnb.importers.report import Imported
from dpnb.importers.source import Node, Source
from dpnb.schema.foreign import AI_TOOLKIT
from dpnb.schema.model import FACTS, FAMILIES

# Process types that train on pictures and captions; the rest extract, generate, caption or train something else.
TRAINING_PROCESSES = ("sd_trainer", "ui_trainer", "diffusion_trainer", "fine_tune", "")
ARCHES = {
    "sd1": "sd15",
    "sd15": "sd15",
    "sd2": "sd15",
    "sdxl": "sdxl",
    "ssd": "sdxl",
    "vega": "sdxl",
    "sd3": "sd3",
    "auraflow": "auraflow",
    "flux": "flux",
    "flux_kontext": "flux",
    "flex1": "flux",
    "flex2": "flux",
    "flux2": "flux2",
    "flux2_klein_4b": "flux2",
    "flux2_klein_9b": "flux2",
    "chroma": "chroma",
    "lumina2": "lumina_2",
    "qwen_image": "qwen_image",
    "qwen_image_edit": "qwen_image",
    "qwen_image_edit_plus": "qwen_image",
    "hidream": "hidream",
    "hidream_e1": "hidream",
    "omnigen2": "omnigen2",
    "zimage": "z_image",
    "z_image": "z_image",
    "wan21": "wan",
    "wan21_i2v": "wan",
    "wan22_5b": "wan",
    "wan22_14b": "wan",
    "wan22_14b_i2v": "wan",
    "ltx2": "ltx2",
    "ltx2.3": "ltx2",
    "anima": "anima",
    "ernie_image": "ernie_image",
    "krea2": "krea2",
    "ideogram4": "ideogram4",
    "minimax_h3": "minimax_h3",
}
_FLAGS = {
    "is_flux": "flux",
    "is_xl": "sdxl",
    "is_sdxl": "sdxl",  # EriDiffusion's
    "is_ssd": "sdxl",
    "is_vega": "sdxl",
    "is_v3": "sd3",
    "is_auraflow": "auraflow",
    "is_lumina2": "lumina_2",
    "is_v2": "sd15",
}
# Families whose saved adapters keep alpha; for all others AI Toolkit sets alpha to the rank.
_KEEPS_ALPHA = ("sdxl", "sd15")
_TWO_HALVES = "wan22_14b"
_OTHER_TRAINING = ("adapter", "embedding", "decorator", "slider")
_ROOT = re.compile(r"^(?:transformer|unet|lora_unet)\.")


class _Job(NamedTuple):
    """One process of a job, and the tables below it."""

    process: Node
    model: Node
    network: Node
    train: Node
    save: Node
    sample: Node
    logging: Node


def import_job(source: Source, *, name: str | None, model: str | None) -> Imported:
    """A job with one training process; `name` replaces [name], `model` overrules the family."""
    draft = Draft("AI Toolkit", AI_TOOLKIT)
    process = _process(draft, source, name)
    job = _Job(process, *(process.table(table) for table in _Job._fields[1:]))
    family = _put_model(draft, job.model, model)
    _put_precision(draft, job, family)
    _put_network(draft, job.network, family)
    if paths := job.model.texts("lora_path"):
        settings.put_fused(draft, job.model, "lora_path", paths, [])
    micro_steps = put_train(draft, job.train, family)
    put_save(draft, job.save, micro_steps)
    put_sample(draft, job.sample, job.train, family, micro_steps)
    _put_process(draft, process)
    draft.add("dataset", DATASET_FILE, "the folders stand in a file of their own.")
    put_datasets(draft, process, reg_weight=job.train.number("reg_weight"))
    for table in job:
        draft.rest(table)
    settings.complete_monitoring(draft, "ai-toolkit", (draft.get("output_dir") or "run").rpartition("/")[2])
    complete(draft, family, job.model.text("name_or_path") or "")
    return draft.finish()


# --- the job and its process -----------------------------------------------------------------------------------------


def _process(draft: Draft, source: Source, name: str | None) -> Node:
    """The one training process of a job, with [name] replaced in all of its texts."""
    root = Node(source, source.root)
    config = root.table("config")
    job = name or config.text("name") or ""
    if not job:
        source.fail(config.at("name"), "is missing.", "Give the job a name, there or with --name.")
    tree = _named(source.root, job)
    named = Node(source, tree)
    config = named.table("config")
    config.taken.add("name")
    training: list[Node] = []
    others: list[Node] = []
    for node in config.tables("process"):
        (training if (node.text("type") or "") in TRAINING_PROCESSES else others).append(node)
    if not training:
        types = ", ".join(node.text("type") or "" for node in others) or "none"
        source.fail(config.at("process"), f"no process trains a model (there is: {types}).", "Import a training job.")
    if len(training) > 1:
        message = f"{len(training)} processes train one after the other, and a run trains once."
        source.fail(config.at("process"), message, "Split the job into files with one process each.")
    for node in others:
        draft.drop(node, "type", "this process trains nothing.")
    draft.rest(config)
    named.taken |= {"job", "config"}
    draft.rest(named)
    process = training[0]
    if not process.has("network") and (other := next((key for key in _OTHER_TRAINING if process.has(key)), "")):
        message = "is what this job trains, and only adapters such as LoRA and whole models are trained here."
        source.fail(process.at(other), message, "Import a job with a network table, or one without this table.")
    _put_output(draft, process, job, config)
    return process


def _named(value: Any, name: str) -> Any:  # noqa: ANN401 - any parsed file
    """The tree with [name] replaced in keys and values, as AI Toolkit does over the whole job."""
    if isinstance(value, dict):
        return {_named(key, name): _named(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item, name) for item in value]
    return value.replace("[name]", name) if isinstance(value, str) else value


def _put_output(draft: Draft, process: Node, job: str, config: Node) -> None:
    """AI Toolkit writes to training_folder/name; here the folder of each run lies in there."""
    folder = (process.text("training_folder") or "output").rstrip("/")
    note = "Each run has a folder of its own below it, named by its start time."
    if process.has("training_folder"):
        draft.put(process, "training_folder", "output_dir", f"{folder}/{job}", note)
    else:
        draft.put(config, "name", "output_dir", f"{folder}/{job}", note)
    process.taken |= {"name", "type"}


def _put_process(draft: Draft, process: Node) -> None:
    if trigger := process.text("trigger_word"):
        draft.put(process, "trigger_word", "trigger_word", trigger)
    seed = process.whole("training_seed")
    if seed is not None:
        draft.put(process, "training_seed", "seed", seed)
    for key in (*_OTHER_TRAINING, "guidance", "first_sample"):
        if process.has(key):
            draft.drop(process, key, "only adapters and whole models are trained here.")
    for key in ("performance_log_every", "log_dir", "sqlite_db_path", "torch_profiler"):
        if process.has(key):
            draft.drop(process, key, "losses and times of a run are always written into its folder.")


# --- model and network -----------------------------------------------------------------------------------------------


def _put_model(draft: Draft, node: Node, model: str | None) -> str:
    """model.type and the weights; gives the family."""
    family = model or _family(node)
    key = "arch" if node.has("arch") else next((flag for flag in _FLAGS if node.flag(flag)), "")
    node.taken |= set(_FLAGS)
    if key and not model:
        draft.put(node, key, "model.type", family)
    else:
        node.taken.add("arch")
        by_name = "by the model's name; without arch AI Toolkit takes it for sd1. --model overrules it."
        draft.add("model.type", family, "as --model says." if model else by_name)
    if node.text("name_or_path"):
        put_weights(draft, family, node, "name_or_path")
    arch = str(node.any("arch") or "")
    settings_of_arch = node.table("model_kwargs")
    if arch.startswith(_TWO_HALVES):
        _put_half(draft, settings_of_arch, 0.9 if "i2v" in arch else 0.875)
    if settings_of_arch.text("llama_model_path") and takes(family, "llama3_path"):
        put_weights(draft, family, settings_of_arch, "llama_model_path", "llama3_path")
    draft.rest(settings_of_arch)
    for choice in ("only_if_contains", "ignore_if_contains"):
        if node.has(choice):
            draft.drop(node, choice, "it chooses parts of a whole model to train, and here all of them are trained.")
    if (node.flag("is_v_pred") or node.flag("is_v2")) and takes(family, "v_pred"):
        draft.put(node, "is_v_pred" if node.has("is_v_pred") else "is_v2", "model.v_pred", True)
    return family


def _put_half(draft: Draft, node: Node, boundary: float) -> None:
    """The half of Wan 2.2 A14B that a run trains: the one for little noise, unless the job leaves that out."""
    high, low = node.flag("train_high_noise"), node.flag("train_low_noise")
    only_high = low is False and high is not False
    part, other = ("high", "low") if only_high else ("low", "high")
    bound, other_bound = ("min_t", "max_t") if only_high else ("max_t", "min_t")
    whole = draft.get("model.ckpt_path") or "models/Wan2.2-T2V-A14B"
    why = (
        f"each half of Wan 2.2 A14B is a run of its own; the other is {other}_noise_model with "
        f"{other_bound} = {boundary}."
    )
    draft.add("model.transformer_path", f"{whole}/{part}_noise_model", why)
    draft.add(f"model.{bound}", boundary, "where the two halves meet.")


def _family(node: Node) -> str:
    arch = node.text("arch")
    if arch:
        family = ARCHES.get(arch.partition(":")[0])
        if family is None:
            node.source.fail(
                node.at("arch"),
                f"'{arch}' is not trained here.",
                f"Name a family with --model: {', '.join(FAMILIES)}.",
            )
        return family
    flagged = next((family for flag, family in _FLAGS.items() if node.flag(flag)), None)
    return flagged or settings.family_of_name(node.text("name_or_path") or "") or "sd15"


def _put_precision(draft: Draft, job: _Job, family: str) -> None:
    """model.dtype comes from train.dtype, which overwrites model.dtype in AI Toolkit too."""
    if job.train.has("dtype"):
        settings.put_dtype(draft, job.train, "dtype", "model.dtype")
        if job.model.has("dtype"):
            draft.drop(job.model, "dtype", "train.dtype takes its place, in AI Toolkit too.")
    else:
        job.model.taken.add("dtype")
        draft.add("model.dtype", "float32", "AI Toolkit's default.")
    node = job.model
    node.taken |= {"quantize", "qtype"}
    kind, _, recovery = (node.text("qtype") or "qfloat8").partition("|")
    if node.flag("quantize") and recovery:
        draft.drop(node, "qtype", "weights in float8 need no adapter that recovers their accuracy.")
    whole = not job.network.data or job.network.data.get("type") == "fullrank"
    if node.flag("quantize") and whole:
        draft.drop(node, "quantize", "the whole model is trained, which needs its weights in full.")
    elif node.flag("quantize"):
        keys = [key for key in ("transformer_dtype", "diffusion_model_dtype") if takes(family, key)]
        settings.put_quantised(draft, node, "quantize", keys, kind)
    if node.has("quantize_te"):
        if node.flag("quantize_te") and takes(family, "text_encoder_fp8"):
            draft.put(node, "quantize_te", "model.text_encoder_fp8", True)
        else:
            draft.drop(node, "quantize_te", "text encoders are unloaded once captions are cached.")
    node.taken |= {"qtype_te"} if node.has("qtype_te") else set()


def _put_network(draft: Draft, node: Node, family: str) -> None:
    """The [adapter] table, or none where the job trains the whole model."""
    if not node.data:
        return
    kind = (node.text("type") or "lora").lower()
    if kind == "fullrank":
        for key in node.data:
            draft.drop(node, key, "the whole model is trained: there is no [adapter].")
        return
    types = {"lora": "lora", "lokr": "lokr", "dora": "dora", "locon": "lora"}
    if kind not in types:
        node.source.fail(node.at("type"), f"'{kind}' is not trained here.", f"Use one of: {', '.join(types)}.")
    note = "Convolutions are left out." if kind == "locon" else ""
    if node.has("type"):
        draft.put(node, "type", "adapter.type", types[kind], note)
    else:
        draft.add("adapter.type", "lora", "AI Toolkit's default.")
    _put_rank(draft, node, family, kind)
    if (dropout := node.number("dropout")) and kind != "lokr":
        draft.put(node, "dropout", "adapter.dropout", dropout)
    if (factor := node.whole("lokr_factor")) is not None and kind == "lokr":
        draft.put(node, "lokr_factor", "adapter.decompose_factor", factor)
    if path := node.text("pretrained_lora_path"):
        draft.put(node, "pretrained_lora_path", "adapter.init_from_existing", path)
    _put_network_kwargs(draft, node.table("network_kwargs"), kind)


def _put_rank(draft: Draft, node: Node, family: str, kind: str) -> None:
    key = "rank" if node.has("rank") else "linear"
    rank = node.whole(key)
    node.taken |= {"rank", "linear"}
    full = node.flag("lokr_full_rank")
    if kind == "lokr" and full is not False:
        draft.add("adapter.rank", 1_000_000, "full matrices, as lokr_full_rank asks for (AI Toolkit's default).")
        node.taken |= {"linear_alpha", "alpha"}
        return
    if rank is None:
        draft.add("adapter.rank", 4, "AI Toolkit's default.")
    else:
        draft.put(node, key, "adapter.rank", rank)
    alpha_key = "linear_alpha" if node.has("linear_alpha") else "alpha"
    alpha = node.number(alpha_key)
    if family in _KEEPS_ALPHA:
        if alpha is None:
            draft.add("adapter.alpha", 1.0, "AI Toolkit's default.")
        else:
            draft.put(node, alpha_key, "adapter.alpha", float(alpha))
    elif alpha is not None:
        draft.drop(node, alpha_key, f"AI Toolkit sets alpha to the rank for {FACTS[family].title}, as happens here.")


def _pattern(part: str) -> str:
    """A part of a name as a regular expression from the name's beginning.

    AI Toolkit's names begin with that of the network, which a family's own modules do not: what names the network
    stands at the beginning, so that `transformer.transformer_blocks.1` is not in `single_transformer_blocks.1`.
    """
    rest = _ROOT.sub("", part)
    return f"{'' if rest != part else '.*'}{re.escape(rest)}"


def _put_network_kwargs(draft: Draft, node: Node, kind: str) -> None:
    """Parts of names that are taken or left out become one regular expression of names that are left out."""
    only, ignored = ([_pattern(part) for part in node.texts(f"{word}_if_contains")] for word in ("only", "ignore"))
    patterns = []
    if only:
        patterns.append(f"(?!{'|'.join(only)}).*")
    if ignored:
        patterns.append(f"(?:{'|'.join(ignored)}).*")
    for key, given in (("only_if_contains", only), ("ignore_if_contains", ignored)):
        if given:
            note = "As a regular expression over the names of modules in diffusers."
            draft.put(node, key, "adapter.exclude_modules", "|".join(patterns), note)
    if (dropout := node.number("rank_dropout")) and kind == "lokr":
        draft.put(node, "rank_dropout", "adapter.rank_dropout", dropout)
    draft.rest(node)
