"""Keys that people write in files for diffusion-pipe and that it does not read: slips, old ones, and those of forks.

dpnb/schema/foreign.py says how they are looked up: our dotted key ("" for none) and what is different.
"""

from __future__ import annotations

_NO_WORKERS = "Examples come out of the cache, without worker processes; leave it out."
_NOT_READ = "Nothing reads it."
_COMMAND_LINE = "It is an option of diffusion-pipe's command line, not a key: leave it out."
_CHOSEN_MODULES = "adapter.target_modules chooses what gets an adapter."
_RUN_FOLDER = "Exports lie in the folder of the run, which is named by its start time."
_LOCAL = "Pictures are read from folders and .tar files of this machine: download them, and name their folder as path."
_OWN_SIZES = "Sizes are read from the pictures themselves; leave it out."

TRAINING: dict[str, tuple[str, str]] = {
    "pseudo_huber_c": (
        "huber_delta",
        f"{_NOT_READ} huber_delta and smooth_l1_beta serve the same purpose with another number: choose it anew.",
    ),
    "image_eval_micro_batch_size_per_gpu": ("eval_image_micro_batch_size_per_gpu", _NOT_READ),
    "only_double_blocks": ("adapter.target_modules", f"{_NOT_READ} {_CHOSEN_MODULES}"),
    "adapter.preset": ("adapter.target_modules", f"{_NOT_READ} {_CHOSEN_MODULES}"),
    "adapter.factor": ("adapter.decompose_factor", _NOT_READ),
    "adapter.full_matrix": ("adapter.rank", f"{_NOT_READ} A high adapter.rank, such as 1e6, asks for full matrices."),
    "adapter.weight_decompose": ("adapter.type", f"{_NOT_READ} For DoRA, write adapter.type = 'dora'."),
    "train_llm_adapter": ("model.llm_adapter_lr", f"{_NOT_READ} model.llm_adapter_lr = 0 freezes that network."),
    "qwen_path": ("model.llm_path", _NOT_READ),
    "chpt_path": ("model.ckpt_path", _NOT_READ),
    "number_of_gpus": ("", f"{_NOT_READ} The launcher takes it: `dpnb launch --num-gpus N`."),
    "num_gpus": ("", f"{_NOT_READ} The launcher takes it: `dpnb launch --num-gpus N`."),
    "max_checkpoints": ("keep_last_n_checkpoints", f"{_NOT_READ} keep_last_n_saves does the same for exports."),
    "optimizer.percentile_clipping": ("", "bitsandbytes has dropped it; gradient_clipping is at the top of the file."),
    "optimizer.block_wise": ("", "bitsandbytes has dropped it: it always works block by block; leave it out."),
    "huggingface_repo": ("push_to_hub", ""),
    "upload_hf_from_epoch": ("push_to_hub", f"{_NOT_READ} push_to_hub uploads every export."),
    "num_steps": ("max_steps", _NOT_READ),
    "timestep_start": ("model.min_t", f"{_NOT_READ} For Wan it is model.min_t."),
    "timestep_end": ("model.max_t", f"{_NOT_READ} For Wan it is model.max_t."),
    "scheduler": (
        "lr_scheduler",
        f"{_NOT_READ} lr_scheduler is one word at the top, and warmup_steps stands there too.",
    ),
    "cache_only": ("", _COMMAND_LINE),
    "trust_cache": ("", _COMMAND_LINE),
    "i_know_what_i_am_doing": ("", _COMMAND_LINE),
    "reset_dataloader": ("", _COMMAND_LINE),
    "reset_optimizer": ("", _COMMAND_LINE),
    "reset_optimizer_params": ("", _COMMAND_LINE),
    "dump_dataset": ("", _COMMAND_LINE),
    "test_sample": ("", _COMMAND_LINE),
    "master_port": ("", _COMMAND_LINE),
    "local_rank": ("", _COMMAND_LINE),
    "train_name": ("", f"{_NOT_READ} {_RUN_FOLDER}"),
    "num_dataloader_workers": ("", _NO_WORKERS),
    "dataloader_workers": ("", _NO_WORKERS),
    "prefetch_batches_per_worker": ("", _NO_WORKERS),
    "num_inference_steps": ("sample.steps", _NOT_READ),
    "ema.enable": ("ema", "The [ema] table turns it on; leave the key out."),
    "ema.update_every": ("ema.every_n_steps", _NOT_READ),
    "training": ("", "The keys of [training] stand at the top of the file."),
    "ds_config": ("", "DeepSpeed is set up from the keys at the top of the file; leave the table out."),
    "lr_scheduler.type": ("lr_scheduler", "It is one word, not a table: lr_scheduler = 'cosine'."),
    "lr_scheduler.warmup_steps": ("warmup_steps", "lr_scheduler is one word; warmup_steps stands at the top."),
}

DATASET: dict[str, tuple[str, str]] = {
    "tag_dropout_rate": ("tag_dropout", ""),
    "tag_dropout_percent": ("tag_dropout", "tag_dropout is that share, from 0 to 1."),
    "caption_dropout_percent": ("caption_dropout", "caption_dropout is that share, from 0 to 1."),
    "multiline_captions": ("", "A .txt file is one caption; captions.json may hold several for a picture."),
    "control_paths": (
        "directory.control_path",
        f"{_NOT_READ} directory.control_path takes a list of folders too (dpnb's own trainer alone).",
    ),
    "directory.dataset": ("", _LOCAL),
    "directory.config": ("", _LOCAL),
    "directory.split": ("", _LOCAL),
    "width_column": ("", _OWN_SIZES),
    "height_column": ("", _OWN_SIZES),
    "video_clip_length": ("frame_buckets", _NOT_READ),
    "max_workers": ("map_num_proc", f"{_NOT_READ} It is in the training file: map_num_proc."),
    "cache_batch_size": ("caching_batch_size", f"{_NOT_READ} It is in the training file: caching_batch_size."),
}
