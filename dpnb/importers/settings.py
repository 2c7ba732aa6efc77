"""What several importers translate in the same way: number formats, optimizers, schedules and sample prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dpnb.importers.draft import Draft, has_field
from dpnb.importers.families import takes
from dpnb.importers.source import Node, as_number
from dpnb.schema import pytorch_optimizers
from dpnb.schema.base import Section
from dpnb.schema.model import FACTS
from dpnb.schema.optimizer import NAMED, OPTIMIZERS, OtherOptimizer
from dpnb.schema.unions import section_for, tag_of

DTYPES = {
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
    "half": "float16",
    "float": "float32",
    "fp32": "float32",
    "float32": "float32",
    "no": "float32",
}

# Names that other trainers have for an optimizer, with what is different here.
_ALIASES = {
    "adamw8": ("adamw8bit", ""),
    "adam8bit": ("adamw8bit", "Its weight decay is decoupled here."),
    "adam8": ("adamw8bit", "Its weight decay is decoupled here."),
    "pagedadamw": ("adamw", "Its state is not paged; that of adamw8bit can be (is_paged)."),
    "pagedadamw8bit": ("adamw8bit", "Add is_paged = true, as there."),
    "pagedadamw32bit": ("adamw", "Its state is not paged; that of adamw8bit can be (is_paged)."),
    "sgdnesterov": ("sgd", "Add nesterov = true and a momentum, as there."),
    "sgdnesterov8bit": ("sgd", "Add nesterov = true and a momentum, as there; its state is kept in full."),
    "lion8bit": ("Lion", "Its state is kept in full."),
    "pagedlion8bit": ("Lion", "Its state is kept in full."),
    "prodigy8bit": ("Prodigy", "Its state is kept in full."),
    "ademamix8bit": ("AdEMAMix", "Its state is kept in full."),
    "dadaptation": ("DAdaptAdam", ""),
    "automagic2": ("automagic", "It is the first Automagic."),
    "automagic3": ("automagic", "It is the first Automagic."),
    "adamwschedulefree": ("ScheduleFreeAdamW", ""),
    "radamschedulefree": ("ScheduleFreeRAdam", ""),
    "sgdschedulefree": ("ScheduleFreeSGD", ""),
    "prodigyopt": ("Prodigy", ""),
    "prodigy_schedulefree": ("Prodigy", "Its schedule-free form is not there."),
    "prodigyplusschedulefree": ("Prodigy", "Its schedule-free form is not there."),
    "adamw_torch": ("adamw", ""),
}
_SCHEDULES = {
    "constant": ("constant", ""),
    "constant_with_warmup": ("constant", ""),
    "linear": ("linear", ""),
    "cosine": ("cosine", ""),
    "cosine_with_restarts": ("cosine", "It falls once, without restarts."),
    "cosine_with_min_lr": ("cosine", "It falls to 0."),
    "polynomial": ("linear", "It falls in a straight line."),
    "adafactor": ("constant", "The optimizer has a schedule of its own."),
}
# Parameters of Prodigy and D-Adaptation that the library of optimizers calls otherwise.
_PARAMETERS = {"decouple": "weight_decouple", "use_bias_correction": "bias_correction"}
_FLAG = re.compile(r"\s--")
_SIGNED_OPTIMIZERS = {section: tag for section in NAMED if (tag := tag_of(section))}


def put_dtype(draft: Draft, node: Node, key: str, target: str) -> None:
    """A number format under its name here; one that is not known is an error at its key."""
    written = node.text(key) if not isinstance(node.data.get(key), bool) else None
    if written is None:
        draft.drop(node, key, "it names no number format.")
        return
    dtype = DTYPES.get(written.lower().replace("torch.", ""))
    if dtype is None:
        known = ", ".join(DTYPES)
        node.source.fail(
            node.at(key), f"'{written}' is no number format that is known here.", f"Write one of: {known}."
        )
    draft.put(node, key, target, dtype)


def put_optimizer(draft: Draft, node: Node, key: str) -> None:
    """The optimizer by our name of it; one that is not known here becomes AdamW, and the report says so."""
    written = node.text(key) or ""
    name = written.lower().rpartition(".")[2]
    spellings = {known.lower(): known for known in pytorch_optimizers.names()} | {
        tag: tag for tag in _SIGNED_OPTIMIZERS.values()
    }
    ours, note = _ALIASES.get(name, (spellings.get(name, ""), ""))
    if not ours:
        ours, note = "adamw", f"'{written}' is not known here; AdamW takes its place: choose the learning rate anew."
    draft.put(node, key, "optimizer.type", ours, note)


def put_optimizer_key(draft: Draft, node: Node, key: str, name: str, value: Any) -> None:  # noqa: ANN401
    """One parameter of the optimizer, if ours has it."""
    section = optimizer_section(draft)
    if not has_field(section, name):
        name = _PARAMETERS.get(name, name)
    value = as_number(value) if isinstance(value, str) and as_number(value) is not None else value
    if isinstance(value, list) and not all(isinstance(item, int | float) for item in value):
        value = [number if (number := as_number(item)) is not None else item for item in value]
    if has_field(section, name) and name != "type":
        draft.put(node, key, f"optimizer.{name}", value)
    else:
        draft.drop(node, key, f"{draft.get('optimizer.type')} has no parameter of this name here.")


def optimizer_section(draft: Draft) -> type[Section]:
    """The section of the optimizer that has been chosen so far; its own parameters alone for a class of a library."""
    table = {"type": draft.get("optimizer.type") or "adamw"}
    section = section_for(OPTIMIZERS, table)
    return OtherOptimizer.for_table(table) if section is OtherOptimizer else section


def put_fused(draft: Draft, node: Node, key: str, paths: list[str], weights: list[float]) -> None:
    """Adapters that are merged into the frozen weights before the training; a weight that is not given is 1."""
    if not draft.get("adapter.type"):
        draft.drop(node, key, "there is no [adapter] that they could be merged beside.")
        return
    padded = [*weights, *[1.0] * (len(paths) - len(weights))]
    fused = [{"path": path, "weight": float(weight)} for path, weight in zip(paths, padded, strict=False)]
    draft.put(node, key, "adapter.fuse_adapters", fused)


def put_schedule(draft: Draft, node: Node, key: str) -> None:
    """The shape of the learning rate; one that is not there becomes the nearest, and the report says so."""
    written = node.text(key) or "constant"
    ours, note = _SCHEDULES.get(
        written.lower(), ("constant", f"'{written}' is not there: constant, linear or cosine.")
    )
    draft.put(node, key, "lr_scheduler", ours, note)


def put_weighting(draft: Draft, node: Node, family: str) -> None:
    """Min-SNR weighting, under either of its names, and the offset of the noise."""
    for key in ("min_snr_gamma", "snr_gamma"):
        gamma = node.number(key)
        if gamma and takes(family, "min_snr_gamma"):
            draft.put(node, key, "model.min_snr_gamma", gamma)
        elif gamma:
            draft.drop(node, key, "the weighting means nothing for a model that learns a flow.")
    if offset := node.number("noise_offset"):
        draft.put(node, "noise_offset", "loss.noise_offset", offset)


def put_quantised(draft: Draft, node: Node, key: str, family_keys: Iterable[str], kind: str = "float8") -> None:
    """Frozen weights in 8 bits, under the key that the family has for it."""
    target = next(iter(family_keys), None)
    if target is None or draft.get("model.dtype") == "float32":
        why = "with float32 weights" if target else "for this family"
        draft.drop(node, key, f"frozen weights are not stored in 8 bits {why}.")
        return
    smaller = kind not in ("float8", "qfloat8", "qfloat8_e4m3fn")
    draft.put(node, key, f"model.{target}", "float8", f"Instead of {kind}: float8 is the smallest." if smaller else "")


def side(family: str, px: int) -> tuple[int, str]:
    """A side of a sample picture as the family takes it, with a note where it had to be rounded."""
    rounding = FACTS[family].multiple_px
    rounded = max(rounding, round(px / rounding) * rounding)
    return rounded, "" if rounded == px else f"{FACTS[family].title} takes multiples of {rounding} px."


def prompt_of_text(text: str, family: str) -> tuple[dict[str, Any], list[str]]:
    """A prompt with flags behind it (`a cat --w 768 --d 42 --s 30 --l 4 --n blurry`), and flags without a meaning.

    AI Toolkit and kohya share the letters: n negative, w width, h height, d seed, l or g guidance, s steps.
    """
    pieces = _FLAG.split(f" {text}")
    prompt: dict[str, Any] = {"text": pieces[0].strip()}
    left: list[str] = []
    whole = {"w": "width", "h": "height", "d": "seed", "seed": "seed", "s": "steps", "steps": "steps"}
    for piece in pieces[1:]:
        flag, _, value = piece.partition(" ")
        number = as_number(value.strip())
        if flag == "n":
            prompt["negative"] = value.strip()
        elif flag in whole and number is not None and number >= (flag not in ("d", "seed")):
            prompt[whole[flag]] = int(number)
        elif flag in ("l", "g", "cfg") and number is not None and number >= 0:
            prompt["guidance"] = float(number)
        else:
            left.append(f"--{piece.strip()}")
    for key in ("width", "height"):
        if key in prompt:
            prompt[key] = side(family, prompt[key])[0]
    return prompt, left


def short(prompts: list[dict[str, Any]]) -> list[Any]:
    """Prompts as bare texts where they say nothing else."""
    return [prompt["text"] if set(prompt) == {"text"} else prompt for prompt in prompts]


def put_controls(draft: Draft, node: Node, key: str, paths: list[str], folder: int) -> None:
    """A folder's folders of control pictures, added to those that it has, in families that are trained on pairs."""
    family = draft.get("model.type")
    if family is not None and not FACTS[family].edit:
        draft.drop(node, key, f"{FACTS[family].title} is not trained on pairs of pictures.")
        return
    there = draft.get("control_path", folder, "dataset") or []
    paths = [*([there] if isinstance(there, str) else there), *paths]
    draft.put_folder(node, key, "control_path", paths[0] if len(paths) == 1 else paths, folder)


def complete_monitoring(draft: Draft, project: str, run: str) -> None:
    """Names for Weights & Biases where it is on and the source gives none."""
    if not draft.get("monitoring.enable_wandb"):
        return
    for key, value in (("wandb_tracker_name", project), ("wandb_run_name", run)):
        if not draft.get(f"monitoring.{key}"):
            draft.add(f"monitoring.{key}", value, "Weights & Biases needs it.")


def say_family(choices: Iterable[str]) -> str:
    """A hint that names families to choose from."""
    return f"Say the family with --model: {', '.join(choices)}."


def family_of_name(name: str) -> str | None:
    """The family that a model's own name gives away, such as that of stabilityai/stable-diffusion-xl-base-1.0."""
    named = name.lower()
    for pattern, family in (
        (r"flux[._-]?2|flux2", "flux2"),
        (r"flux", "flux"),
        (r"stable-diffusion-3|sd3", "sd3"),
        (r"xl(?![a-z])", "sdxl"),
        (r"stable-diffusion-(?:v?1|v?2)|sd[-_]?v?1[-_.]|sd15|v1-5", "sd15"),
    ):
        if re.search(pattern, named):
            return family
    return None
