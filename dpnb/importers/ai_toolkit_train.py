"""What an AI Toolkit job says of training, saving and sampling."""

from __future__ import annotations

import math
from typing import Any

from dpnb.importers import settings
from dpnb.importers.draft import Draft
from dpnb.importers.families import takes
from dpnb.importers.source import Node

_DEFAULT = "AI Toolkit's default."
_NOT_READ = "AI Toolkit itself takes no notice of this name and trains with"
_STEPS = "AI Toolkit counts micro-batches where gradient_accumulation_steps is set."


def put_train(draft: Draft, node: Node, family: str) -> int:
    """The keys of `train`; gives how many of AI Toolkit's steps make one of ours."""
    micro_steps = _put_lengths(draft, node)
    if node.has("optimizer"):
        settings.put_optimizer(draft, node, "optimizer")
    else:
        draft.add("optimizer.type", "adamw", _DEFAULT)
    key = _either(node, "lr", "learning_rate")
    if (lr := node.number(key)) is not None:
        draft.put(node, key, "optimizer.lr", lr, "" if key == "lr" else f"{_NOT_READ} 1e-6.")
    else:
        draft.add("optimizer.lr", 1e-6, _DEFAULT)
    for table in ("optimizer_params", "optimizer_args"):
        parameters = node.table(table)
        for key, value in parameters.data.items():
            settings.put_optimizer_key(draft, parameters, key, key, value)
    _put_schedule(draft, node)
    checkpointing = node.flag("gradient_checkpointing")
    if checkpointing is None:
        draft.add("activation_checkpointing", True, _DEFAULT)
    else:
        draft.put(node, "gradient_checkpointing", "activation_checkpointing", checkpointing)
    if (longest := node.number("max_grad_norm")) is not None:
        draft.put(node, "max_grad_norm", "gradient_clipping", longest)
    if share := node.number("prompt_dropout_prob"):
        draft.put(node, "prompt_dropout_prob", "uncond_fraction", share)
    _put_text_encoders(draft, node, family)
    _put_timesteps(draft, node, family)
    _put_loss(draft, node, family)
    ema = node.table("ema_config")
    if ema.flag("use_ema"):
        draft.put(ema, "ema_decay", "ema.decay", ema.number("ema_decay") or 0.999)
        draft.add("ema.schedule", "constant", "AI Toolkit's average has no warm-up.")
    elif ema.has("ema_decay"):
        draft.drop(ema, "ema_decay", "the average is off (use_ema).")
    draft.rest(ema)
    return micro_steps


def _either(node: Node, key: str, other: str) -> str:
    """The key of AI Toolkit, or the name that people and EriDiffusion have for it where that one alone is set."""
    return other if node.has(other) and not node.has(key) else key


def _put_lengths(draft: Draft, node: Node) -> int:
    """Batch size, accumulation, steps, and epochs that do not end the run before its steps."""
    if (batch := node.whole("batch_size")) is not None:
        draft.put(node, "batch_size", "micro_batch_size_per_gpu", batch)
    micro_steps = 1
    accumulation, legacy = node.whole("gradient_accumulation"), node.whole("gradient_accumulation_steps")
    if accumulation is not None and accumulation > 1:
        draft.put(node, "gradient_accumulation", "gradient_accumulation_steps", accumulation)
    if legacy is not None and legacy > 1:
        draft.put(node, "gradient_accumulation_steps", "gradient_accumulation_steps", legacy)
        micro_steps = legacy
    elif legacy is not None and legacy < 0:
        draft.drop(node, "gradient_accumulation_steps", "the length of an epoch is not known: give a number.")
    key = _either(node, "steps", "max_train_steps")
    steps = node.whole(key)
    count = math.ceil((1000 if steps is None else steps) / micro_steps)
    if steps is None:
        draft.add("max_steps", count, _DEFAULT)
    else:
        draft.put(node, key, "max_steps", count, _STEPS if micro_steps > 1 else "")
    draft.add("epochs", max(1, count), "AI Toolkit counts steps: the run ends after max_steps, before so many epochs.")
    return micro_steps


def _put_schedule(draft: Draft, node: Node) -> None:
    parameters = node.table("lr_scheduler_params")
    if node.has("lr_scheduler"):
        if node.text("lr_scheduler") == "linear":
            note = "AI Toolkit's linear is a rise from a third of lr at the beginning, without a fall at the end."
            draft.put(node, "lr_scheduler", "lr_scheduler", "constant", note)
        else:
            settings.put_schedule(draft, node, "lr_scheduler")
    warmed = next((key for key in ("num_warmup_steps", "warmup_steps") if parameters.has(key)), None)
    if warmed is not None:
        draft.put(parameters, warmed, "warmup_steps", parameters.whole(warmed))
    elif (warmup := node.whole("lr_warmup_steps")) is not None:
        draft.put(
            node, "lr_warmup_steps", "warmup_steps", warmup, "AI Toolkit itself reads it in lr_scheduler_params."
        )
    elif node.text("lr_scheduler") == "constant_with_warmup":
        draft.add("warmup_steps", 1000, _DEFAULT)
    for key in parameters.data:
        if parameters.has(key) and key not in parameters.taken:
            draft.drop(parameters, key, "a schedule is constant, linear or cosine here, without settings of its own.")
    draft.rest(parameters)


