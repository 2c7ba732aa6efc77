"""Makes the weights of the embedded model: `python -m trainer.tiny.pretrain --out trainer/tiny/flux`.

Three stages, each bounded by wall-clock minutes, with the learning rate tied to the time that is left:

1. the autoencoder, on pictures of the world and on scribbles;
2. the transformer together with both text encoders, by rectified flow on latents that are encoded once;
3. the decoder alone once more, on latents with a little noise, as a sampler leaves them.

The work folder holds checkpoints, and a second call goes on where the first one stopped; a larger --minutes then takes
the transformer further. Two idle CPU cores take about 160 pictures a second through the transformer stage.

The committed weights were made with this code on two busy CPU cores, in several sittings: the autoencoder in about 17
minutes; the transformer in 31 minutes on a larger world (things of three sizes in five places), whose outlines it had
not learned by then, and 30 minutes on the present one. Another call gives another model of the same kind.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from trainer.tiny.autoencode import load_vae, polish_decoder, store_vae, train_vae
from trainer.tiny.flow import publish, train_flow
from trainer.tiny.networks import build


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.tiny.pretrain", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="the diffusers folder to write")
    parser.add_argument("--work", type=Path, help="checkpoints and previews (default: OUT with .work appended)")
    parser.add_argument(
        "--vae-minutes", type=float, default=10.0, help="budget of the autoencoder, earlier sittings included"
    )
    parser.add_argument(
        "--minutes", type=float, default=40.0, help="budget of the transformer, earlier sittings included"
    )
    parser.add_argument("--polish-minutes", type=float, default=5.0, help="budget of the decoder's second training")
    parser.add_argument("--batch", type=int, default=64, help="pictures a step in the transformer stage")
    parser.add_argument("--lr", type=float, default=1.2e-3, help="peak learning rate of the transformer stage")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    return parser.parse_args()


def main() -> None:
    """Run the stages that are not done yet."""
    arguments = _arguments()
    work = arguments.work or arguments.out.with_name(arguments.out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = build()
    parts.vae.to(device)
    parts.learners().to(device)
    if not load_vae(parts.vae, work / "vae_done.pt"):
        train_vae(parts.vae, work, arguments.vae_minutes, device)
        store_vae(parts.vae, work / "vae_done.pt")
    train_flow(parts, work, arguments.out, arguments.minutes, device, arguments.batch, arguments.lr)
    if not load_vae(parts.vae, work / "vae_polished.pt"):
        polish_decoder(parts.vae, work, arguments.polish_minutes, device)
        store_vae(parts.vae, work / "vae_polished.pt")
    publish(parts, work / "final.png", arguments.out)


if __name__ == "__main__":
    main()
