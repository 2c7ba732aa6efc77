"""One training step of the embedded model: a bare diffusers + peft loop beside the trainer's engine and its loader."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.update(DS_ACCELERATOR="cpu", RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
os.environ.setdefault("MASTER_PORT", "29877")

import torch
from timing import median_seconds, show

from dpnb.dataset.bucket import plan
from dpnb.dataset.scan import scan
from dpnb.schema import FACTS, AdamW, Dataset, Directory, FluxModel, LoraAdapter, Training
from dpnb.schema.dataset import Augmentation
from trainer import adapters, engine, evaluate, families, objective, optim, schedules, session
from trainer.data.cache import Cache
from trainer.data.fill import fill
from trainer.data.folder import folders_of
from trainer.data.loader import Loader
from trainer.tiny import drawing, model_dir

BATCH = 4


def main() -> None:
    session.quiet_libraries()
    world = engine.join_world()
    family = families.build(FluxModel(diffusers_path=str(model_dir()), dtype="float32"))
    training = Training(
        output_dir="unused",
        dataset="unused",
        epochs=1,
        save_every_n_epochs=1,
        micro_batch_size_per_gpu=BATCH,
        model=family.model,
        adapter=LoraAdapter(rank=16),
        optimizer=AdamW(lr=1e-4),
    )
    with tempfile.TemporaryDirectory() as name:
        drawing.draw_dataset(Path(name) / "pictures", count=24)
        dataset = Dataset(resolutions=[64], directory=[Directory(path=str(Path(name) / "pictures"))])
        planned = plan(scan(dataset).rows, dataset, FACTS["flux"], micro_batch=BATCH)
        cache = Cache(Path(name) / "cache")
        family.load_encoders(world.device)
        fill(cache, planned, family)
        identities = {"pixels_identity": family.pixels_identity, "text_identity": family.text_identity}
        loader = Loader(planned, cache, seed=0, **identities)
        batch = next(loader)
        prepared = evaluate.noised(family, batch)
        rows = {"bare loop, one batch in memory": bare_loop(family, training, prepared)}
        network = session.build_network(family, training, world, planned.steps_per_epoch)
        rows["StageEngine, one batch in memory"] = median_seconds(
            lambda: network.engine.train_step([prepared]), repeats=20
        )
        rows["StageEngine, loader, noise"] = median_seconds(
            lambda: network.engine.train_step([evaluate.noised(family, next(loader))]), repeats=20
        )
        with encoded_anew(planned, dataset, cache, family) as fresh:

            def step() -> None:
                ready = next(fresh).encoded(family.encode_pixels)
                network.engine.train_step([evaluate.noised(family, ready)])

            rows["StageEngine, loader, noise, encoded anew"] = median_seconds(step, repeats=20)
            encoded = {
                "a micro-batch of cached latents": median_seconds(lambda: next(loader), repeats=50),
                "a micro-batch encoded anew": median_seconds(
                    lambda: next(fresh).encoded(family.encode_pixels), repeats=20
                ),
            }
        show(f"one step, batch {BATCH} at 64 px, {torch.get_num_threads()} threads", rows)
        show("the loader alone, and the VAE", encoded)
        loader.close()


def encoded_anew(planned, dataset, cache, family) -> Loader:
    """A loader of the same pictures, of which nothing is cached: mirrored and brightened anew, encoded in the step."""
    changes = Augmentation(flip=0.5, brightness=0.2, cached_variants=0)
    folders = folders_of(dataset.model_copy(update={"augmentation": changes}))
    identities = {"pixels_identity": family.pixels_identity, "text_identity": family.text_identity}
    return Loader(planned, cache, seed=0, folders=folders, **identities)


def bare_loop(family, training, prepared) -> float:
    """The same network, adapter and optimizer without DeepSpeed."""
    transformer = family.load_transformer()
    adapters.attach(transformer, training.adapter, family.adapter_blocks, dtype=torch.float32, seed=0)
    parameters = [p for p in transformer.parameters() if p.requires_grad]
    optimizer = optim.build(training.optimizer, parameters)
    schedule = schedules.build(optimizer, training, 100)
    loss_of = objective.make_loss()
    inputs, target = prepared

    def step() -> None:
        prediction = transformer(
            hidden_states=inputs.hidden_BLC,
            encoder_hidden_states=inputs.text_BSD,
            pooled_projections=inputs.pooled_BD,
            timestep=inputs.time_B,
            guidance=inputs.guidance_B,
            img_ids=inputs.grid_BL3[0].float(),
            txt_ids=torch.zeros(inputs.text_BSD.shape[1], 3),
        ).sample
        loss_of(prediction, target).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    return median_seconds(step, repeats=20)


if __name__ == "__main__":
    main()