def _put_text_encoders(draft: Draft, node: Node, family: str) -> None:
    """AI Toolkit leaves text encoders frozen unless asked; ours trains those of SDXL unless told not to."""
    trained = node.flag("train_text_encoder") or False
    if takes(family, "text_encoder_1_lr"):
        if not trained:
            for key in ("model.text_encoder_1_lr", "model.text_encoder_2_lr"):
                draft.add(key, 0.0, "AI Toolkit leaves text encoders as they are.")
    elif takes(family, "text_encoder_lr") and trained:
        draft.put(node, "train_text_encoder", "model.text_encoder_lr", draft.get("optimizer.lr"))
    elif trained:
        draft.drop(node, "train_text_encoder", "only the text encoders of sdxl and sd15 can be trained.")
    if node.flag("train_unet") is False:
        draft.drop(node, "train_unet", "the network is always trained.")


def _put_timesteps(draft: Draft, node: Node, family: str) -> None:
    kinds: dict[str, tuple[str, str]] = {
        "sigmoid": ("logit_normal", ""),
        "linear": ("uniform", ""),
        "shift": ("uniform", "With flux_shift, which depends on the resolution in the same way."),
        "flux_shift": ("uniform", "With flux_shift, which depends on the resolution in the same way."),
        "lumina2_shift": ("uniform", "With lumina_shift, which depends on the resolution in the same way."),
        "weighted": ("uniform", "AI Toolkit weighs the loss by a table that was measured on another model."),
    }
    key = "linear_timesteps" if node.flag("linear_timesteps") else "timestep_type"
    kind = "linear" if key == "linear_timesteps" else node.text("timestep_type")
    if kind is not None and takes(family, "timestep_sample_method"):
        method, note = kinds.get(kind, ("logit_normal", f"'{kind}' is not there: logit_normal or uniform."))
        draft.put(node, key, "model.timestep_sample_method", method, note)
        shift = {"shift": "flux_shift", "flux_shift": "flux_shift", "lumina2_shift": "lumina_shift"}.get(kind)
        if shift and takes(family, shift):
            draft.add(f"model.{shift}", True, f"what timestep_type = {kind} does.")
    elif kind is not None:
        draft.drop(node, key, "the model family decides this.")
    if node.text("content_or_style") not in (None, "balanced"):
        why = (
            "more noise is content, less is style: model.shift above 1 trains more on content, below 1 more on style."
        )
        draft.drop(node, "content_or_style", why)
    for key, target, whole in (("min_denoising_steps", "min_t", 0), ("max_denoising_steps", "max_t", 999)):
        bound = node.number(key)
        if bound is not None and bound != whole and takes(family, target):
            draft.put(node, key, f"model.{target}", min(1.0, bound / 1000), "It counts from 0 to 1 here.")
    if (guidance := node.number("cfg_scale")) is not None and takes(family, "guidance"):
        draft.put(node, "cfg_scale", "model.guidance", float(guidance))
    bypass = node.flag("bypass_guidance_embedding")
    if bypass is not None and takes(family, "bypass_guidance_embedding"):
        draft.put(node, "bypass_guidance_embedding", "model.bypass_guidance_embedding", bypass)


def _put_loss(draft: Draft, node: Node, family: str) -> None:
    loss = node.text("loss_type")
    if loss in ("mae", "l1"):
        draft.put(node, "loss_type", "loss.type", "l1")
    elif loss in ("mse", "l2"):
        draft.put(node, "loss_type", "loss.type", "mse")
    elif loss is not None:
        draft.drop(node, "loss_type", f"'{loss}' is not there; the squared error is used.")
    settings.put_weighting(draft, node, family)


# --- saving and sampling ---------------------------------------------------------------------------------------------


def put_save(draft: Draft, node: Node, micro_steps: int) -> None:
    """The keys of `save`; AI Toolkit saves every 1000 steps in float16 unless told otherwise, and keeps 5."""
    every = node.whole("save_every")
    count = max(1, math.ceil((1000 if every is None else every) / micro_steps))
    if every is None:
        draft.add("save_every_n_steps", count, _DEFAULT)
    elif every < 1:
        draft.put(node, "save_every", "save_every_n_steps", draft.get("max_steps"), "It saves at the end alone.")
    else:
        draft.put(node, "save_every", "save_every_n_steps", count, _STEPS if micro_steps > 1 else "")
    if node.has("dtype"):
        settings.put_dtype(draft, node, "dtype", "save_dtype")
    else:
        draft.add("save_dtype", "float16", _DEFAULT)
    keep = node.whole("max_step_saves_to_keep")
    if keep is None:
        draft.add("keep_last_n_saves", 5, _DEFAULT)
    else:
        draft.put(node, "max_step_saves_to_keep", "keep_last_n_saves", max(1, keep))
    repository = node.text("hf_repo_id")
    if node.flag("push_to_hub") and repository:
        draft.put(node, "hf_repo_id", "push_to_hub", repository)
    elif repository:
        draft.drop(node, "hf_repo_id", "push_to_hub is off.")
    elif node.flag("push_to_hub"):
        draft.drop(node, "push_to_hub", "the repository is not named (hf_repo_id): write push_to_hub = 'owner/name'.")


