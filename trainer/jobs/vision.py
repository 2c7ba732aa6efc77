"""A vision-language model out of a local folder: a picture and a prompt -> a caption.

Any folder that transformers' AutoModelForImageTextToText and AutoProcessor load: LLaVA, Qwen-VL, SmolVLM, BLIP, ...
Nothing is fetched, no code of the folder is run, and weights are read from safetensors alone: a pickle can run code.
Legend: B batch, L tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from dpnb.errors import DatasetError
from dpnb.runs.rundir import read_json


class VisionModel:
    """A model that has been loaded. Greedy: the same picture and prompt give the same caption."""

    def __init__(self, model: Any, processor: Any) -> None:  # noqa: ANN401 - any of some dozens of classes
        self._model, self._processor = model, processor

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> VisionModel:
        """Load a folder; `device`: "auto", "cpu" or "cuda". Raises `DatasetError` when it is not such a model."""
        check_folder(folder)
        device = _device(device)
        from transformers import AutoModelForImageTextToText
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()

        # bfloat16 where the hardware computes in it; a CPU mostly does not, and is slower then.
        dtype = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor = _processor_class(folder).from_pretrained(str(folder), backend="pil", **local)
            model = AutoModelForImageTextToText.from_pretrained(
                str(folder), dtype=dtype, use_safetensors=True, **local
            )
        except Exception as error:  # the folder is a stranger's: whatever a class stumbles over is a reason
            reason = " ".join(str(error).split())[:400] or type(error).__name__
            raise DatasetError(f"the model in '{folder}' cannot be loaded: {reason}") from error
        if not hasattr(processor, "image_processor"):
            raise DatasetError(f"the model in '{folder}' has no image processor: it sees no pictures")
        return cls(model.to(device).eval(), processor)

    @torch.inference_mode()
    def describe(self, picture: Image, prompt: str, max_new_tokens: int) -> str:
        """One caption, on one line. `picture`: RGB."""
        inputs = self._inputs(picture, prompt).to(self._model.device, self._model.dtype)
        made = self._model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        asked = inputs.get("input_ids")
        return tidy(self._processor.batch_decode(_answer(made, asked), skip_special_tokens=True)[0])

    def _inputs(self, picture: Image, prompt: str) -> Any:  # noqa: ANN401 - a BatchFeature
        """What goes into the model, by its own template of a chat where it has one."""
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            chat = [{"role": "user", "content": content}]
            text = self._processor.apply_chat_template(chat, add_generation_prompt=True)
        else:
            mark = getattr(self._processor, "image_token", None)
            text = f"{mark}\n{prompt}" if isinstance(mark, str) and mark not in prompt else prompt
        return self._processor(images=picture, text=text, return_tensors="pt")


def _processor_class(folder: Path) -> Any:  # noqa: ANN401 - a class of transformers
    """AutoProcessor, or the model's own class without its part for films, which needs torchvision.

    Qwen-VL, SmolVLM and others load that part also where only pictures are asked about, and fail without torchvision.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
    from transformers.utils import is_torchvision_available

    name = PROCESSOR_MAPPING_NAMES.get(_config(folder)["model_type"])
    own = getattr(transformers, name, None) if isinstance(name, str) and not is_torchvision_available() else None
    if own is None or "video_processor" not in own.get_attributes():
        return transformers.AutoProcessor
    parts = [part for part in own.get_attributes() if part != "video_processor"]
    return type(name, (own,), {"get_attributes": classmethod(lambda cls: parts)})


def _answer(made_BL: Tensor, asked_BL: Tensor | None) -> Tensor:
    """The tokens behind the question. Most models repeat it, BLIP without its last token; some answer alone."""
    length = 0 if asked_BL is None else asked_BL.shape[1]
    for repeated in (length, length - 1):
        if asked_BL is None or not 0 < repeated <= made_BL.shape[1]:
            continue
        if torch.equal(made_BL[:, :repeated], asked_BL[:, :repeated]):
            return made_BL[:, repeated:]
    return made_BL


def check_folder(folder: Path) -> None:
    """Raises `DatasetError` when a folder cannot be a model; looks at names alone."""
    if not folder.is_dir():
        raise DatasetError(
            f"there is no folder '{folder}': name one with a vision-language model (config.json, weights)"
        )
    _config(folder)
    if not list(folder.glob("*.safetensors")):
        raise DatasetError(
            f"'{folder}' has no weights in safetensors: others can run code when read, and are not; convert"
        )


def _config(folder: Path) -> dict[str, Any]:
    """config.json. Raises `DatasetError` when it is none of transformers' models."""
    file = folder / "config.json"
    if not file.is_file():
        raise DatasetError(f"'{folder}' has no config.json: name the folder of a vision-language model")
    config = read_json(file)
    if config is None:
        raise DatasetError(f"'{file}' cannot be read as JSON: copy the model anew")
    if not isinstance(config.get("model_type"), str):
        raise DatasetError(f"'{file}' names no model_type: it is not one of transformers' models")
    return config


def _device(wanted: str) -> str:
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise DatasetError("device = 'cuda', and there is no GPU that PyTorch can use: choose auto or cpu")
    return ("cuda" if there else "cpu") if wanted == "auto" else wanted


def tidy(text: str) -> str:
    """A caption on one line, without the quotes and the "Caption:" that models put around it."""
    line = " ".join(text.split())
    for opening in ("caption:", "description:", "assistant:"):
        if line.lower().startswith(opening):
            line = line[len(opening) :].lstrip()
    if len(line) > 1 and line[0] == line[-1] == '"' and line.count('"') == 2:
        line = line[1:-1].strip()
    return line
