"""Keys of other trainers that people write in a dataset file; dpnb/schema/foreign.py says how they are looked up.

Each table holds the keys of the trainers in its name: our dotted key ("" for none) and what is different.
"""

from __future__ import annotations

_ALWAYS_CACHED = "Latents and text embeddings are always cached on disk; leave it out."
_NO_WORKERS = "Examples come out of the cache, without worker processes; leave it out."
_TXT = "Captions stand in .txt files or in captions.json; rename files with another ending."
_SIZES = "Aspect ratios bound the buckets: min_ar, max_ar and num_ar_buckets."
_TAGS = "It is how many shuffled orders are cached, such as 10; 0 is off."
_SHARE = "It is a share of the pictures, such as 0.5; 0 is off."
_CONTROL_SIZE = "Control pictures are resized like the pictures themselves; leave it out."
_IMPORT = "`dpnb import` makes files of ours of the whole."

KOHYA_FOLDERS: dict[str, tuple[str, str]] = {
    "image_dir": ("directory.path", ""),
    "class_tokens": ("caption_prefix", "Pictures without a caption are left out here: write captions for them."),
    "is_reg": ("directory.loss_weight", "Give their folder a loss_weight, such as 1.0."),
    "conditioning_data_dir": ("directory.control_path", ""),
    "subsets": ("directory", "Each subset is a [[directory]]."),
    "shuffle_caption": ("cache_shuffle_num", _TAGS),
    "keep_tokens": ("keep_first_tags", ""),
    "keep_tokens_separator": ("keep_first_tags", "It is a number of tags here."),
    "secondary_separator": ("", "Tags that belong together cannot be marked; leave it out."),
    "caption_separator": ("cache_shuffle_delimiter", ""),
    "caption_suffix": ("caption_prefix", "Text can be put before captions, not after them."),
    "caption_dropout_rate": ("caption_dropout", ""),
    "caption_dropout_every_n_epochs": ("caption_dropout", "It is a share of the examples."),
    "caption_tag_dropout_rate": ("tag_dropout", ""),
    "token_warmup_min": ("", "All tags are there from the beginning; leave it out."),
    "token_warmup_step": ("", "All tags are there from the beginning; leave it out."),
    "enable_wildcard": ("", "Captions are read as they stand; captions.json may hold several for a picture."),
    "flip_aug": ("augmentation.flip", _SHARE),
    "color_aug": ("augmentation.hue", "brightness, contrast, saturation and hue are set one by one."),
    "face_crop_aug_range": ("crop", "A crop is in the middle or at random."),
    "random_crop": ("crop", "Write crop = 'random'."),
    "resize_interpolation": ("interpolation", ""),
    "min_bucket_reso": ("min_ar", _SIZES),
    "max_bucket_reso": ("max_ar", _SIZES),
    "bucket_reso_steps": ("", "The model family decides what sides are multiples of; leave it out."),
    "skip_image_resolution": ("", "Small pictures are enlarged; move those that are too small out of the folder."),
    "alpha_mask": ("directory.mask_path", "Masks are pictures of their own."),
    "cache_info": ("", "Sizes and captions are read anew, headers only; leave it out."),
    "validation_seed": ("eval_datasets", "It is in the training file: held-out pictures are chosen by hand."),
    "validation_split": (
        "eval_datasets",
        "It is in the training file: held-out pictures have a dataset file of their own.",
    ),
    "general": ("", f"The keys of [general] stand at the top of the file. {_IMPORT}"),
    "datasets": ("directory", f"Each folder is a [[directory]]. {_IMPORT}"),
}

KOHYA_AND_MUSUBI_FOLDERS: dict[str, tuple[str, str]] = {
    "general": ("", f"The keys of [general] stand at the top of the file. {_IMPORT}"),
    "datasets": ("directory", f"Each folder is a [[directory]]. {_IMPORT}"),
    "resolution": ("resolutions", "It is a list: resolutions = [1024]."),
    "batch_size": ("micro_batch_size_per_gpu", "It is in the training file."),
    "enable_bucket": ("enable_ar_bucket", ""),
    "bucket_no_upscale": ("", "Pictures are resized to their bucket, small ones too; leave it out."),
    "caption_extension": ("", _TXT),
}

MUSUBI_FOLDERS: dict[str, tuple[str, str]] = {
    "image_directory": ("directory.path", ""),
    "video_directory": ("directory.path", ""),
    "control_directory": ("directory.control_path", ""),
    "image_jsonl_file": ("directory.metadata_file", "Its columns are named by image_column and caption_column."),
    "video_jsonl_file": ("directory.metadata_file", "Its columns are named by image_column and caption_column."),
    "cache_directory": ("cache_dir", "It is in the training file, one for all folders."),
    "target_frames": ("frame_buckets", ""),
    "max_frames": ("frame_buckets", ""),
    "frame_extraction": ("video_clip_mode", "It is in the training file."),
    "frame_stride": ("video_clip_mode", "It is in the training file."),
    "frame_sample": ("video_clip_mode", "It is in the training file."),
    "source_fps": ("", "Clips are re-timed from their own frame rate to the model's; leave it out."),
    "fp_latent_window_size": ("", "FramePack is not trained here."),
    "no_resize_control": ("", _CONTROL_SIZE),
    "control_resolution": ("", _CONTROL_SIZE),
    "qwen_image_edit_no_resize_control": ("", _CONTROL_SIZE),
    "qwen_image_edit_control_resolution": ("", _CONTROL_SIZE),
    "flux_kontext_no_resize_control": ("", _CONTROL_SIZE),
    "mask_directory": ("directory.mask_path", ""),
    "multiple_target": ("", "A picture has one target; layers are not trained here."),
}