def put_sample(draft: Draft, node: Node, train: Node, family: str, micro_steps: int) -> None:
    """The keys of `sample`; without prompts, or with sampling disabled, there is no [sample]."""
    prompts = _prompts(draft, node, family)
    disabled = train.flag("disable_sampling")
    train.taken |= {"skip_first_sample", "force_first_sample"}
    if disabled:
        draft.drop(train, "disable_sampling", "there is no [sample]: nothing is drawn.")
    if disabled or not prompts:
        for key, value in node.data.items():
            if value is not None and key not in ("prompts", "samples"):
                draft.drop(node, key, "no samples are drawn.")
        return
    draft.put(node, "prompts" if node.has("prompts") else "samples", "sample.prompts", settings.short(prompts))
    _put_when(draft, node, train, micro_steps)
    for key in ("width", "height"):
        px = node.whole(key)
        rounded, note = settings.side(family, 512 if px is None else px)
        _or_default(draft, node, key, key, rounded, px, note)
    guidance, count = node.number("guidance_scale"), node.whole("sample_steps")
    _or_default(draft, node, "guidance_scale", "guidance", 7.0 if guidance is None else float(guidance), guidance)
    _or_default(draft, node, "sample_steps", "steps", 20 if count is None else count, count)
    seed, walk = node.whole("seed"), node.flag("walk_seed")
    _or_default(draft, node, "seed", "seed", seed or 0, seed)
    _or_default(draft, node, "walk_seed", "walk_seed", bool(walk), walk)
    negative = node.any("neg")
    if isinstance(negative, str) and negative:
        draft.put(node, "neg", "sample.negative", negative)
    for key in ("num_frames", "fps"):
        if (node.number(key) or 1) > 1:
            draft.drop(node, key, "samples are pictures.")


def _put_when(draft: Draft, node: Node, train: Node, micro_steps: int) -> None:
    """At which steps samples are drawn; 0 is none on the way."""
    first = train.flag("skip_first_sample")
    if train.flag("force_first_sample"):
        draft.drop(train, "force_first_sample", "a run that goes on draws none before its first step.")
    every = node.whole("sample_every")
    steps = max(1, math.ceil((100 if every is None else every) / micro_steps))
    if every is not None and every < 1:
        draft.drop(node, "sample_every", "0 draws none on the way, as does leaving it out.")
    else:
        _or_default(draft, node, "sample_every", "every_n_steps", steps, every)
    if (start := node.whole("sample_start_step")) is not None and start > 0:
        draft.drop(node, "sample_start_step", "samples are drawn from the beginning.")
    if first is not None:
        draft.put(train, "skip_first_sample", "sample.before_first_step", not first)


def _or_default(
    draft: Draft,
    node: Node,
    key: str,
    target: str,
    value: Any,  # noqa: ANN401 - whatever TOML can hold
    written: object,
    note: str = "",
) -> None:
    if written is None:
        draft.add(f"sample.{target}", value, _DEFAULT)
    else:
        draft.put(node, key, f"sample.{target}", value, note)


def _prompts(draft: Draft, node: Node, family: str) -> list[dict[str, Any]]:
    """Prompts as texts with flags, or as tables; what a table says that a prompt here cannot is dropped."""
    prompts: list[dict[str, Any]] = []
    for key in ("prompts", "samples"):
        items = node.any(key) or []
        if not isinstance(items, list):
            node.source.fail(node.at(key), "is not a list.", "Write a list of prompts.")
        for position, item in enumerate(items):
            if isinstance(item, str):
                prompt, left = settings.prompt_of_text(item, family)
                for flag in left:
                    words = f"{flag} in prompt {position + 1} means nothing here"
                    draft.note(node, key, f"{words}.")
                prompts.append(prompt)
            elif isinstance(item, dict):
                prompts.append(_prompt(draft, Node(node.source, item, (*node.at(key), position)), family))
            else:
                node.source.fail((*node.at(key), position), "is no prompt.", "Write a text, or a table with a prompt.")
    return prompts


def _prompt(draft: Draft, node: Node, family: str) -> dict[str, Any]:
    prompt: dict[str, Any] = {"text": node.text("prompt") or ""}
    for key, target in (("width", "width"), ("height", "height"), ("seed", "seed"), ("sample_steps", "steps")):
        value = node.whole(key)
        if value is not None:
            prompt[target] = settings.side(family, value)[0] if key in ("width", "height") else value
    if (guidance := node.number("guidance_scale")) is not None:
        prompt["guidance"] = float(guidance)
    negative = node.any("neg")
    if isinstance(negative, str) and negative:
        prompt["negative"] = negative
    draft.told_with(node, *(key for key in node.taken if key != "neg" or "negative" in prompt))
    draft.rest(node)
    return prompt
