"""Each check of the preflight on what it is there to find, and silence on a configuration that is right."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import struct
from pathlib import Path

import pytest
from PIL import Image

from dpnb import presets, toml
from dpnb.dataset.batch import Batch
from dpnb.runs import gpus as machine
from dpnb.runs import preflight, session
from dpnb.runs.architecture import NAMES, family_of, wrong_text_encoder
from dpnb.runs.forecast import lines, measured
from dpnb.runs.gpus import Gpu
from dpnb.runs.preflight import check, existing_ancestor, forecast, gpus, train_requirements
from dpnb.runs.rundir import ProcessInfo, RunDir, Status
from dpnb.runs.safetensors import shapes
from dpnb.schema.dataset import Augmentation
from dpnb.schema.optimizer import AdamW8bit
from dpnb.toml import Document, RunConfig

TINY = Path(__file__).parents[2] / "trainer" / "tiny" / "flux"


@pytest.fixture
def config(tmp_path) -> RunConfig:
    """A configuration that passes: 8 pictures, batches of 4, two steps an epoch."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a zorbi")
    training, dataset = presets.tiny_lora(model_dir=TINY, pictures=pictures, output_dir=tmp_path / "runs")
    training.micro_batch_size_per_gpu = 4
    return RunConfig(
        Document(tmp_path / "run.toml", training, toml.dump(training)),
        Document(tmp_path / "dataset.toml", dataset, toml.dump(dataset)),
    )


@pytest.fixture(autouse=True)
def _no_gpus(monkeypatch):
    monkeypatch.setattr(preflight, "gpus", list)


def told(config: RunConfig, num_gpus: int = 1) -> str:
    return "\n".join(str(problem) for problem in check(config, num_gpus))


def tensor_file(path: Path, tensors: dict[str, list[int]]) -> None:
    """A safetensors file of nothing but its header."""
    header = json.dumps(
        {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}
    )
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())


@pytest.fixture
def model(config, tmp_path) -> Path:
    """A copy of the model that a test may break."""
    shutil.copytree(TINY, tmp_path / "model")
    config.training.value.model.diffusers_path = str(tmp_path / "model")
    return tmp_path / "model"


def test_nothing_to_say(config):
    assert told(config) == ""


def test_errors_come_first(config, model):
    (Path(config.dataset.value.directory[0].path) / "9.png").write_bytes(b"")
    shutil.rmtree(model / "vae")
    assert [problem.severity for problem in check(config, 1)] == ["error", "warning"]


# --- packages --------------------------------------------------------------------------------------------------------


def test_requirements_come_from_the_package_itself():
    assert train_requirements()["torch"] == "2.9"
    assert train_requirements()["safetensors"] == ""
    assert "pytest" not in train_requirements()


