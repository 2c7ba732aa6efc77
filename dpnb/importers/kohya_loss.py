"""What a kohya training file says of timesteps, noise and loss."""

from __future__ import annotations

from dpnb.importers.draft import Draft
from dpnb.importers.families import takes
from dpnb.importers.source import Node

_SAMPLING: dict[str, tuple[str, str]] = {
    "sigma": ("uniform", ""),
    "uniform": ("uniform", ""),
    "sigmoid": ("logit_normal", ""),
    "logsnr": ("logit_normal", "logsnr is not there."),
    "shift": ("logit_normal", ""),
    "flux_shift": ("logit_normal", ""),
    "qwen_shift": ("logit_normal", "With flux_shift, which depends on the resolution in nearly the same way."),
    "krea2_shift": ("logit_normal", "With flux_shift, which depends on the resolution in nearly the same way."),
}
_FLOW_WEIGHTS = ("none", "sigma_sqrt", "cosmap")


def put_loss(draft: Draft, node: Node, family: str) -> None:
    """Timesteps, the kind of loss, its weights and what is added to the noise."""
    _put_timesteps(draft, node, family)
    _put_kind(draft, node)
    for key, target in (("min_snr_gamma", "min_snr_gamma"), ("v_parameterization", "v_pred")):
        value = node.number(key) if key == "min_snr_gamma" else node.flag(key)
        if value and takes(family, target):
            draft.put(node, key, f"model.{target}", value)
        elif value:
            draft.drop(node, key, "it means nothing for a model that learns a flow.")
    if node.flag("debiased_estimation_loss") and takes(family, "debiased_estimation_loss"):
        draft.put(node, "debiased_estimation_loss", "model.debiased_estimation_loss", True)
    if node.flag("zero_terminal_snr") and draft.get("model.v_pred"):
        draft.put(node, "zero_terminal_snr", "model.v_pred", True)
    if (offset := node.number("noise_offset")) and takes(family, "min_snr_gamma"):
        draft.put(node, "noise_offset", "loss.noise_offset", offset)
    elif offset:
        draft.drop(node, "noise_offset", "kohya's scripts do not use it for a model that learns a flow.")
    scheme = node.text("weighting_scheme")
    if scheme in _FLOW_WEIGHTS and scheme != "none":
        draft.put(node, "weighting_scheme", "loss.weighting", scheme)
    elif scheme == "logit_normal" and node.text("timestep_sampling") in (None, "sigma"):
        draft.put(node, "weighting_scheme", "model.timestep_sample_method", "logit_normal")
    elif scheme not in (None, "none"):
        draft.drop(node, "weighting_scheme", f"'{scheme}' is not there: none, sigma_sqrt or cosmap.")
    if (guidance := node.number("guidance_scale")) is not None and takes(family, "guidance"):
        draft.put(node, "guidance_scale", "model.guidance", float(guidance))


def _put_timesteps(draft: Draft, node: Node, family: str) -> None:
    if not takes(family, "timestep_sample_method"):
        return
    written = node.text("timestep_sampling")
    if written is None:
        draft.add("model.timestep_sample_method", "uniform", "kohya's default (sigma).")
    else:
        unknown = ("logit_normal", f"'{written}' is not there: logit_normal or uniform.")
        method, note = _SAMPLING.get(written, unknown)
        draft.put(node, "timestep_sampling", "model.timestep_sample_method", method, note)
        if written.endswith("_shift") and takes(family, "flux_shift"):
            draft.add("model.flux_shift", True, f"what timestep_sampling = {written} does.")
    shift = node.number("discrete_flow_shift")
    if shift is not None and written in (None, "sigma", "shift") and takes(family, "shift"):
        draft.put(node, "discrete_flow_shift", "model.shift", float(shift))
    elif shift is not None:
        draft.drop(node, "discrete_flow_shift", f"timestep_sampling = {written} does not use it.")
    if (scale := node.number("sigmoid_scale")) is not None:
        if draft.get("model.timestep_sample_method") == "logit_normal":
            draft.put(node, "sigmoid_scale", "model.sigmoid_scale", float(scale))
        else:
            draft.drop(node, "sigmoid_scale", "timesteps are drawn uniform.")
    if node.has("logit_std") and written != "logsnr" and node.text("weighting_scheme") != "logit_normal":
        draft.drop(node, "logit_std", f"timestep_sampling = {written or 'sigma'} does not use it.")
    for key, target in (("min_timestep", "min_t"), ("max_timestep", "max_t")):
        bound = node.number(key)
        if bound is not None and takes(family, target):
            draft.put(node, key, f"model.{target}", bound / 1000, "It counts from 0 to 1 here.")


def _put_kind(draft: Draft, node: Node) -> None:
    kind, threshold = node.text("loss_type"), node.number("huber_c")
    if kind in ("l1", "l2"):
        draft.put(node, "loss_type", "loss.type", "l1" if kind == "l1" else "mse")
    elif kind in ("huber", "smooth_l1"):
        target = "huber_delta" if kind == "huber" else "smooth_l1_beta"
        note = "kohya's is the smooth pseudo-Huber form, with the same threshold."
        draft.put(node, "loss_type", target, 0.1 if threshold is None else threshold, note)
        if threshold is not None:
            draft.put(node, "huber_c", target, threshold, note)
    elif kind is not None:
        draft.drop(node, "loss_type", f"'{kind}' is not there; the squared error is used.")
    if threshold is not None and kind not in ("huber", "smooth_l1"):
        draft.drop(node, "huber_c", "the loss is the squared error (loss_type).")
