"""Transformer Lab's parameters of its diffusion trainer (JSON), as a training and a dataset file.

`PARAMETERS` has every parameter of that trainer and what it is here; the importer and the docs read it.
"""

from __future__ import annotations

import json
from typing import Any

from dpnb.importers import settings
from dpnb.importers.draft import DATASET_FILE, Draft
from dpnb.importers.families import complete, put_weights, takes
from dpnb.importers.report import Imported
from dpnb.importers.source import Node, Source
from dpnb.schema.dataset import Dataset
from dpnb.schema.foreign import TRANSFORMER_LAB, Row, rows
from dpnb.schema.model import FACTS, FAMILIES
from dpnb.schema.training import Training
from dpnb.toml.places import nearest_place

NAMES = (
    "adaptor_name",
    "trigger_word",
    "num_train_epochs",
    "train_batch_size",
    "gradient_accumulation_steps",
    "caption_column",
    "image_column",
    "caption_dropout_rate",
    "resolution",
    "center_crop",
    "image_interpolation_mode",
    "random_flip",
    "color_jitter",
    "color_jitter_brightness",
    "color_jitter_contrast",
    "color_jitter_saturation",
    "color_jitter_hue",
    "random_rotation",
    "rotation_degrees",
    "rotation_prob",
    "lora_r",
    "lora_alpha",
    "learning_rate",
    "lr_scheduler",
    "lr_warmup_steps",
    "adam_beta1",
    "adam_beta2",
    "weight_decay",
    "epsilon",
    "max_grad_norm",
    "loss_type",
    "huber_c",
    "prediction_type",
    "snr_gamma",
    "min_snr_gamma",
    "noise_offset",
    "mixed_precision",
    "enable_xformers_memory_efficient_attention",
    "gradient_checkpointing",
    "use_ema",
    "ema_decay",
    "eval_prompt",
    "eval_steps",
    "eval_num_inference_steps",
    "eval_guidance_scale",
    "log_to_wandb",
)
ARCHITECTURES = {
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "StableDiffusionPipeline": "sd15",
}
_BELOW = ("", "config", "parameters")  # where a file keeps its parameters
_TEXT = "config_json"  # of a task: its parameters, as JSON in a text
_FEWEST = 3  # parameters that a file must have to be taken for one of Transformer Lab's
_DEFAULT = "Transformer Lab's default."


def _home(name: str) -> Row:
    """Our key and a note for one parameter; a name that is the same here stands in none of the tables."""
    training, dataset = rows(TRANSFORMER_LAB, "training"), rows(TRANSFORMER_LAB, "dataset")
    found = training.get(name) or dataset.get(name)
    if found is None:
        assert name in Training.model_fields or name in Dataset.model_fields, name
        found = (name, "")
    return found


PARAMETERS: dict[str, Row] = {name: _home(name) for name in NAMES}


def unfolded(source: Source) -> Source:
    """A recipe or a task, whose parameters stand in one text of JSON, as the file of its parameters."""
    tasks = source.root.get("tasks")
    for loc, task in [
        ((), source.root),
        *((("tasks", i), task) for i, task in enumerate(tasks if isinstance(tasks, list) else [])),
    ]:
        text = task.get(_TEXT) if isinstance(task, dict) else None
        try:
            root = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            continue
        if isinstance(root, dict) and parameters_in(root) is not None:
            place = nearest_place(source.places, (*loc, _TEXT))
            return Source(source.path, root, {(): place})
    return source


def parameters_in(root: dict[str, Any]) -> tuple[str, ...] | None:
    """Where the parameters stand in a file: at its root or in a table below it; None in a file of something else."""
    for below in _BELOW:
        table = root.get(below) if below else root
        if (
            isinstance(table, dict)
            and len(table.keys() & PARAMETERS.keys()) >= _FEWEST
            and "network_module" not in table
        ):
            return (below,) if below else ()
    return None


def import_parameters(source: Source, *, name: str | None, model: str | None) -> Imported:
    """One set of parameters; `name` replaces adaptor_name, `model` says the family."""
    draft = Draft("Transformer Lab", TRANSFORMER_LAB)
    source = unfolded(source)
    node = Node(source, source.root)
    for below in parameters_in(source.root) or ():
        outer, node = node, node.table(below)
        draft.rest(outer)
    family = _put_model(draft, node, model)
    adaptor = name or node.text("adaptor_name") or "adaptor"
    if node.has("adaptor_name"):
        draft.put(node, "adaptor_name", "output_dir", f"output/{adaptor}")
    else:
        draft.add("output_dir", f"output/{adaptor}", _DEFAULT)
    draft.add("dataset", DATASET_FILE, "the folder stands in a file of its own.")
    _put_lengths(draft, node)
    _put_optimizer(draft, node)
    _put_adapter(draft, node)
    _put_loss(draft, node, family)
    _put_sample(draft, node, family)
    _put_dataset(draft, node, adaptor)
    draft.rest(node)
    settings.complete_monitoring(draft, "transformerlab", adaptor)
    complete(draft, family)
    return draft.finish()


