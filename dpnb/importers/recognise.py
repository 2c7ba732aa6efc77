"""Which trainer a file belongs to, by what it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dpnb.errors import ConfigError, Problem
from dpnb.importers.ai_toolkit import import_job
from dpnb.importers.families import SECTIONS
from dpnb.importers.kohya import flattened, import_kohya
from dpnb.importers.report import Imported
from dpnb.importers.source import Source, read_source
from dpnb.importers.transformer_lab import import_parameters, parameters_in
from dpnb.schema.foreign import KOHYA, MUSUBI, rows

_FEWEST = 2  # keys of a trainer that a file must have to be taken for one of its files
_KNOWN = (
    "It has no `config.process` (AI Toolkit), no `datasets` or `network_module` (kohya) and no `lora_r` or "
    "`num_train_epochs` (Transformer Lab)."
)


def import_files(
    paths: Sequence[Path], *, name: str | None, model: str | None, environment: Mapping[str, str]
) -> Imported:
    """Import one file, or kohya's training and dataset file."""
    if model is not None and model not in SECTIONS:
        problem = Problem(
            "error", "value", (), f"--model {model} is no family.", f"Use one of: {', '.join(SECTIONS)}."
        )
        raise ConfigError([problem])
    sources = [read_source(path, environment) for path in paths]
    found = [(source, _kind(source)) for source in sources]
    kohya = {kind: source for source, kind in found if kind in ("kohya training", "kohya dataset")}
    if len(kohya) == len(found):
        training, dataset = kohya.get("kohya training"), kohya.get("kohya dataset")
        return import_kohya(training, dataset, name=name, model=model, environment=environment)
    if len(found) > 1:
        words = " and ".join(f"{source.path} ({kind})" for source, kind in found)
        message = f"{words} do not belong together."
        hint = "Import one file at a time; only kohya's training and dataset file go together."
        raise ConfigError([Problem("error", "value", (), message, hint)])
    source, kind = found[0]
    importers: dict[str, Callable[..., Imported]] = {
        "AI Toolkit job": import_job,
        "Transformer Lab parameters": import_parameters,
    }
    return importers[kind](source, name=name, model=model)


def _kind(source: Source) -> str:
    """What a file is; raises `ConfigError` for one of ours and for one of nobody's."""
    root = source.root
    config = root.get("config")
    if isinstance(config, dict) and "process" in config:
        return "AI Toolkit job"
    if parameters_in(root) is not None:
        return "Transformer Lab parameters"
    if "directory" in root or (isinstance(root.get("model"), dict) and "type" in root["model"]):
        source.fail((), "is in the format of dpnb and diffusion-pipe already.", "Check it with `dpnb validate`.")
    if isinstance(root.get("datasets"), list) or (isinstance(root.get("general"), dict) and len(root) == 1):
        return "kohya dataset"
    keys = set(flattened(root)) & (rows(KOHYA, "training").keys() | rows(MUSUBI, "training").keys())
    if len(keys) >= _FEWEST:
        return "kohya training"
    if "training_method" in root:
        hint = "Begin with `dpnb new`: `dpnb validate` says what a key of OneTrainer is called here."
        return source.fail(("training_method",), "is a key of OneTrainer, whose files are not imported.", hint)
    return source.fail((), "is not recognised as the file of another trainer.", _KNOWN)
