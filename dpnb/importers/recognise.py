"""Which trainer a file belongs to, by what it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dpnb.errors import ConfigError, Problem
from dpnb.importers.ai_toolkit import import_job
from dpnb.importers.kohya import flattened, import_kohya
from dpnb.importers.report import Imported
from dpnb.importers.source import YAML_ENDINGS, Source, read_source
from dpnb.importers.transformer_lab import import_parameters, parameters_in, unfolded
from dpnb.schema.foreign import KOHYA, MUSUBI, rows
from dpnb.schema.model import FAMILIES

_BEGIN = "Begin with `dpnb new`."
# Keys that only the files of programs have that are not imported: the program, and what to do instead.
_OTHERS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("LoRA_type", "max_resolution", "num_cpu_threads_per_process"),
        "kohya's GUI",
        "Import the .toml that the GUI writes into the output folder when a training starts.",
    ),
    (("_source_script", "dit_path"), "a GUI for musubi-tuner", _BEGIN),
    (("data_backend_config", "model_family", "base_model_precision"), "SimpleTuner", _BEGIN),
    (("model_kind", "bf16_params"), "EriDiffusion's templates", _BEGIN),
    (
        ("training_method", "concept_file_name"),
        "OneTrainer",
        "Begin with `dpnb new`: `dpnb validate` says what a key of OneTrainer is called here.",
    ),
)
_ERI_TABLES = {"model", "training", "dataset"}
_OURS = ("adapter", "optimizer", "output_dir", "micro_batch_size_per_gpu", "epochs")
_FEWEST = 2  # keys of a trainer that a file must have to be taken for one of its files
_KNOWN = (
    "It has no `config.process` (AI Toolkit), no `datasets` or `network_module` (kohya) and no `lora_r` or "
    "`num_train_epochs` (Transformer Lab)."
)


def import_files(
    paths: Sequence[Path], *, name: str | None, model: str | None, environment: Mapping[str, str]
) -> Imported:
    """Import one file, or kohya's training and dataset file."""
    if model is not None and model not in FAMILIES:
        problem = Problem(
            "error", "value", (), f"--model {model} is no family.", f"Use one of: {', '.join(FAMILIES)}."
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
    _refuse_others(source)
    if parameters_in(unfolded(source).root) is not None:
        return "Transformer Lab parameters"
    model = root.get("model")
    if "directory" in root or (isinstance(model, dict) and _is_ours(root, model)):
        source.fail((), "is in the format of dpnb and diffusion-pipe already.", "Check it with `dpnb validate`.")
    if isinstance(root.get("datasets"), list) or (isinstance(root.get("general"), dict) and len(root) == 1):
        return "kohya dataset"
    keys = set() if source.path.suffix.lower() in YAML_ENDINGS else set(flattened(root))
    keys &= rows(KOHYA, "training").keys() | rows(MUSUBI, "training").keys()
    if len(keys) >= _FEWEST:
        return "kohya training"
    return source.fail((), "is not recognised as the file of another trainer.", _KNOWN)


def _refuse_others(source: Source) -> None:
    """Raise `ConfigError` for a file of a program whose files are not imported."""
    for keys, program, hint in _OTHERS:
        if (key := next((key for key in keys if key in source.root), None)) is not None:
            source.fail((key,), f"is a key of {program}, whose files are not imported.", hint)
    yaml = source.path.suffix.lower() in YAML_ENDINGS
    if (
        yaml
        and source.root.keys() >= _ERI_TABLES
        and all(isinstance(source.root[table], dict) for table in _ERI_TABLES)
    ):
        message = "is a table of EriDiffusion's trainers of one model, whose files are not imported."
        source.fail(("training",), message, "Its files with `config.process` are; or begin with `dpnb new`.")


def _is_ours(root: Mapping[str, object], model: Mapping[str, object]) -> bool:
    return "type" in model and (model["type"] in FAMILIES or any(key in root for key in _OURS))