def _put_model(draft: Draft, node: Node, model: str | None) -> str:
    architecture, named = node.text("model_architecture"), node.text("model_name") or ""
    family = model or ARCHITECTURES.get(architecture or "") or settings.family_of_name(named)
    if family is None:
        hint = settings.say_family(FAMILIES)
        node.source.fail(node.loc, "says nowhere which model is trained.", hint)
    key = "model_architecture" if architecture else "model_name"
    if model or not node.has(key):
        draft.add("model.type", family, "as --model says.")
    else:
        draft.put(
            node, key, "model.type", family, "" if architecture else "By the model's name; --model overrules it."
        )
    if named:
        put_weights(draft, family, node, "model_name")
    if node.has("mixed_precision"):
        settings.put_dtype(draft, node, "mixed_precision", "model.dtype")
    else:
        draft.add("model.dtype", "float32", _DEFAULT)
    if takes(family, "text_encoder_1_lr"):
        for key in ("model.text_encoder_1_lr", "model.text_encoder_2_lr"):
            draft.add(key, 0.0, "Transformer Lab leaves text encoders as they are.")
    return family


def _put_lengths(draft: Draft, node: Node) -> None:
    epochs = node.whole("num_train_epochs")
    if epochs is None:
        draft.add("epochs", 100, _DEFAULT)
    else:
        draft.put(node, "num_train_epochs", "epochs", epochs)
    draft.add(
        "save_every_n_epochs", 100 if epochs is None else max(1, epochs), "Transformer Lab saves at the end alone."
    )
    for key, target in (
        ("train_batch_size", "micro_batch_size_per_gpu"),
        ("gradient_accumulation_steps", "gradient_accumulation_steps"),
    ):
        if (count := node.whole(key)) is not None:
            draft.put(node, key, target, count)
    if (trigger := node.text("trigger_word")) is not None:
        draft.put(node, "trigger_word", "trigger_word", trigger)


def _put_optimizer(draft: Draft, node: Node) -> None:
    draft.add("optimizer.type", "adamw", "Transformer Lab has no other.")
    lr = node.number("learning_rate")
    if lr is None:
        draft.add("optimizer.lr", 1e-4, _DEFAULT)
    else:
        draft.put(node, "learning_rate", "optimizer.lr", lr)
    betas = [node.number("adam_beta1"), node.number("adam_beta2")]
    both = [0.9 if betas[0] is None else float(betas[0]), 0.999 if betas[1] is None else float(betas[1])]
    for key, value in zip(("adam_beta1", "adam_beta2"), betas, strict=True):
        if value is not None:
            draft.put(node, key, "optimizer.betas", both)
    for key, target in (("weight_decay", "optimizer.weight_decay"), ("epsilon", "optimizer.eps")):
        if (value := node.number(key)) is not None:
            draft.put(node, key, target, value)
    schedule, warmup = node.text("lr_scheduler"), node.whole("lr_warmup_steps")
    if schedule is not None:
        settings.put_schedule(draft, node, "lr_scheduler")
    if warmup is not None and (schedule or "constant") == "constant":
        draft.drop(node, "lr_warmup_steps", "Transformer Lab's constant schedule takes no notice of it.")
    elif warmup is not None:
        draft.put(node, "lr_warmup_steps", "warmup_steps", warmup)
    if (longest := node.number("max_grad_norm")) is not None:
        draft.put(
            node, "max_grad_norm", "gradient_clipping", longest, "It has no effect in Transformer Lab (a fault)."
        )


def _put_adapter(draft: Draft, node: Node) -> None:
    draft.add("adapter.type", "lora", "Transformer Lab has no other.")
    rank, alpha = node.whole("lora_r"), node.number("lora_alpha")
    if rank is None:
        draft.add("adapter.rank", 8, _DEFAULT)
    else:
        draft.put(node, "lora_r", "adapter.rank", rank)
    if alpha is None:
        draft.add("adapter.alpha", 16.0, _DEFAULT)
    else:
        draft.put(node, "lora_alpha", "adapter.alpha", float(alpha))
    draft.add("adapter.target_modules", ["to_k", "to_q", "to_v", "to_out.0"], "what Transformer Lab trains.")
    if (checkpointing := node.flag("gradient_checkpointing")) is not None:
        draft.put(node, "gradient_checkpointing", "activation_checkpointing", checkpointing)
    if node.flag("use_ema"):
        decay = node.number("ema_decay")
        note = "" if node.has("ema_decay") else "At Transformer Lab's default."
        draft.put(node, "ema_decay" if decay else "use_ema", "ema.decay", decay or 0.9999, note)
    elif node.has("ema_decay"):
        draft.drop(node, "ema_decay", "the average is off (use_ema).")


