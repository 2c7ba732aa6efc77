"""Rules across fields of the training file: each a small function that yields Problems that say what to change.

A rule reports an error for what cannot work and a warning for an option that would have no effect. Rules see schema
objects only: no file is opened here (paths: paths.py). What a training and a dataset file ask of one another stands
in rules_pair.py, the rules of the dataset file in rules_dataset.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

from dpnb.errors import Loc, Problem
from dpnb.schema.base import FLOAT8, Section, ui_of
from dpnb.schema.families.base import TextEncoder
from dpnb.schema.model import FACTS
from dpnb.schema.optimizer import GenericOptim
from dpnb.schema.sample import Prompt, Sampling
from dpnb.schema.training import Training

GRADIENT_RELEASE_FAMILIES = ("sdxl", "cosmos_predict2", "anima")


def error(loc: Loc, message: str, suggestion: str) -> Problem:
    """A rule that is broken."""
    return Problem("error", "rule", loc, message, suggestion)


def warning(loc: Loc, message: str, suggestion: str) -> Problem:
    """Something that is allowed and has no effect, or not the one that it seems to have."""
    return Problem("warning", "rule", loc, message, suggestion)


def without_effect(section: Section, loc: Loc = ()) -> Iterator[Problem]:
    """Keys that were set although another key switches them off (`Ui.when`), here and in the sections below."""
    for name, value in vars(section).items():
        if isinstance(value, Section):
            yield from without_effect(value, (*loc, name))
    for name, default, (sibling, allowed) in _switched(type(section)):
        value = getattr(section, name)
        if value == default or not str(value):
            continue
        if getattr(section, sibling) in allowed:
            continue
        if None in allowed:
            yield warning((*loc, name), f"has no effect because {sibling} is set.", "Remove one of the two.")
        else:
            choices = " or ".join(str(a).lower() if isinstance(a, bool) else f"'{a}'" for a in allowed)
            yield warning((*loc, name), "has no effect.", f"Set {sibling} = {choices}, or remove {name}.")


@cache
def _switched(cls: type[Section]) -> list[tuple[str, Any, tuple[str, tuple[Any, ...]]]]:
    """The keys of a table that another key switches: name, default, and the `Ui.when` that says how."""
    fields = cls.model_fields.items()
    return [
        (name, info.get_default(call_default_factory=True), when)
        for name, info in fields
        if (when := ui_of(info).when)
    ]


# --- saving, evaluation, sampling ------------------------------------------------------------------------------------


def _saves_something(t: Training) -> Iterator[Problem]:
    if t.save_every_n_epochs is None and t.save_every_n_steps is None and t.save_every_n_examples is None:
        yield error(
            ("save_every_n_epochs",),
            "none of save_every_n_epochs, save_every_n_steps and save_every_n_examples is set.",
            "Add one of them, such as save_every_n_epochs = 1.",
        )


def _checkpoints_once(t: Training) -> Iterator[Problem]:
    if t.checkpoint_every_n_epochs is not None and t.checkpoint_every_n_minutes is not None:
        yield warning(
            ("checkpoint_every_n_minutes",),
            "is set together with checkpoint_every_n_epochs: checkpoints are written by either.",
            "Keep one of the two, unless that is what you want.",
        )


def _evaluation_has_data(t: Training) -> Iterator[Problem]:
    schedule = ("eval_every_n_epochs", "eval_every_n_steps", "eval_every_n_examples")
    if not t.eval_datasets:
        said = [name for name in Training.model_fields if name.startswith("eval_") and name in t.model_fields_set]
        said = [name for name in said if name != "eval_datasets" and getattr(t, name) is not None]
        if said:
            others = f", nor {', '.join(said[1:])}" if said[1:] else ""
            yield warning(
                (said[0],),
                f"has no effect without eval_datasets{others}.",
                "Add eval_datasets, or remove what stands here.",
            )
        for name in ("keep_best", "early_stopping_patience"):
            if getattr(t, name):
                yield error((name,), "needs eval_datasets to measure on.", f"Add eval_datasets, or remove {name}.")
    elif not any(getattr(t, key) for key in schedule) and not t.eval_before_first_step:
        yield warning(("eval_datasets",), "is never used.", "Set eval_every_n_epochs or eval_every_n_steps.")
    names = [item.name for item in t.eval_datasets]
    for position, name in enumerate(names):
        if name in names[:position]:
            yield error(
                ("eval_datasets", position, "name"), f"'{name}' stands twice.", "Give each set a name of its own."
            )


def _sampling_happens(t: Training) -> Iterator[Problem]:
    s = t.sample
    if s is None:
        return
    if s.every_n_steps is None and s.every_n_epochs is None and not s.before_first_step:
        yield warning(
            ("sample",), "draws pictures only at the end of the run.", "Set every_n_steps or every_n_epochs."
        )
    facts = FACTS[t.model.type]
    places: list[tuple[Loc, Sampling | Prompt]] = [(("sample",), s)]
    places += [(("sample", "prompts", i), prompt) for i, prompt in enumerate(s.prompts)]
    for loc, where in places:
        for key in ("width", "height"):
            side = getattr(where, key)
            if side is not None and side % facts.multiple_px:
                yield error(
                    (*loc, key),
                    f"{side} px is not a multiple of {facts.multiple_px}, which {facts.title} needs.",
                    f"Use {max(facts.multiple_px, round(side / facts.multiple_px) * facts.multiple_px)}.",
                )
        if where.negative and s.true_cfg <= 1:
            yield warning((*loc, "negative"), "has no effect.", "Set sample.true_cfg above 1, such as 3.0.")


def _monitoring_is_complete(t: Training) -> Iterator[Problem]:
    if t.monitoring is None or not t.monitoring.enable_wandb:
        return
    for name in ("wandb_tracker_name", "wandb_run_name"):
        if getattr(t.monitoring, name) is None:  # an empty one leaves the choice to W&B
            yield error(
                ("monitoring", name), "is missing, and enable_wandb = true needs it.", "Add it, or turn W&B off."
            )


# --- parallelism and memory ------------------------------------------------------------------------------------------


def _partition_matches_stages(t: Training) -> Iterator[Problem]:
    if t.partition_method != "manual":
        return
    split = t.partition_split or []
    loc = ("partition_method" if t.partition_split is None else "partition_split",)
    if len(split) != t.pipeline_stages - 1:
        yield error(
            loc,
            f"{len(split)} layer numbers in partition_split do not fit pipeline_stages = {t.pipeline_stages}.",
            f"Give the first layer of each further stage, {t.pipeline_stages - 1} in all.",
        )
    elif any(b <= a for a, b in pairwise(split)):
        yield error(loc, f"{split} does not rise.", "Sort the layer numbers, without repeats.")


def _blocks_can_be_swapped(t: Training) -> Iterator[Problem]:
    loc, facts = ("blocks_to_swap",), FACTS[t.model.type]
    if not t.blocks_to_swap:
        if t.disable_block_swap_for_eval:
            yield warning(
                ("disable_block_swap_for_eval",), "has no effect.", "Set blocks_to_swap as well, or remove it."
            )
        return
    if not facts.block_swap:
        yield error(loc, f"{facts.title} cannot swap blocks.", "Remove blocks_to_swap.")
    elif facts.max_swap is not None and t.blocks_to_swap > facts.max_swap:
        yield error(
            loc, f"{t.blocks_to_swap} blocks are more than {facts.title} can swap.", f"Use {facts.max_swap} at most."
        )
    if t.pipeline_stages > 1:
        yield error(
            loc,
            f"does not go together with pipeline_stages = {t.pipeline_stages}.",
            "Set pipeline_stages = 1, or remove blocks_to_swap.",
        )
    if t.adapter is None:
        yield error(
            loc,
            "needs an adapter: in a full fine-tune all weights are at work.",
            "Add an [adapter] table, or remove it.",
        )


def _gradient_release_works(t: Training) -> Iterator[Problem]:
    if t.optimizer.gradient_release and t.model.type not in GRADIENT_RELEASE_FAMILIES:
        yield warning(
            ("optimizer", "gradient_release"),
            f"works in diffusion-pipe for {', '.join(GRADIENT_RELEASE_FAMILIES)} alone.",
            "Remove it.",
        )


def _generic_optimizer_fits(t: Training) -> Iterator[Problem]:
    o = t.optimizer
    if not isinstance(o, GenericOptim):
        return
    chosen = [key for key in ("muon", "adamuon", "normuon") if getattr(o, key)]
    if len(chosen) > 1:
        yield error(("optimizer", chosen[1]), f"does not go together with {chosen[0]}.", "Keep one of the two.")
    if (o.rank is None) != (o.update_proj_gap is None):
        there, missing = ("rank", "update_proj_gap") if o.update_proj_gap is None else ("update_proj_gap", "rank")
        yield error(("optimizer", there), f"needs {missing} as well.", f"Add {missing}, or remove {there}.")
    if o.momentum_type == "sm" and o.rank is None:
        yield error(
            ("optimizer", "momentum_type"), "'sm' needs a rank to project to.", "Add rank and update_proj_gap."
        )


# --- model, adapter and loss -----------------------------------------------------------------------------------------


def _model_is_complete(t: Training) -> Iterator[Problem]:
    facts = FACTS[t.model.type]
    if any(all(getattr(t.model, key) for key in keys) for keys in facts.needs) or not facts.needs:
        return
    sets = [", ".join(keys[:-1]) + " and " + keys[-1] if len(keys) > 1 else keys[0] for keys in facts.needs]
    nearest = min(facts.needs, key=lambda keys: sum(not getattr(t.model, key) for key in keys))
    missing = [key for key in nearest if not getattr(t.model, key)]
    yield error(("model",), f"{facts.title} needs {', or '.join(sets)}.", f"Add {' and '.join(missing)}.")


def _text_encoders_have_files(t: Training) -> Iterator[Problem]:
    for position, encoder in enumerate(getattr(t.model, "text_encoders", [])):
        loc = ("model", "text_encoders", position)
        assert isinstance(encoder, TextEncoder)
        if not encoder.path and not encoder.paths:
            yield error(loc, "names no file.", "Add path, or paths where one encoder is made of several files.")
        elif encoder.path and encoder.paths:
            yield warning((*loc, "path"), "has no effect because paths is set.", "Remove one of the two.")


def _family_takes_adapter(t: Training) -> Iterator[Problem]:
    facts = FACTS[t.model.type]
    if t.adapter is None and not facts.full_finetune:
        yield error(("adapter",), f"{facts.title} cannot be fine-tuned as a whole.", "Add an [adapter] table.")
    if t.adapter is not None and t.adapter.type not in facts.adapters:
        yield error(
            ("adapter", "type"),
            f"{facts.title} does not take {t.adapter.type}.",
            f"Use one of: {', '.join(facts.adapters)}.",
        )


def _adapters_are_fused(t: Training) -> Iterator[Problem]:
    facts = FACTS[t.model.type]
    if t.adapter is not None and t.adapter.fuse_adapters and not facts.fuses:
        merges = "merge_adapters" in type(t.model).model_fields
        yield warning(
            ("adapter", "fuse_adapters"),
            f"has no effect: it is not read for {facts.title}.",
            "Name the files in model.merge_adapters." if merges else "Remove it.",
        )


_WAN_HALVES = {
    "low": "Set max_t = 0.875 (image to video: 0.9), unless the low-noise network is to draw on its own.",
    "high": "Set min_t = 0.875 (image to video: 0.9).",
    "": "Set min_t = 0.875 (image to video: 0.9) for the high-noise network, or max_t for the low-noise one.",
}
"""What to do for a half of Wan 2.2 A14B, by a word in the name of its file."""


def _timesteps_make_sense(t: Training) -> Iterator[Problem]:
    if t.model.type == "wan":
        if t.model.min_t >= t.model.max_t:
            yield error(
                ("model", "min_t"), f"{t.model.min_t} is not below max_t = {t.model.max_t}.", "Swap or mend the two."
            )
        network = (t.model.transformer_path or "").lower()
        if "a14b" in t.model.ckpt_path.lower() + network and (t.model.min_t, t.model.max_t) == (0.0, 1.0):
            half = next((half for half in _WAN_HALVES if half in network), "")
            yield warning(
                ("model", "ckpt_path"),
                "seems to be Wan 2.2 A14B, which has one network for noisy and one for clean timesteps.",
                _WAN_HALVES[half],
            )
    if t.model.type == "minimax_h3" and t.model.cfg > 1 and t.pipeline_stages > 1:
        yield error(
            ("model", "cfg"),
            f"above 1 does not go together with pipeline_stages = {t.pipeline_stages}.",
            "Set pipeline_stages = 1, or remove cfg.",
        )


def _text_encoder_options_apply(t: Training) -> Iterator[Problem]:
    if t.model.type not in ("cosmos_predict2", "anima"):
        return
    if t.model.t5_path and t.model.llm_path:
        yield warning(("model", "llm_path"), "has no effect because t5_path is set.", "Remove one of the two.")
    for key in ("text_encoder_nf4", "text_encoder_fp8"):
        if getattr(t.model, key) and not t.model.t5_path:
            yield warning(("model", key), "has no effect without t5_path.", f"Remove {key}.")
    if t.model.text_encoder_fp8 and t.model.text_encoder_nf4:
        yield warning(
            ("model", "text_encoder_fp8"), "has no effect because text_encoder_nf4 is set.", "Remove one of the two."
        )


def _loss_applies(t: Training) -> Iterator[Problem]:
    facts = FACTS[t.model.type]
    for key in ("huber_delta", "smooth_l1_beta"):
        if getattr(t, key) is None:
            continue
        if not facts.robust_loss:
            yield warning((key,), f"has no effect: {facts.title} has a loss of its own.", f"Remove {key}.")
        if t.loss is not None and t.loss.type != "mse":
            yield warning(("loss", "type"), f"has no effect because {key} is set.", "Remove one of the two.")


def _storage_key(t: Training) -> str:
    """The key that gives the storage format of the network, or `dtype` where that says it."""
    for key in ("transformer_dtype", "diffusion_model_dtype"):
        if getattr(t.model, key, None) is not None:
            return key
    return "dtype"


def _storage_fits_computation(t: Training) -> Iterator[Problem]:
    key = _storage_key(t)
    storage = getattr(t.model, key)
    if t.model.dtype == "float32" and storage != "float32" and storage not in FLOAT8:
        yield error(
            ("model", key),
            f"weights in '{storage}' do not go together with dtype = 'float32'.",
            f"Set dtype to the same, or remove {key}.",
        )


def _full_finetune_needs_precision(t: Training) -> Iterator[Problem]:
    key = _storage_key(t)
    storage = getattr(t.model, key)
    if t.adapter is None and storage == "float16":
        yield warning(
            ("model", key),
            "'float16' weights that are trained as a whole lose small steps, and overflow.",
            "Use 'bfloat16' or 'float32'.",
        )
    if t.adapter is None and storage in FLOAT8:
        yield error(
            ("model", key), f"'{storage}' weights cannot be trained as a whole.", "Use 'bfloat16' or 'float32'."
        )


def _export_keeps_numbers(t: Training) -> Iterator[Problem]:
    if t.adapter is not None and t.save_dtype in ("float8", "float8_e4m3fn"):
        yield warning(
            ("save_dtype",),
            f"'{t.save_dtype}' has nothing between 0 and 0.001, where many numbers of an adapter are.",
            "Use 'bfloat16'.",
        )


# --- keys that switch one another off --------------------------------------------------------------------------------


def _one_key_wins(t: Training) -> Iterator[Problem]:
    pairs = (
        ("huber_delta", "smooth_l1_beta"),
        ("save_every_n_examples", "save_every_n_steps"),
        ("eval_every_n_examples", "eval_every_n_steps"),
    )
    for winner, loser in pairs:
        if getattr(t, winner) and getattr(t, loser):
            yield warning((loser,), f"has no effect because {winner} is set.", "Remove one of the two.")
    if t.force_constant_lr is not None:
        for key, is_set in (("warmup_steps", t.warmup_steps > 0), ("lr_scheduler", t.lr_scheduler != "constant")):
            if is_set:
                yield warning((key,), "has no effect because force_constant_lr is set.", "Remove one of the two.")
    if getattr(t.model, "shift", None):
        for key in ("flux_shift", "lumina_shift"):
            if getattr(t.model, key, False):
                yield warning(("model", key), "has no effect because shift is set.", "Remove one of the two.")


def _old_keys(t: Training) -> Iterator[Problem]:
    if t.regenerate_cache:
        yield warning(
            ("regenerate_cache",),
            "has no effect, in diffusion-pipe neither: there it is an option of the command line.",
            "Remove it.",
        )
    if t.lora is not None:
        yield warning(
            ("lora",), "is the old name of the [adapter] table; nothing but its dtype is read.", "Write [adapter]."
        )


def _clips_are_there(t: Training) -> Iterator[Problem]:
    facts = FACTS[t.model.type]
    if not facts.video and t.video_clip_mode != "single_beginning":
        yield warning(
            ("video_clip_mode",), f"has no effect: {facts.title} is trained on pictures.", "Remove video_clip_mode."
        )


def _every_key_counts(t: Training) -> Iterator[Problem]:
    yield from without_effect(t)


TRAINING_RULES: tuple[Callable[[Training], Iterator[Problem]], ...] = (
    _saves_something,
    _checkpoints_once,
    _partition_matches_stages,
    _blocks_can_be_swapped,
    _gradient_release_works,
    _generic_optimizer_fits,
    _model_is_complete,
    _text_encoders_have_files,
    _family_takes_adapter,
    _adapters_are_fused,
    _timesteps_make_sense,
    _text_encoder_options_apply,
    _loss_applies,
    _evaluation_has_data,
    _one_key_wins,
    _old_keys,
    _clips_are_there,
    _storage_fits_computation,
    _full_finetune_needs_precision,
    _export_keeps_numbers,
    _every_key_counts,
    _sampling_happens,
    _monitoring_is_complete,
)


def check_training(training: Training) -> list[Problem]:
    """All rules of the training file."""
    return [problem for rule in TRAINING_RULES for problem in rule(training)]