def test_missing_and_old_packages(config, monkeypatch):
    versions = {"torch": "2.8.1+cpu", "bitsandbytes": None, "deepspeed": None}
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in versions and versions[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    text = told(config)
    assert "error: the package 'deepspeed' is not installed. Install it: pip install 'dpnb[train]'" in text
    assert "error: the package 'torch' is 2.8.1+cpu; at least 2.9 is needed." in text
    assert "bitsandbytes" not in text
    config.training.value.optimizer = AdamW8bit()
    assert "'bitsandbytes' is not installed" in told(config)


def test_a_missing_trainer(config, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "the package 'trainer' is not installed." in told(config)


def test_without_metadata_nothing_is_asked(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert train_requirements() == {}


# --- GPUs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def devices(monkeypatch, tmp_path):
    """A machine with as many device files as asked for."""
    (tmp_path / "dev").mkdir()

    def path(text=""):
        return tmp_path / "dev" if text == "/dev" else tmp_path / "absent"

    def make(*names: str):
        for name in names:
            (tmp_path / "dev" / name).touch()
        monkeypatch.undo()
        monkeypatch.setattr(preflight, "Path", path)
        for variable in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR"):
            monkeypatch.delenv(variable, raising=False)

    return make


def test_gpus_are_counted_by_their_device_files(devices, monkeypatch):
    devices("nvidia3", "nvidia5", "nvidiactl", "nvidia-uvm")
    assert gpus() == [0, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,7")
    assert (gpus(), preflight.gpus_are_restricted()) == ([1], True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    assert (gpus(), preflight.gpus_are_restricted()) == ([0], False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert gpus() == []


def test_too_few_gpus(config, monkeypatch):
    monkeypatch.setattr(preflight, "gpus", lambda: [0])
    assert "error: 2 GPUs were asked for, 1 are here. Use 1 at most." in told(config, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "1 are here (CUDA_VISIBLE_DEVICES allows no more)." in told(config, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    assert "warning: CUDA_VISIBLE_DEVICES names GPUs by UUID, which DeepSpeed passes over. Use numbers." in told(
        config
    )


def test_a_gpu_that_another_program_uses(config, monkeypatch):
    monkeypatch.setattr(preflight, "gpus", lambda: [1])
    monkeypatch.setattr(machine, "query", lambda: [Gpu(0, "A", 1024, 0), Gpu(1, "NVIDIA B", 81920, 10240)])
    words = "warning: GPU 1 (NVIDIA B) has 10.0 of 80.0 GiB free: another program uses it. End that (nvidia-smi names"
    assert words in told(config)
    assert "GPU 0" not in told(config)
    monkeypatch.setattr(machine, "query", lambda: [Gpu(1, "NVIDIA B", 81920, 81000)])
    assert told(config) == ""


def test_gpus_and_stages(config):
    config.training.value.pipeline_stages = 2
    assert "error: pipeline_stages: 3 GPUs cannot be shared out to 2 stages each. Use 2 GPUs." in told(config, 3)
    assert "error: 0 GPUs were asked for." in told(config, 0)
    assert told(config, 2) == ""


def test_a_large_model_on_a_cpu(config, monkeypatch):
    monkeypatch.setattr(preflight, "_LARGE_ON_CPU_BYTES", 1000)
    assert "warning: model.diffusers_path: there is no GPU: a model of this size takes hours" in told(config)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_folders_that_cannot_be_written_to(config, monkeypatch):
    config.training.value.cache_dir = "/proc/cache"
    config.training.value.output_dir = "/proc/runs"
    text = told(config)
    assert "error: output_dir: '/proc/runs' cannot be written to: " in text
    assert "error: cache_dir: '/proc/cache' cannot be written to: " in text


def test_existing_ancestor(tmp_path):
    assert existing_ancestor(tmp_path / "a" / "b") == tmp_path
    assert existing_ancestor(tmp_path) == tmp_path
    (tmp_path / "file").touch()
    assert existing_ancestor(tmp_path / "file" / "b") == tmp_path


# --- the model -------------------------------------------------------------------------------------------------------


def test_no_model_index(config, tmp_path):
    config.training.value.model.diffusers_path = str(tmp_path)
    assert "has no readable model_index.json. Name a folder in diffusers format" in told(config)


def test_parts_that_are_missing(config, model):
    shutil.rmtree(model / "vae")
    shutil.rmtree(model / "tokenizer_2")
    assert f"error: model.diffusers_path: '{model}' lacks vae, tokenizer_2. Download the model again" in told(config)


def test_another_architecture(config, model):
    index = json.loads((model / "model_index.json").read_text())
    index["transformer"] = ["diffusers", "SD3Transformer2DModel"]
    (model / "model_index.json").write_text(json.dumps(index))
    assert "holds a SD3Transformer2DModel; FLUX.1 is a FluxTransformer2DModel." in told(config)


def test_no_weights(config, model):
    for file in (model / "transformer").glob("*.safetensors"):
        file.unlink()
    assert "transformer' holds no .safetensors file." in told(config)


def test_shapes(tmp_path):
    tensor_file(tmp_path / "a.safetensors", {"x": [2, 3], "y": [4]})
    assert shapes(tmp_path / "a.safetensors") == {"x": [2, 3], "y": [4]}
    for broken in (b"", b"\x01\0\0\0\0\0\0\0{", b"\xff" * 9):
        (tmp_path / "b.safetensors").write_bytes(broken)
        assert shapes(tmp_path / "b.safetensors") == {}


def test_another_familys_weights(config, tmp_path):
    for family, names in NAMES.items():
        assert family_of(names) == family
        assert family_of(f"model.diffusion_model.{name}" for name in names) == family
    assert family_of(["double_blocks.0.img_attn.qkv.weight"]) is None
    tensor_file(tmp_path / "net.safetensors", {name: [1] for name in NAMES["wan"]})
    config.training.value.model.transformer_path = str(tmp_path / "net.safetensors")
    assert "error: model.transformer_path: '" in told(config)
    assert "holds the tensors of Wan" in told(config)
    assert "not of FLUX.1. Name another file, or set model.type = 'wan'." in told(config)
    tensor_file(tmp_path / "net.safetensors", {name: [1] for name in NAMES["flux"]})
    assert told(config) == ""


def test_another_text_encoder(config, model):
    clip, t5 = (model / part / "model.safetensors" for part in ("text_encoder", "text_encoder_2"))
    whole = t5.read_bytes()
    t5.write_bytes(clip.read_bytes())
    assert f"'{model / 'text_encoder_2'}' holds a CLIP text model, not a T5 encoder. Download the model" in told(
        config
    )
    names = {name: [512, 64] for name in shapes_of(whole, model)}
    tensor_file(t5, names)
    assert f"the network takes text of width 96, '{model / 'text_encoder_2'}' gives 64. These parts" in told(config)
    t5.write_bytes(whole)
    assert told(config) == ""


def shapes_of(data: bytes, folder: Path) -> dict[str, list[int]]:
    (folder / "x.safetensors").write_bytes(data)
    return shapes(folder / "x.safetensors")


def test_single_files_of_another_kind(tmp_path, config):
    class Model:
        type, diffusers_path = "cosmos_predict2", None
        t5_path, clip_path = str(tmp_path / "a.safetensors"), str(tmp_path / "a.safetensors")

    class Asked:
        model = Model()

    tensor_file(tmp_path / "a.safetensors", {"text_model.embeddings.token_embedding.weight": [2, 2]})
    (problem,) = wrong_text_encoder(Asked())
    assert str(problem).startswith(
        f"error: model.t5_path: '{tmp_path}/a.safetensors' holds a CLIP text model, not a T5"
    )


def test_quantised_weights(config, model):
    file = next((model / "transformer").glob("*.safetensors"))
    tensor_file(file, shapes(file))
    assert told(config) == ""
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"U8" '))
    assert f"'{file}' holds quantised (4 bits or GGUF) weights, which cannot be trained upon." in told(config)


# --- what to expect --------------------------------------------------------------------------------------------------


def earlier_run(config, name: str, speed: float, **changes) -> None:
    training = config.training.value.model_copy(update=changes)
    run = RunDir(Path(training.output_dir) / name)
    run.path.mkdir(parents=True)
    run.run_toml.write_text(toml.dump(training))
    run.dataset_toml.write_text(toml.dump(config.dataset.value))
    run.write_process(ProcessInfo(run_id=name, host=session.host_name(), argv=["deepspeed", "--num_gpus", "1"]))
    run.write_status(Status("done", step=50, seconds_per_step=speed))


def test_steps_and_time_as_measured_before(config):
    training = config.training.value
    training.epochs, training.max_steps = 10, None
    assert next(lines(config, 1)) == "10 epochs of 2 steps: 20 steps"
    training.max_steps = 7
    assert next(lines(config, 1)) == "10 epochs of 2 steps: 7 steps, where max_steps ends it"
    training.max_steps = None
    assert measured(training, config.dataset.value, 1) is None
    earlier_run(config, "20260101_00-00-00", 2.0)
    earlier_run(config, "20260102_00-00-00", 4.0)
    earlier_run(config, "20260103_00-00-00", 99.0, gradient_accumulation_steps=7)
    assert measured(training, config.dataset.value, 1) == (3.0, 2)
    assert measured(training, config.dataset.value, 2) is None
    assert list(lines(config, 1))[1] == "about 1 min 00 s, at 3.00 s/step as in 2 earlier run(s) like it here"
    assert "GiB on disk, in" in list(lines(config, 1))[2]
    config.dataset.value.directory[0].augmentation = Augmentation(flip=0.5, cached_variants=0)
    assert measured(training, config.dataset.value, 1) is None, "a run that encodes in its steps is another"
    assert "no latents are cached" in list(lines(config, 1))[1]
    config.dataset.value.directory[0].path = "/nowhere"
    assert list(lines(config, 1)) == []


# --- the pictures ----------------------------------------------------------------------------------------------------


def test_an_empty_folder(config, tmp_path):
    (tmp_path / "empty").mkdir()
    config.dataset.value.directory[0].path = str(tmp_path / "empty")
    assert "dataset.toml: error: dataset: directory[0]: nothing in" in told(config)


def test_files_left_out_are_named(config, tmp_path):
    (tmp_path / "pictures" / "3.txt").unlink()
    assert "dataset.toml: warning: dataset: 1 file left out: 3.png: has no caption in 3.txt" in told(config)


def test_a_batch_larger_than_the_dataset(config):
    config.training.value.gradient_accumulation_steps = 100
    assert "error: dataset: nothing is left to train on: no bucket fills a global batch" in told(config)
    assert "error" in told(config, 64)


def test_held_out_sets_are_looked_at_too(config, tmp_path):
    (tmp_path / "empty").mkdir()
    held_out = config.dataset.value.model_copy(deep=True)
    held_out.directory[0].path = str(tmp_path / "empty")
    config.training.value.eval_datasets = [{"name": "held", "config": "held.toml"}]
    config.eval_datasets["held"] = Document(Path("held.toml"), held_out, "")
    assert "held.toml: error: eval_datasets[0]: directory[0]: nothing in" in told(config)


# --- the disk --------------------------------------------------------------------------------------------------------


def planned(config):
    return preflight._pictures(config.training.value, config.dataset, ("dataset",), Batch(4))[1]


def test_forecast_of_a_lora_and_of_all_weights(config, tmp_path):
    tensor_file(tmp_path / "net.safetensors", {"a": [100, 50], "b": [7]})
    training = config.training.value
    training.model.transformer_path = str(tmp_path / "net.safetensors")
    training.max_steps = 10
    training.save_every_n_steps = 5
    expected = forecast(training, planned(config))
    assert (expected.exports, expected.export_bytes, expected.checkpoint_bytes) == (3, 16 * 150 * 4, 16 * 150 * 12)
    training.adapter = None
    training.save_dtype = "bfloat16"
    assert forecast(training, planned(config)).export_bytes == 5007 * 2


def test_forecast_counts_epochs_and_examples(config):
    training = config.training.value
    training.max_steps, training.epochs, training.save_every_n_steps = None, 10, None
    training.save_every_n_epochs = 3
    assert forecast(training, planned(config)).exports == 1 + 3
    training.save_every_n_epochs, training.save_every_n_examples = None, 20
    assert forecast(training, planned(config)).exports == 1 + 4


@pytest.mark.parametrize(("free", "severity"), [(1000, "error"), (1.1, "warning"), (10**9, None)])
def test_disk(config, monkeypatch, free, severity):
    needed = forecast(config.training.value, planned(config)).total_bytes
    free_bytes = free * needed if severity == "warning" else free if severity else free * needed
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free_bytes))
    text = told(config)
    assert (f"{severity}: output_dir: about" in text) if severity else text == ""
    assert ("Save less often, lower the rank, or choose an output_dir on another disk." in text) is (
        severity is not None
    )