def _put_loss(draft: Draft, node: Node, family: str) -> None:
    threshold = node.number("huber_c")
    if node.text("loss_type") == "huber":
        draft.put(node, "loss_type", "smooth_l1_beta", 0.1 if threshold is None else threshold)
        if threshold is not None:
            draft.put(node, "huber_c", "smooth_l1_beta", threshold)
    elif threshold is not None:
        draft.drop(node, "huber_c", "the loss is the squared error (loss_type).")
    if node.text("prediction_type") == "v_prediction" and takes(family, "v_pred"):
        draft.put(node, "prediction_type", "model.v_pred", True)
    elif node.text("prediction_type") == "v_prediction":
        draft.drop(node, "prediction_type", f"{FACTS[family].title} learns a velocity in any case.")
    settings.put_weighting(draft, node, family)


def _put_sample(draft: Draft, node: Node, family: str) -> None:
    prompt = node.text("eval_prompt")
    if not prompt:
        for key in ("eval_steps", "eval_num_inference_steps", "eval_guidance_scale"):
            if node.has(key):
                draft.drop(node, key, "no samples are drawn: eval_prompt is empty.")
        return
    draft.put(node, "eval_prompt", "sample.prompts", [prompt])
    every, count, guidance = (
        node.whole("eval_steps"),
        node.whole("eval_num_inference_steps"),
        node.number("eval_guidance_scale"),
    )
    for key, target, value, default in (
        ("eval_steps", "every_n_epochs", every, 1),
        ("eval_num_inference_steps", "steps", count, 50),
        ("eval_guidance_scale", "guidance", None if guidance is None else float(guidance), 7.5),
    ):
        if value is None:
            draft.add(f"sample.{target}", default, _DEFAULT)
        else:
            draft.put(node, key, f"sample.{target}", value)
    px = settings.side(family, node.whole("resolution") or 512)[0]
    for key in ("width", "height"):
        draft.add(f"sample.{key}", px, "the resolution that is trained.")
    draft.add("sample.before_first_step", False, "Transformer Lab draws after epochs alone.")


def _put_dataset(draft: Draft, node: Node, adaptor: str) -> None:
    """The folder is a data set of Transformer Lab's own, whose path the parameters do not say."""

    def put(key: str, target: str, value: Any, note: str = "") -> None:  # noqa: ANN401 - whatever TOML can hold
        draft.put(node, key, target, value, note, file="dataset")

    named = node.text("dataset_name") or node.text("dataset")
    folder = f"datasets/{(named or adaptor).rstrip('/').rpartition('/')[2]}"
    why = "the parameters do not say where the pictures lie: put them there, or name their folder."
    draft.add("path", folder, why, folder=0, file="dataset")
    px = node.whole("resolution")
    if px is None:
        draft.add("resolutions", [512], _DEFAULT, file="dataset")
    else:
        put("resolution", "resolutions", [px])
    draft.add("enable_ar_bucket", False, "Transformer Lab crops every picture to a square.", file="dataset")
    columns = [key for key in ("image_column", "caption_column") if node.has(key)]
    for key in columns:
        put(key, key, node.text(key))
    if columns:
        draft.add("metadata_file", f"{folder}/metadata.jsonl", "the table that has these columns.", file="dataset")
    draft.add("skip_empty_caption", False, "Transformer Lab trains pictures without a caption too.", file="dataset")
    if (share := node.number("caption_dropout_rate")) is not None:
        put("caption_dropout_rate", "caption_dropout", share)
    if (mode := node.text("image_interpolation_mode")) is not None:
        put("image_interpolation_mode", "interpolation", mode.lower())
    center = node.flag("center_crop")
    if center is None:
        draft.add("crop", "random", _DEFAULT, file="dataset")
    else:
        put("center_crop", "crop", "center" if center else "random")
    _put_augmentation(draft, node)


def _put_augmentation(draft: Draft, node: Node) -> None:
    if node.flag("random_flip"):
        draft.put(node, "random_flip", "augmentation.flip", 0.5, file="dataset")
    jitter, rotation = node.flag("color_jitter"), node.flag("random_rotation")
    for key, target, on, default in (
        ("color_jitter_brightness", "brightness", jitter, 0.1),
        ("color_jitter_contrast", "contrast", jitter, 0.1),
        ("color_jitter_saturation", "saturation", jitter, 0.1),
        ("color_jitter_hue", "hue", jitter, 0.05),
        ("rotation_degrees", "rotation_degrees", rotation, 5.0),
        ("rotation_prob", "rotation_probability", rotation, 0.3),
    ):
        value = node.number(key)
        if on and value is None:
            draft.add(f"augmentation.{target}", default, _DEFAULT, file="dataset")
        elif on:
            draft.put(node, key, f"augmentation.{target}", value, file="dataset")
        elif value is not None:
            switch = "color_jitter" if key.startswith("color") else "random_rotation"
            draft.drop(node, key, f"it is off ({switch}).")
