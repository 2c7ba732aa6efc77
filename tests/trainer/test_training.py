"""Whole runs, also through the real DeepSpeed launcher: the same losses however they are spread, killed, resumed or
stopped."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image, ImageOps
from safetensors.torch import load_file

from dpnb import toml
from dpnb.runs.events import Reader
from dpnb.runs.rundir import RunDir, find_runs
from dpnb.schema import Dataset, Directory, DoraAdapter, FluxModel, LohaAdapter, LokrAdapter, LoraAdapter, Prompt, Sgd
from dpnb.schema.loss import Ema, Loss
from tests.trainer.launching import ONE_THREAD, STEPS_PER_EPOCH, Project, deepspeed
from trainer.tiny import model_dir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Run = Callable[..., subprocess.CompletedProcess[str]]


def only_run(config: Path) -> RunDir:
    (run,) = find_runs(config.parent / f"runs-{config.stem}")
    return run


def scalars(run: RunDir, tag: str) -> dict[int, float]:
    steps, _, values = Reader(run.path).poll()[tag]
    return {int(step): float(value) for step, value in zip(steps, values, strict=True)}


@pytest.fixture(scope="module")
def reference(project: Project, run_training: Run) -> RunDir:
    """One process, one stage: 12 steps, held-out set, samples, clipping that bites."""
    config = project.write(
        "reference",
        eval_datasets=project.held_out,
        eval_every_n_epochs=1,
        sample=project.sample,
        gradient_clipping=0.02,
    )
    done = run_training(config)
    assert done.returncode == 0, done.stdout + done.stderr
    return only_run(config)


def test_a_run_leaves_what_the_blueprint_says(reference: RunDir) -> None:
    status = reference.status()
    assert status is not None
    assert (status.phase, status.step, status.epoch, status.examples) == ("done", 12, 2, 48)
    assert [path.name for path in reference.exports()] == ["epoch2"]
    assert [step for step, _ in reference.checkpoints()] == [6, 12]
    assert reference.latest_checkpoint() == reference.path / "global_step12"
    assert [(s.step, s.index, s.prompt) for s in reference.samples()] == [
        (step, index, prompt)
        for step in (0, 6, 12)
        for index, prompt in enumerate(("a zorbi on a white background", "a red circle"))
    ]
    assert Image.open(reference.samples()[1].path).size == (96, 64)
    assert "torch 2" in reference.environment_file.read_text()
    process = reference.process()
    assert process is not None
    assert (process.supervised, process.exit_code) == (False, 0)


def test_scalars_of_a_run(reference: RunDir) -> None:
    loss = scalars(reference, "train/loss")
    assert sorted(loss) == list(range(1, 13))
    assert np.isfinite(list(loss.values())).all()
    tags = set(Reader(reference.path).poll())
    assert {"train/lr", "train/grad_norm", "train/seconds_per_step", "train/samples_per_second"} <= tags
    assert {"held/loss", "memory/host_gib", "train/epoch_loss"} <= tags
    assert {f"held/loss_quantile_0.{i}0" for i in range(1, 10)} <= tags
    assert sorted(scalars(reference, "held/loss")) == [0, 6, 12]


def test_two_stages_give_the_losses_of_one(project: Project, train_ranks: Run, reference: RunDir) -> None:
    config = project.write(
        "stages",
        pipeline_stages=2,
        eval_datasets=project.held_out,
        eval_every_n_epochs=1,
        sample=project.sample,
        gradient_clipping=0.02,
    )
    done = train_ranks(config, processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    run = only_run(config)
    for tag in ("train/loss", "train/grad_norm", "held/loss"):
        ours, theirs = scalars(run, tag), scalars(reference, tag)
        assert ours == pytest.approx(theirs, abs=1e-4, rel=1e-3), tag
    one, two = (load_file(r.path / "epoch2" / "adapter_model.safetensors") for r in (reference, run))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)
    for a, b in zip(reference.samples(), run.samples(), strict=True):
        pictures = [np.asarray(Image.open(sample.path), dtype=float) for sample in (a, b)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 2, f"{a.path} differs from {b.path}"


def test_two_replicas_give_the_losses_of_one_with_doubled_accumulation(
    project: Project, train_ranks: Run, reference: RunDir
) -> None:
    config = project.write("replicas", gradient_accumulation_steps=1, gradient_clipping=0.02, sample=project.sample)
    done = train_ranks(config, processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    run = only_run(config)
    assert scalars(run, "train/loss") == pytest.approx(scalars(reference, "train/loss"), abs=1e-4)
    assert len(run.samples()) == 6


def varied_dataset(project: Project) -> str:
    """A dataset file with everything that is random: weights and masks and encoded anew while training, and cached."""
    dataset, masks = project.root / "varied-dataset.toml", project.root / "masks"
    masks.mkdir(exist_ok=True)
    for path in sorted((project.root / "square").glob("*.png"))[::2]:
        half = Image.new("L", Image.open(path).size, 0)
        half.paste(200, (0, 0, half.width // 2, half.height))
        half.save(masks / path.name)
    keys = f"loss_weight = 0.3\ncaption_dropout = 0.5\ntag_dropout = 0.3\nmask_path = '{masks}'\ncrop = 'random'"
    anew = "augmentation = {flip = 0.5, brightness = 0.2, rotation_degrees = 5.0, cached_variants = 0}"
    cached = "augmentation = {flip = 0.5, brightness = 0.2, rotation_degrees = 5.0, cached_variants = 2}"
    general, first, second = (project.root / "dataset.toml").read_text().split("[[directory]]")
    folders = (f"{keys}\n{anew}\n{first}", f"{cached}\n{second}")
    dataset.write_text("[[directory]]\n".join([general, *folders]))
    return str(dataset)


def test_weighted_losses_do_not_depend_on_how_the_work_is_spread(
    project: Project, train_ranks: Run, train_here: Run
) -> None:
    common = {
        "dataset": varied_dataset(project),
        "loss": Loss(weighting="sigma_sqrt", noise_offset=0.1),
        "adapter": LokrAdapter(rank=10**6),
        "epochs": 1,
        "save_every_n_epochs": 1,
    }
    spread = {"alone": {}, "by-replicas": {"gradient_accumulation_steps": 1}, "by-stages": {"pipeline_stages": 2}}
    found = {}
    for name, changes in spread.items():
        config = project.write(f"weighted-{name}", **(common | changes))
        done = train_here(config) if name == "alone" else train_ranks(config, processes=2)
        assert done.returncode == 0, done.stdout + done.stderr
        found[name] = scalars(only_run(config), "train/loss")
    assert len(found["alone"]) == STEPS_PER_EPOCH
    assert found["by-replicas"] == pytest.approx(found["alone"], rel=1e-3)
    assert found["by-stages"] == pytest.approx(found["alone"], rel=1e-3)


def test_pairs_of_pictures_train_the_same_on_two_stages(project: Project, train_ranks: Run, train_here: Run) -> None:
    controls, dataset = [project.root / "inverted", project.root / "mirrored"], project.root / "pairs-dataset.toml"
    for control, change in zip(controls, (ImageOps.invert, ImageOps.mirror), strict=True):
        control.mkdir()
        for path in (project.root / "square").glob("*.png"):
            change(Image.open(path).convert("RGB")).resize((100, 90)).save(control / f"{path.stem}.jpg")
    folder = Directory(path=str(project.root / "square"), control_path=[str(control) for control in controls])
    dataset.write_text(toml.dump(Dataset(resolutions=[64], crop="random", directory=[folder])))
    common = {"dataset": str(dataset), "epochs": 1, "save_every_n_epochs": 1}
    found = []
    for stages in (1, 2):
        config = project.write(f"pairs-{stages}", pipeline_stages=stages, **common)
        done = train_here(config) if stages == 1 else train_ranks(config, processes=stages)
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(scalars(only_run(config), "train/loss"))
    assert len(found[0]) == 3
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_the_export_loads_in_stock_diffusers_and_draws_what_the_trainer_drew(reference: RunDir) -> None:
    pipeline = FluxPipeline.from_pretrained(model_dir(), torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> np.ndarray:
        sample = reference.samples()[-2].settings
        generator = torch.Generator().manual_seed(sample["seed"])
        picture = pipeline(
            sample["prompt"],
            width=64,
            height=64,
            num_inference_steps=sample["steps"],
            guidance_scale=sample["guidance"],
            max_sequence_length=32,
            generator=generator,
        ).images[0]
        return np.asarray(picture, dtype=float)

    before = draw()
    weights = load_file(reference.path / "epoch2" / "adapter_model.safetensors")
    assert all(torch.isfinite(t).all() for t in weights.values())
    assert all(t.any() for name, t in weights.items() if "lora_B" in name)
    pipeline.load_lora_weights(reference.path / "epoch2", weight_name="adapter_model.safetensors")
    after = draw()
    drawn = np.asarray(Image.open(reference.samples()[-2].path), dtype=float)
    assert np.abs(after - drawn).mean() < 1
    assert np.abs(after - before).mean() > np.abs(after - drawn).mean()
    health = json.loads((reference.path / "epoch2" / "health.json").read_text())
    assert health["finite"]
    assert health["b_nonzero"] == health["b_total"] > 0


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a run in a session of its own, its output going to a file; whatever is left is killed at the end."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(config: Path, log: Path, *arguments: str, processes_: int = 1) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            process = subprocess.Popen(
                deepspeed(config, *arguments, processes=processes_),
                env=os.environ | ONE_THREAD,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        for member in session_members(process.pid):
            member.kill()
        process.wait()


def session_members(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def ranks_of(session: int) -> list[psutil.Process]:
    return [
        p for p in session_members(session) if "trainer.train" in p.cmdline() and "--local_rank=0" in str(p.cmdline())
    ]


def wait_for_step(log: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        steps = [int(number) for number in re.findall(r"^step (\d+)/", log.read_text(), re.MULTILINE)]
        if steps and steps[-1] >= step:
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"step {step} was never reached:\n{log.read_text()}")


def losses_after_resume(run: RunDir, folder: Path) -> dict[int, float]:
    """The losses in the event files of all attempts but the first."""
    resumed: dict[int, float] = {}
    for file in run.event_files()[1:]:
        alone = folder / "alone"
        shutil.rmtree(alone, ignore_errors=True)
        alone.mkdir()
        shutil.copy(file, alone)
        resumed |= scalars(RunDir(alone), "train/loss")
    return resumed


def test_killed_and_resumed_gives_the_losses_of_an_uninterrupted_run(
    project: Project,
    train_ranks: Run,
    train_here: Run,
    started: Callable[..., subprocess.Popen[bytes]],
    reference: RunDir,
    tmp_path: Path,
) -> None:
    # Dropout, so that the test also covers the generators.
    common = {"epochs": 4, "adapter": LoraAdapter(rank=4, dropout=0.2), "lr_scheduler": "cosine", "warmup_steps": 3}
    whole = project.write("whole", **common)
    done = train_here(whole)
    assert done.returncode == 0, done.stdout + done.stderr
    config = project.write("killed", **common)
    log = tmp_path / "console.log"
    process = started(config, log)
    wait_for_step(log, STEPS_PER_EPOCH + 1 + int(time.time()) % 8, process)
    killed = session_members(process.pid)
    for member in killed:
        member.kill()
    process.wait()
    psutil.wait_procs(killed)  # a run that is still dying cannot be resumed
    run = only_run(config)
    before = run.latest_checkpoint()
    assert before is not None
    done = train_ranks(config, "--resume_from_checkpoint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert only_run(config) == run, "a resume goes on in the same folder"
    first = int(before.name.removeprefix("global_step")) + 1
    expected, resumed = scalars(only_run(whole), "train/loss"), losses_after_resume(run, tmp_path)
    assert sorted(resumed) == list(range(first, 4 * STEPS_PER_EPOCH + 1))
    assert resumed == {step: expected[step] for step in resumed}
    one, two = (load_file(r.path / "epoch4" / "adapter_model.safetensors") for r in (only_run(whole), run))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_all_that_a_run_remembers_survives_a_resume(
    project: Project, train_ranks: Run, train_here: Run, tmp_path: Path
) -> None:
    """Average, best evaluation, weighted losses, what is drawn for pictures, a dropout of LoKr's; and the folders."""
    common = {
        "dataset": varied_dataset(project),
        "epochs": 4,
        "adapter": LokrAdapter(rank=4, rank_dropout=0.2),
        "loss": Loss(weighting="cosmap", noise_offset=0.1),
        "ema": Ema(decay=0.9),
        "sample": project.sample,
        "eval_datasets": project.held_out,
        "eval_every_n_epochs": 1,
        "save_every_n_epochs": 1,
        "keep_best": True,
        "keep_last_n_saves": 2,
        "keep_last_n_checkpoints": 1,
    }
    done = train_here(project.write("remembers", **common))
    assert done.returncode == 0, done.stdout + done.stderr
    train_here(project.write("resumes", **common, max_steps=2 * STEPS_PER_EPOCH + 3))
    config = project.write("resumes", **common)
    done = train_ranks(config, "--resume_from_checkpoint")
    assert done.returncode == 0, done.stdout + done.stderr
    whole, resumed = only_run(project.root / "remembers.toml"), only_run(config)
    losses, again = scalars(whole, "train/loss"), losses_after_resume(resumed, tmp_path)
    assert sorted(again) == list(range(2 * STEPS_PER_EPOCH + 4, 4 * STEPS_PER_EPOCH + 1))
    assert again == {step: losses[step] for step in again}
    assert scalars(resumed, "held/loss") == scalars(whole, "held/loss")
    for place in ("epoch4", "epoch4/raw", "best", "best/raw"):
        one, two = (load_file(r.path / place / "adapter_model.safetensors") for r in (whole, resumed))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one), place
    raw, average = (load_file(whole.path / p / "adapter_model.safetensors") for p in ("epoch4/raw", "epoch4"))
    assert not any(torch.equal(raw[name], average[name]) for name in raw if name.endswith("lokr_w1"))
    assert [path.name for path in whole.exports()] == ["epoch3", "epoch4"]
    assert [step for step, _ in whole.checkpoints()] == [4 * STEPS_PER_EPOCH]
    first = load_file(whole.path / "best" / "adapter_model.safetensors")
    held = scalars(whole, "held/loss")
    held.pop(0)  # what the untrained model does is nothing to keep
    if min(held, key=lambda step: held[step]) == 4 * STEPS_PER_EPOCH:
        assert all(torch.equal(first[name], average[name]) for name in first)


