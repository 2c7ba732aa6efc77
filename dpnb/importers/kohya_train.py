"""What a kohya training file says of lengths, the optimizer, saving and sampling."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

from dpnb.importers import settings
from dpnb.importers.draft import Draft
from dpnb.importers.families import takes
from dpnb.importers.source import Node
from dpnb.schema.paths import kind_of_path
from dpnb.toml.syntax import read

_DEFAULT = "kohya's default."
_MOST_STEPS = 1600  # sd-scripts' and musubi-tuner's own


def put_lengths(draft: Draft, node: Node) -> None:
    """Batch size, epochs or steps, and the warm-up."""
    epochs, steps = node.whole("max_train_epochs"), node.whole("max_train_steps")
    if node.has("epoch"):
        draft.drop(node, "epoch", "kohya's GUI writes it; its scripts read max_train_epochs.")
    if "train_batch_size" not in node.taken and (batch := node.whole("train_batch_size")) is not None:
        draft.put(node, "train_batch_size", "micro_batch_size_per_gpu", batch)
    if epochs is not None:
        draft.put(node, "max_train_epochs", "epochs", epochs)
        if steps is not None:
            draft.drop(node, "max_train_steps", "max_train_epochs takes its place, in kohya's scripts too.")
    else:
        if steps is None:
            draft.add("max_steps", _MOST_STEPS, _DEFAULT)
        else:
            draft.put(node, "max_train_steps", "max_steps", steps)
        count = _MOST_STEPS if steps is None else max(1, steps)
        draft.add("epochs", count, "the run ends after max_steps, before so many epochs.")
    if (warmup := node.number("lr_warmup_steps")) is not None:
        total = draft.get("max_steps")
        if 0 < warmup < 1 and total is None:
            draft.drop(
                node, "lr_warmup_steps", "it is a share of steps whose number is not known; warmup_steps is a number."
            )
        elif 0 < warmup < 1:
            draft.put(node, "lr_warmup_steps", "warmup_steps", math.ceil(warmup * total), "It is a number of steps.")
        else:
            draft.put(node, "lr_warmup_steps", "warmup_steps", int(warmup))


def put_optimizer(draft: Draft, node: Node, family: str) -> None:
    """The optimizer, its parameters and learning rates."""
    if node.has("optimizer_type"):
        settings.put_optimizer(draft, node, "optimizer_type")
    elif node.flag("use_8bit_adam"):
        draft.put(node, "use_8bit_adam", "optimizer.type", "adamw8bit")
    elif node.flag("use_lion_optimizer"):
        draft.put(node, "use_lion_optimizer", "optimizer.type", "Lion")
    else:
        draft.add("optimizer.type", "adamw", _DEFAULT)
    _put_rate(draft, node, family)
    arguments = Node(node.source, pairs_of(node, "optimizer_args"), ("optimizer_args",))
    for name, value in arguments.data.items():
        settings.put_optimizer_key(draft, arguments, name, name, value)
    for source, target in (("gradient_accumulation_steps", "gradient_accumulation_steps"), ("seed", "seed")):
        if (count := node.whole(source)) is not None:
            draft.put(node, source, target, count)
    if (checkpointing := node.flag("gradient_checkpointing")) is not None:
        offload = node.flag("gradient_checkpointing_cpu_offload") or node.flag("cpu_offload_checkpointing")
        draft.put(node, "gradient_checkpointing", "activation_checkpointing", "unsloth" if offload else checkpointing)
    if (longest := node.number("max_grad_norm")) is not None:
        draft.put(node, "max_grad_norm", "gradient_clipping", longest)


def _put_rate(draft: Draft, node: Node, family: str) -> None:
    of_parts = takes(family, "unet_lr")
    key = "unet_lr" if node.has("unet_lr") and not of_parts else "learning_rate"
    rate = node.number(key)
    if rate is None:
        draft.add("optimizer.lr", 2e-6, _DEFAULT)
    else:
        draft.put(node, key, "optimizer.lr", rate)
    if key == "unet_lr" and node.has("learning_rate"):
        draft.drop(node, "learning_rate", "unet_lr takes its place.")
    if of_parts:
        _put_part_rates(draft, node, family)
    else:
        node.taken.add("network_train_unet_only")
        if node.has("text_encoder_lr"):
            draft.drop(node, "text_encoder_lr", "only the text encoders of sdxl and sd15 can be trained.")
    if node.has("lr_scheduler"):
        settings.put_schedule(draft, node, "lr_scheduler")


def _put_part_rates(draft: Draft, node: Node, family: str) -> None:
    """Learning rates of UNet and text encoders, for sdxl and sd15."""
    if node.flag("network_train_text_encoder_only"):
        draft.put(node, "network_train_text_encoder_only", "model.unet_lr", 0.0, "A rate of 0 leaves it as it is.")
    elif (rate := node.number("unet_lr")) is not None:
        draft.put(node, "unet_lr", "model.unet_lr", rate)
    targets = ["text_encoder_1_lr", "text_encoder_2_lr"] if family == "sdxl" else ["text_encoder_lr"]
    written = node.any("text_encoder_lr")
    rates = [
        number for item in (written if isinstance(written, list) else [written]) if (number := _rate(item)) is not None
    ]
    if node.flag("network_train_unet_only") or not node.has("network_module"):
        for target in targets if family == "sdxl" else []:
            draft.add(f"model.{target}", 0.0, "only the UNet is trained.")
    elif rates:
        for position, target in enumerate(targets):
            draft.put(node, "text_encoder_lr", f"model.{target}", rates[min(position, len(rates) - 1)])
    elif family == "sd15":
        draft.add("model.text_encoder_lr", draft.get("optimizer.lr"), "kohya trains the text encoder too.")


def _rate(value: Any) -> float | None:  # noqa: ANN401 - whatever the file holds
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


# --- saving and sampling ---------------------------------------------------------------------------------------------


def put_saving(draft: Draft, node: Node, name: str | None) -> None:
    """Where and when exports and checkpoints are written."""
    folder = node.text("output_dir")
    named = name or node.text("output_name")
    if folder:
        draft.put(node, "output_dir", "output_dir", f"{folder.rstrip('/')}/{name}" if name else folder)
    else:
        draft.add("output_dir", f"output/{named or 'run'}", "the source names no folder.")
    if node.has("output_name"):
        draft.drop(node, "output_name", "exports lie in the folder of the run, which is named by its start time.")
    every = False
    for key in ("save_every_n_epochs", "save_every_n_steps"):
        if (count := node.whole(key)) is not None and count > 0:
            draft.put(node, key, key, count)
            every = True
    if not every:
        key = "epochs" if draft.get("max_steps") is None else "steps"
        count = draft.get("epochs") if key == "epochs" else draft.get("max_steps")
        draft.add(f"save_every_n_{key}", max(1, count), "kohya saves at the end alone.")
    if node.has("save_precision"):
        settings.put_dtype(draft, node, "save_precision", "save_dtype")
    for key, target in (
        ("save_last_n_epochs", "keep_last_n_saves"),
        ("save_last_n_steps", "keep_last_n_saves"),
        ("save_last_n_epochs_state", "keep_last_n_checkpoints"),
        ("save_last_n_steps_state", "keep_last_n_checkpoints"),
    ):
        span, unit = node.whole(key), node.whole(f"save_every_n_{'epochs' if 'epochs' in key else 'steps'}")
        if span and unit:
            draft.put(node, key, target, max(1, span // unit), "It counts what is kept, not epochs or steps.")
    if node.flag("save_state") and (epochs := draft.get("save_every_n_epochs")):
        draft.put(node, "save_state", "checkpoint_every_n_epochs", epochs)
    if "wandb" in (node.text("log_with") or "") or node.text("log_with") == "all":
        draft.put(node, "log_with", "monitoring.enable_wandb", True)


def put_sample(draft: Draft, node: Node, family: str) -> None:
    """The prompts stand in a text file of their own; they are taken over if it is there."""
    named = node.text("sample_prompts")
    prompts = _prompts_of(node, named, family) if named else []
    if not prompts:
        if named:
            draft.drop(node, "sample_prompts", "no text file with prompts is there: write them into [sample].")
        for key in ("sample_every_n_steps", "sample_every_n_epochs", "sample_at_first"):
            if node.has(key):
                draft.drop(node, key, "without prompts no samples are drawn.")
        return
    draft.put(node, "sample_prompts", "sample.prompts", settings.short(prompts))
    for key, target in (("sample_every_n_steps", "every_n_steps"), ("sample_every_n_epochs", "every_n_epochs")):
        if (count := node.whole(key)) is not None and count > 0:
            draft.put(node, key, f"sample.{target}", count)
    first = node.flag("sample_at_first")
    if first is None:
        draft.add("sample.before_first_step", False, _DEFAULT)
    else:
        draft.put(node, "sample_at_first", "sample.before_first_step", first)


def _prompts_of(node: Node, named: str, family: str) -> list[dict[str, Any]]:
    for path in (Path(named), node.source.path.parent / named):
        if path.suffix == ".txt" and kind_of_path(path) == "file":
            texts = [line.strip() for line in read(path).removeprefix("\ufeff").splitlines()]
            return [settings.prompt_of_text(text, family)[0] for text in texts if text and not text.startswith("#")]
    return []


def pairs_of(node: Node, key: str) -> dict[str, Any]:
    """A list of `name=value` texts as a table; values are numbers, lists or texts."""
    pairs: dict[str, Any] = {}
    for text in node.texts(key):
        name, equals, value = text.partition("=")
        if not equals:
            node.source.fail(node.at(key), f"'{text}' is not of the form name=value.", "Write it as name=value.")
        try:
            spelled = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            spelled = value.strip()
        plain = list(spelled) if isinstance(spelled, tuple) else spelled
        pairs[name.strip()] = plain if isinstance(plain, str | int | float | bool | list) else value.strip()
    return pairs