AI_TOOLKIT_FOLDERS: dict[str, tuple[str, str]] = {
    "folder_path": ("directory.path", ""),
    "caption_ext": ("", _TXT),
    "caption_dropout_rate": ("caption_dropout", ""),
    "shuffle_tokens": ("cache_shuffle_num", _TAGS),
    "cache_latents_to_disk": ("", _ALWAYS_CACHED),
    "resolution": ("resolutions", "It is a list: resolutions = [1024]."),
    "datasets": ("directory", f"Each folder is a [[directory]]. {_IMPORT}"),
}

AI_TOOLKIT_ONLY_FOLDERS: dict[str, tuple[str, str]] = {
    "dataset_path": ("directory.path", ""),
    "caption_type": ("", _TXT),
    "default_caption": (
        "skip_empty_caption",
        "Pictures without a caption are left out, or trained with an empty one.",
    ),
    "token_dropout_rate": ("tag_dropout", ""),
    "keep_tokens": ("keep_first_tags", ""),
    "random_triggers": ("trigger_word", "There is one trigger word."),
    "network_weight": ("directory.loss_weight", ""),
    "loss_multiplier": ("directory.loss_weight", ""),
    "is_reg": ("directory.loss_weight", "Give their folder a loss_weight, such as 1.0."),
    "buckets": ("enable_ar_bucket", ""),
    "bucket_tolerance": ("", "The model family decides what sides are multiples of; leave it out."),
    "square_crop": ("enable_ar_bucket", "Off crops every picture to a square."),
    "random_scale": ("", "Pictures are resized to their bucket; leave it out."),
    "flip_x": ("augmentation.flip", _SHARE),
    "flip_y": ("", "Pictures are mirrored left to right alone."),
    "augments": ("augmentation", ""),
    "augmentations": ("augmentation", ""),
    "control_path_1": ("directory.control_path", "It takes a list of folders too (dpnb's own trainer alone)."),
    "control_path_2": ("directory.control_path", "It takes a list of folders too (dpnb's own trainer alone)."),
    "control_path_3": ("directory.control_path", "It takes a list of folders too (dpnb's own trainer alone)."),
    "inpaint_path": ("directory.control_path", ""),
    "invert_mask": ("directory.mask_path", "White is trained in full, black not at all; invert the masks."),
    "mask_min_value": ("directory.mask_path", "Paint what should count a little in grey instead of black."),
    "cache_latents": ("", _ALWAYS_CACHED),
    "cache_text_embeddings": ("model.cache_text_embeddings", "It is in the training file."),
    "num_frames": ("frame_buckets", ""),
    "shrink_video_to_frames": ("video_clip_mode", "It is in the training file."),
    "fps": ("", "Clips are re-timed to the model's frame rate; leave it out."),
    "num_workers": ("", _NO_WORKERS),
    "do_i2v": ("model.ckpt_path", "It is in the training file: a checkpoint for image-to-video is trained as one."),
    "do_audio": ("", "Clips are trained without their sound; leave it out."),
    "controls": ("directory.control_path", "Control pictures are not made here: put them into a folder."),
    "clip_image_path": ("", "Adapters for pictures as prompts are not trained here."),
}

ONETRAINER_FOLDERS: dict[str, tuple[str, str]] = {
    "include_subdirectories": ("directory.path", "Each folder is a [[directory]] of its own."),
    "prompt_source": ("", _TXT),
    "balancing": ("num_repeats", ""),
    "enable_tag_shuffling": ("cache_shuffle_num", _TAGS),
    "keep_tags_count": ("keep_first_tags", ""),
    "tag_delimiter": ("cache_shuffle_delimiter", ""),
    "enable_random_flip": ("augmentation.flip", _SHARE),
    "enable_random_rotate": ("augmentation.rotation_degrees", ""),
    "enable_crop_jitter": ("crop", "Write crop = 'random'."),
}

TRANSFORMER_LAB_AND_DIFFUSERS_FOLDERS: dict[str, tuple[str, str]] = {
    "resolution": ("resolutions", "It is a list: resolutions = [1024]."),
    "center_crop": ("crop", "It is 'center' or 'random'."),
    "random_flip": ("augmentation.flip", _SHARE),
    "image_interpolation_mode": ("interpolation", ""),
}

TRANSFORMER_LAB_FOLDERS: dict[str, tuple[str, str]] = {
    "caption_dropout_rate": ("caption_dropout", ""),
    "color_jitter": ("augmentation", "brightness, contrast, saturation and hue are set one by one."),
    "color_jitter_brightness": ("augmentation.brightness", ""),
    "color_jitter_contrast": ("augmentation.contrast", ""),
    "color_jitter_saturation": ("augmentation.saturation", ""),
    "color_jitter_hue": ("augmentation.hue", ""),
    "random_rotation": ("augmentation.rotation_degrees", "An angle above 0 turns it on."),
    "rotation_degrees": ("augmentation.rotation_degrees", ""),
    "rotation_prob": ("augmentation.rotation_probability", ""),
}
