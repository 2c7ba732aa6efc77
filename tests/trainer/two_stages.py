"""Run on two ranks by test_engine.py, each of which writes a file of what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dpnb.errors import DpnbError, RunError
from dpnb.runs.rundir import RunDir
from dpnb.schema import LokrAdapter, LoraAdapter
from dpnb.schema.loss import Ema, Loss
from tests.trainer import small
from trainer import callbacks, checkpoint, engine, export
from trainer.ema import Average

BATCHES = 2
BY_HAND: dict[str, Any] = {
    "pipeline_stages": 2,
    "partition_method": "manual",
    "partition_split": [5],
    "adapter": LoraAdapter(rank=4, target_modules=["to_q", "proj_out"]),
    "gradient_accumulation_steps": BATCHES,
    "gradient_clipping": 0,
}
LOKR: dict[str, Any] = {
    "pipeline_stages": 2,
    "adapter": LokrAdapter(rank=2),
    "loss": Loss(type="l1"),
    "gradient_accumulation_steps": BATCHES,
}
TOGETHER = "rank 1 alone fails"


def micro_batches() -> list[engine.MicroBatch]:
    """Two, of different sizes: a square picture and a wide one."""
    own = small.family()
    return [
        small.noised(own, small.batch(2, 4, 4, seed=1), [1, 2]),
        small.noised(own, small.batch(2, 4, 8, seed=2), [3, 4]),
    ]


def weighted_batches() -> list[engine.MicroBatch]:
    """The same, in which examples count differently."""
    return [
        (inputs, (target, torch.tensor(weights)))
        for (inputs, target), weights in zip(micro_batches(), ([0.5, 2.0], [0.0, 3.0]), strict=True)
    ]


def losses_of(own: engine.StageEngine) -> list[float]:
    """Losses of three weighted steps, and of an evaluation after them."""
    return [*(own.train_step(weighted_batches()) for _ in range(3)), own.evaluate(micro_batches())]


def gradients_of(own: engine.StageEngine, network: Any) -> dict[str, torch.Tensor]:
    """The gradients of one step, by name in the network: what SGD with a learning rate of 1 took off the weights."""
    mine = set(own.module.parameters())
    trained = {p: name for p, name in small.trained_names(network).items() if p in mine}
    before = {name: p.detach().clone() for p, name in trained.items()}
    own.train_step(micro_batches())
    return {name: before[name] - p.detach() for p, name in trained.items()}


def text_of(work: Any) -> str:
    try:
        work()
    except callbacks.Stopped:
        return "Stopped"
    except DpnbError as error:
        return str(error)
    return ""


def numbers(out: dict[str, Any], own: engine.StageEngine, network: Any) -> None:
    """Training and predicting."""
    sent: list[Any] = []
    send = own._send_tensor_meta
    own._send_tensor_meta = lambda buffer, stage: (sent.append(buffer), send(buffer, stage))[1]
    out["gradients"] = gradients_of(own, network)
    out["loss"], out["grad_norm"] = float(own.agg_train_loss), own.grad_norm
    out["needs_gradient"] = [t.requires_grad for t in sent[0]] if sent else []
    out["layers"], out["kept"] = len(own.module.forward_funcs), len(own.module._layer_specs)
    by_hand, its_network, _ = small.lora_engine(small.training(**BY_HAND))
    out["by_hand"] = gradients_of(by_hand, its_network)
    out["by_hand_layers"] = len(by_hand.module.forward_funcs)
    lokr, _, _ = small.lora_engine(small.training(**LOKR))
    out["lokr"] = losses_of(lokr)
    out["predictions"] = [own.predict(inputs) for inputs, _ in micro_batches()]


def agreement(out: dict[str, Any], world: engine.World, run: RunDir) -> None:
    """What one rank finds, all ranks do."""

    def only_on_1() -> None:
        if world.rank == 1:
            raise RunError(TOGETHER)

    out["together"] = text_of(lambda: engine.together(only_on_1))
    out["from_first"] = engine.from_first(lambda: "only rank 0 knows" if world.is_first else "wrong")
    out["gathered"] = engine.gather(world.rank * 10)
    stop = callbacks.StopSignal()
    callbacks.check_stop(stop, run)
    if world.rank == 1:
        stop.seen.set()
    out["stopped"] = text_of(lambda: callbacks.check_stop(stop, run))
    asked = small.training(pipeline_stages=2, partition_method="manual", partition_split=[5])
    out["empty_stage"] = text_of(lambda: small.lora_engine(asked))


def files(out: dict[str, Any], world: engine.World, run: RunDir, own: engine.StageEngine, network: Any) -> None:
    """Checkpoints and exports of which one rank cannot write its part."""
    checkpoint.save(own, run, world, callbacks.Progress(step=1), {"epoch": 0, "batch": 1})
    if world.rank == 1:
        own.checkpoint_engine.failure = "no room"
    progress = callbacks.Progress(step=2)
    out["checkpoint"] = text_of(lambda: checkpoint.save(own, run, world, progress, {"epoch": 0, "batch": 2}))
    out["left"] = sorted(path.name for path in run.path.iterdir())
    _, config = small.lora_network(LoraAdapter(rank=4))
    names = small.trained_names(network)
    exporter = export.Exporter(small.family(), small.training(pipeline_stages=2), run, world, names, config)
    out["health"] = exporter.save(own, "step1")
    out["exported"] = len(small.family().load_adapter(run.path / "step1"))

    def save_file(weights: Any, path: Path) -> None:
        if path.stem == "stage_1":
            raise OSError(28, "No space left on device")

    export.save_file = save_file
    out["refused"] = text_of(lambda: exporter.save(own, "step2"))
    dist.barrier()


def averages(out: dict[str, Any], world: engine.World, run: RunDir, own: engine.StageEngine, network: Any) -> None:
    """The average of each stage's own weights, in a checkpoint and in an export."""
    trained = [p for p in own.module.parameters() if p.requires_grad]
    average = Average(Ema(decay=0.5, schedule="constant"), trained)
    before = [p.detach().clone() for p in trained]
    own.train_step(micro_batches())
    average.update(1)
    out["halfway"] = all(
        torch.allclose(mean, (old + p.detach()) / 2, atol=1e-6)
        for mean, old, p in zip(average.means, before, trained, strict=True)
    )
    folder = checkpoint.save(own, run, world, callbacks.Progress(step=3), {"epoch": 0, "batch": 3}, average)
    kept = [mean.clone() for mean in average.means]
    average.update(2)
    checkpoint.load(own, folder, small.training(pipeline_stages=2), average)
    out["restored"] = all(torch.equal(a, b) for a, b in zip(kept, average.means, strict=True))
    _, config = small.lora_network(LoraAdapter(rank=4))
    asked, names = small.training(pipeline_stages=2), small.trained_names(network)
    export.Exporter(small.family(), asked, run, world, names, config, average).save(own, "step3")
    shown, raw = (small.family().load_adapter(run.path / "step3" / place) for place in (".", "raw"))
    out["both"] = (len(shown), shown.keys() == raw.keys(), any(torch.equal(shown[n], raw[n]) for n in shown))


def voice(out: dict[str, Any], world: engine.World) -> None:
    """Rank 1 fails while rank 0 waits for it; then it is gone."""
    try:
        with engine.one_voice():
            if world.rank == 1:
                raise RunError("rank 1 has found no coffee")
            dist.barrier()
    except DpnbError as error:
        out["voice"] = (type(error).__name__, str(error))


def main(folder: Path) -> int:
    world = engine.join_world()
    run = RunDir(folder / "run")
    run.path.mkdir(exist_ok=True)
    asked = small.training(pipeline_stages=2, gradient_accumulation_steps=BATCHES, gradient_clipping=0)
    own, network, _ = small.lora_engine(asked)
    out: dict[str, Any] = {}
    numbers(out, own, network)
    agreement(out, world, run)
    averages(out, world, run, own, network)
    files(out, world, run, own, network)
    voice(out, world)
    torch.save(out, folder / f"rank{world.rank}.pt")
    return 0