def test_a_run_without_patience_ends_like_any_other(project: Project, train_here: Run) -> None:
    config = project.write(
        "patience",
        epochs=50,
        optimizer=Sgd(lr=1e-30),
        eval_datasets=project.held_out,
        eval_every_n_epochs=1,
        early_stopping_patience=2,
        keep_best=True,
        save_every_n_epochs=50,
        checkpoint_every_n_epochs=None,
        trigger_word="zorbi",
        sample=project.sample.model_copy(update={"prompts": [Prompt(text="a [trigger]")], "every_n_epochs": None}),
    )
    done = train_here(config)
    assert done.returncode == 0, done.stdout + done.stderr
    run = only_run(config)
    status = run.status()
    assert status is not None
    assert (status.phase, status.step) == ("done", 3 * STEPS_PER_EPOCH)
    best = scalars(run, "held/loss")[STEPS_PER_EPOCH]
    ending = f"ended early at step 18 of 300: the evaluation loss has not fallen below {best:.4f} of step 6"
    assert status.detail == f"{ending} for 2 evaluations"
    assert f"[done] {ending} for 2 evaluations" in done.stdout
    assert [path.name for path in run.exports()] == ["step18"]
    assert run.latest_checkpoint() == run.path / "global_step18"
    assert [(s.step, s.prompt) for s in run.samples()] == [(0, "a zorbi"), (18, "a zorbi")]
    assert (run.path / "best" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("kind", [DoraAdapter, LohaAdapter])
def test_other_adapters_train_in_bfloat16_and_are_trained_further(
    kind: type[DoraAdapter | LohaAdapter], project: Project, train_here: Run
) -> None:
    common = {
        "model": FluxModel(diffusers_path=str(model_dir()), dtype="bfloat16"),
        "activation_checkpointing": "unsloth",
        "max_steps": 2,
    }
    first = project.write(f"first-{kind.__name__}", adapter=kind(rank=4, dtype="float32"), **common)
    done = train_here(first)
    assert done.returncode == 0, done.stdout + done.stderr
    (export,) = only_run(first).exports()
    file = export / "adapter_model.safetensors"
    more = kind(rank=4, dtype="float32", init_from_existing=str(file))
    second = project.write(f"second-{kind.__name__}", adapter=more, **common)
    done = train_here(second)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = scalars(only_run(first), "train/loss"), scalars(only_run(second), "train/loss")
    assert np.isfinite([*before.values(), *after.values()]).all()
    assert before[1] != after[1], "the second begins where the first ended"


def test_sigterm_finishes_the_step_saves_and_exits_0(
    project: Project, started: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    config = project.write("stopped", epochs=100, checkpoint_every_n_epochs=None)
    log = tmp_path / "console.log"
    process = started(config, log)
    wait_for_step(log, 3, process)
    (rank,) = ranks_of(process.pid)
    rank.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, log.read_text()
    run = only_run(config)
    status = run.status()
    assert status is not None
    assert status.phase == "done"
    assert f"stopped at step {status.step} of 600" in status.detail
    assert run.latest_checkpoint() == run.path / f"global_step{status.step}"
    assert [path.name for path in run.exports()] == [f"step{status.step}"]


def test_control_files_save_sample_and_quit(
    project: Project, started: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    config = project.write(
        "asked",
        epochs=200,
        checkpoint_every_n_epochs=None,
        sample=project.sample.model_copy(update={"every_n_epochs": None}),
    )
    log = tmp_path / "console.log"
    process = started(config, log)
    wait_for_step(log, 1, process)
    run = only_run(config)
    for request in ("save", "sample"):
        run.request(request)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (run.latest_checkpoint() and len(run.samples()) == 4):
        time.sleep(0.1)
    assert run.pending_requests() == []
    assert {s.step for s in run.samples()} == {0, run.samples()[-1].step}
    run.request("save_quit")
    assert process.wait(timeout=60) == 0, log.read_text()
    assert not run.request_file("save_quit").exists()


def test_bfloat16_with_recomputed_activations_trains(project: Project, train_here: Run) -> None:
    config = project.write(
        "bfloat16",
        model=FluxModel(diffusers_path=str(model_dir()), dtype="bfloat16"),
        adapter=LoraAdapter(rank=4, dtype="float32", alpha=8),
        activation_checkpointing=True,
        max_steps=2,
        save_dtype="bfloat16",
    )
    done = train_here(config)
    assert done.returncode == 0, done.stdout + done.stderr
    run = only_run(config)
    assert np.isfinite(list(scalars(run, "train/loss").values())).all()
    weights = load_file(run.exports()[0] / "adapter_model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.bfloat16}


def test_full_finetune_exports_a_network_that_diffusers_loads(project: Project, train_ranks: Run) -> None:
    from diffusers import FluxTransformer2DModel

    common = {"epochs": 1, "save_every_n_epochs": 1, "pipeline_stages": 2}
    config = project.write("full", adapter=None, ema=Ema(decay=0.5), **common)
    done = train_ranks(config, processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = only_run(config).path / "epoch1"
    places = (folder, folder / "raw", model_dir() / "transformer")
    networks = [FluxTransformer2DModel.from_pretrained(place, torch_dtype=torch.float32) for place in places]
    for one, other in itertools.combinations(networks, 2):
        changed = [not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
        assert sum(changed) > len(changed) * 0.9


def test_a_wrong_file_ends_with_1_and_a_line_for_each_problem(project: Project, run_training: Run) -> None:
    config = project.write("wrong")
    config.write_text(config.read_text().replace("\nepochs = 2", '\nepochs = "2"\nepoch = 1'))
    done = run_training(config)
    assert done.returncode == 1
    assert f"{config}:3:1: error: epochs: '2' is a text; expected a whole number." in done.stderr
    assert f"{config}:4:1: error: epoch: unknown key. Did you mean 'epochs'?" in done.stderr
    assert "Traceback" not in done.stderr.split("launch.py")[0]
    assert not (project.root / "runs-wrong").exists()
