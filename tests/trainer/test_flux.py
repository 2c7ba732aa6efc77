"""Flux against diffusers' own: network, packing, text, autoencoder, sampling and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from diffusers.image_processor import VaeImageProcessor
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpnb.schema import DoraAdapter, LoraAdapter
from tests.trainer import small
from trainer import adapters
from trainer.families import flux
from trainer.families.base import SampleRequest


def denoise_with(layers: list[torch.nn.Module], seen: list[Any] | None = None) -> Any:
    def denoise(inputs: tuple[Tensor, ...]) -> Tensor:
        if seen is not None:
            seen.append(flux.FluxInputs(*inputs))
        wire: Any = inputs
        with torch.no_grad():
            for layer in layers:
                wire = layer(wire)
        return wire  # type: ignore[no-any-return]

    return denoise


# --- network ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [True, False])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 8), (8, 2)])
def test_layers_in_turn_are_the_networks_own_forward(guidance: bool, height: int, width: int) -> None:
    own, network = small.family(guidance=3.5), small.network(guidance=guidance)
    inputs, _ = small.noised(own, small.batch(3, height, width), [1, 2, 3])
    x = flux.FluxInputs(*inputs)
    with torch.no_grad():
        theirs = network(
            hidden_states=x.hidden_BLC,
            encoder_hidden_states=x.text_BSD,
            pooled_projections=x.pooled_BD,
            timestep=x.time_B,
            guidance=torch.full((3,), 3.5) if guidance else None,
            img_ids=x.grid_BL3[0].float(),
            txt_ids=torch.zeros(small.TEXT_TOKENS, 3),
        ).sample
    ours = denoise_with(own.layers(network))(inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert float(ours.abs().mean()) > 1e-3


def test_a_bypassed_guidance_embedding_has_no_say() -> None:
    network = small.network(guidance=True)
    own = small.family(guidance=3.5, bypass_guidance_embedding=True)
    inputs, _ = small.noised(own, small.batch(), [1, 2])
    bypassed = denoise_with(own.layers(network))(inputs)
    other = flux.FluxInputs(*inputs)._replace(guidance_B=torch.tensor([9.0, 9.0]))
    assert torch.equal(denoise_with(own.layers(network))(other), bypassed)
    plain = small.network(guidance=False)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if "guidance_embedder" not in k})
    torch.testing.assert_close(denoise_with(own.layers(plain))(inputs), bypassed)


def test_gradients_reach_every_trained_weight() -> None:
    network, _ = small.lora_network(LoraAdapter(rank=2))
    own = small.family()
    inputs, target = small.noised(own, small.batch(), [1, 2])
    wire: Any = inputs
    for layer in own.layers(network):
        wire = layer(wire)
    torch.nn.functional.mse_loss(wire, target).backward()
    trained = small.trained_names(network)
    assert [name for p, name in trained.items() if p.grad is None or not p.grad.any()] == []
    assert len(trained) > 20


# --- what the network is fed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(4, 4), (6, 10)])
def test_packing_and_positions_are_flux_pipelines(height: int, width: int) -> None:
    latents = torch.randn(2, 16, height, width)
    assert torch.equal(flux.pack(latents), FluxPipeline._pack_latents(latents, 2, 16, height, width))
    theirs = FluxPipeline._prepare_latent_image_ids(2, height // 2, width // 2, torch.device("cpu"), torch.float32)
    ours = flux.token_grid(height // 2, width // 2)
    assert ours.dtype == torch.int32
    assert torch.equal(ours.float(), theirs)
    unpacked = FluxPipeline._unpack_latents(flux.pack(latents), height * 8, width * 8, 8)
    assert torch.equal(unpacked, latents)


def test_prepare_noises_at_the_time_and_aims_at_the_velocity() -> None:
    own, batch = small.family(guidance=2.0), small.batch(2, 4, 6)
    noise, time = torch.randn(2, 4, 4, 6), torch.tensor([0.25, 0.75])
    inputs, target, at = own.prepare(batch, time, noise)
    assert torch.equal(at, time)
    x = flux.FluxInputs(*inputs)
    noised = (1 - time.view(2, 1, 1, 1)) * batch["latents"] + time.view(2, 1, 1, 1) * noise
    torch.testing.assert_close(x.hidden_BLC, flux.pack(noised))
    torch.testing.assert_close(target, flux.pack(noise - batch["latents"]))
    assert x.time_B.tolist() == [0.25, 0.75]
    assert x.guidance_B.tolist() == [2.0, 2.0]
    assert x.grid_BL3.shape == (2, 6, 3)
    assert {t.dtype for t in (*inputs, target)} == {torch.float32, torch.int32}


def test_a_mask_is_laid_out_as_the_target() -> None:
    own, batch = small.family(), small.batch(2, 4, 6)
    mask_B1HW = torch.rand(2, 1, 4, 6)
    time, noise = torch.tensor([0.25, 0.75]), torch.randn(2, 4, 4, 6)
    _, target, _ = own.prepare(batch, time, noise)
    laid_out = own.over_target(mask_B1HW, batch)
    assert laid_out.shape == target.shape
    masked = flux.pack((noise - batch["latents"]) * mask_B1HW)
    torch.testing.assert_close(target * laid_out, masked)


def test_control_pictures_stand_behind_what_is_noised_as_in_kontext() -> None:
    from diffusers import FluxKontextPipeline

    own, network = small.family(guidance=2.0), small.network()
    batch = small.batch(2, 4, 6)
    batch["control_latents"] = torch.randn(2, 4, 4, 6)
    inputs, target = small.noised(own, batch, [1, 2])
    plain, aim = small.noised(own, {n: t for n, t in batch.items() if n != "control_latents"}, [1, 2])
    x, without = flux.FluxInputs(*inputs), flux.FluxInputs(*plain)
    assert isinstance(target, torch.Tensor)
    assert isinstance(aim, torch.Tensor)
    assert torch.equal(target, aim), "the control picture is not what is learned"
    assert torch.equal(x.hidden_BLC, torch.cat([without.hidden_BLC, flux.pack(batch["control_latents"])], 1))
    ids = FluxKontextPipeline._prepare_latent_image_ids(1, 2, 3, torch.device("cpu"), torch.float32)
    theirs_ids = torch.cat([ids, ids + torch.tensor([1.0, 0.0, 0.0])])
    assert torch.equal(x.grid_BL3[0].float(), theirs_ids)
    with torch.no_grad():
        theirs = network(
            hidden_states=x.hidden_BLC,
            encoder_hidden_states=x.text_BSD,
            pooled_projections=x.pooled_BD,
            timestep=x.time_B,
            guidance=torch.full((2,), 2.0),
            img_ids=theirs_ids,
            txt_ids=torch.zeros(small.TEXT_TOKENS, 3),
        ).sample
    ours = denoise_with(own.layers(network))(inputs)
    assert ours.shape == target.shape
    torch.testing.assert_close(ours, theirs[:, : target.shape[1]], atol=1e-5, rtol=1e-5)
    changed = batch | {"control_latents": batch["control_latents"] + 1}
    assert not torch.allclose(ours, denoise_with(own.layers(network))(small.noised(own, changed, [1, 2])[0])), "seen"


def test_several_control_pictures_are_numbered_by_the_first_coordinate() -> None:
    own, network = small.family(), small.network()
    batch = small.batch(2, 4, 6)
    for name in ("control_latents", "control_2_latents", "control_3_latents"):
        batch[name] = torch.randn(2, 4, 4, 6)
    inputs, target = small.noised(own, batch, [1, 2])
    x, tokens = flux.FluxInputs(*inputs), 2 * 3
    packed = [flux.pack(batch[name]) for name in ("control_latents", "control_2_latents", "control_3_latents")]
    assert torch.equal(x.hidden_BLC[:, tokens:], torch.cat(packed, 1))
    assert x.grid_BL3[0, :, 0].tolist() == [0] * tokens + [1] * tokens + [2] * tokens + [3] * tokens
    assert all(torch.equal(x.grid_BL3[:, :tokens, 1:], x.grid_BL3[:, i * tokens :, 1:][:, :tokens]) for i in (1, 2, 3))
    ours = denoise_with(own.layers(network))(inputs)
    assert ours.shape == target.shape
    swapped = batch | {"control_2_latents": batch["control_latents"], "control_latents": batch["control_2_latents"]}
    other = denoise_with(own.layers(network))(small.noised(own, swapped, [1, 2])[0])
    assert not torch.allclose(ours, other), "which of them is which is seen"


def test_what_a_control_picture_says_is_learned() -> None:
    """The target is a function of the control picture alone: only a network that reads it can follow."""
    own, network = small.family(), small.network()
    network.requires_grad_(True)
    layers = own.layers(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses: dict[bool, list[float]] = {True: [], False: []}
    for step in range(60):
        batch = small.batch(4, 4, 4, seed=0)
        sign = torch.randint(0, 2, (4, 1, 1, 1), generator=torch.Generator().manual_seed(step)) * 2.0 - 1
        batch |= {"latents": sign.expand(4, 4, 4, 4).clone(), "control_latents": sign.expand(4, 4, 4, 4).clone()}
        noise = torch.zeros(4, 4, 4, 4)
        inputs, target, _ = own.prepare(batch, torch.ones(4), noise)
        wire: Any = inputs
        for layer in layers:
            wire = layer(wire)
        loss = torch.nn.functional.mse_loss(wire, target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses[step >= 50].append(float(loss.detach()))
    assert losses[False][0] > 0.8
    assert max(losses[True]) < 0.2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.5),
        ({"shift": 3.0}, 0.75),
        ({"flux_shift": True}, None),
        ({"flux_shift": True, "shift": 3.0}, 0.75),
    ],
)
def test_shift_comes_from_the_key_or_from_the_size(changes: dict[str, Any], expected: float | None) -> None:
    batch = small.batch(1, 32, 32)
    inputs, _, at = small.family(**changes).prepare(batch, torch.tensor([0.5]), torch.zeros(1, 4, 32, 32))
    # 16 x 16 tokens: mu = 0.5, so t = e^0.5 / (e^0.5 + 1)
    wanted = 0.6224593 if expected is None else expected
    assert float(flux.FluxInputs(*inputs).time_B) == float(at) == pytest.approx(wanted, abs=1e-6)


# --- the embedded model, through the stock pipeline ------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.copied_model(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="module")
def own(model: Path) -> flux.Flux:
    made = small.family(diffusers_path=str(model))
    made.load_encoders(torch.device("cpu"))
    return made


@pytest.fixture(scope="module")
def pipeline(model: Path) -> Any:
    made = FluxPipeline.from_pretrained(model, torch_dtype=torch.float32, local_files_only=True)
    made.set_progress_bar_config(disable=True)
    return made


CAPTIONS = ["a red circle", "", "a large wug on a blue background, and then many more words " * 30]


def test_captions_are_encoded_as_by_flux_pipeline(own: flux.Flux, pipeline: Any) -> None:
    ours = own.encode_text(CAPTIONS)
    length = own.encoders["tokenizer_2"].model_max_length
    text, pooled, _ = pipeline.encode_prompt(CAPTIONS, None, max_sequence_length=length)
    torch.testing.assert_close(ours["text"], text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours["pooled"], pooled, atol=1e-5, rtol=1e-5)
    alone = own.encode_text(CAPTIONS[:1])
    torch.testing.assert_close(alone["text"][0], ours["text"][0], atol=1e-5, rtol=1e-5)


def test_pixels_are_encoded_and_decoded_as_by_the_autoencoder(own: flux.Flux, model: Path) -> None:
    vae = AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32)
    pixels = torch.rand(2, 3, 1, 64, 96) * 2 - 1
    latents = own.encode_pixels(pixels)["latents"]
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    assert latents.shape == (2, vae.config.latent_channels, 64 // factor, 96 // factor)
    assert latents.dtype == torch.float32
    with torch.no_grad():
        mode = vae.encode(pixels[:, :, 0]).latent_dist.mode()
        decoded = vae.decode(mode).sample
    torch.testing.assert_close(latents, (mode - vae.config.shift_factor) * vae.config.scaling_factor)
    shown = flux.Flux(own.model).decode(latents, torch.device("cpu"))
    assert shown.shape == (2, 3, 1, 64, 96)
    torch.testing.assert_close(shown[:, :, 0], VaeImageProcessor.denormalize(decoded), atol=1e-5, rtol=1e-5)
    assert (float(shown.min()), float(shown.max())) >= (0.0, 0.0)
    assert float(shown.max()) <= 1


def request_for(own: flux.Flux, true_cfg: float) -> SampleRequest:
    negative = "" if true_cfg > 1 else None
    return SampleRequest(
        prompt="a red circle",
        negative=negative,
        embeds=own.encode_text(["a red circle"]),
        negative_embeds=None if negative is None else own.encode_text([negative]),
        width_px=96,
        height_px=64,
        steps=2,
        guidance=2.5,
        true_cfg=true_cfg,
        seed=7,
    )


@pytest.mark.parametrize("true_cfg", [1.0, 3.0])
def test_a_sample_is_what_the_stock_pipeline_draws(own: flux.Flux, pipeline: Any, true_cfg: float) -> None:
    seen: list[Any] = []
    network = own.load_transformer()
    latents = own.sample(denoise_with(own.layers(network), seen), request_for(own, true_cfg))
    ours = flux.Flux(own.model).decode(latents, torch.device("cpu"))
    theirs = pipeline(
        "a red circle",
        negative_prompt="" if true_cfg > 1 else None,
        width=96,
        height=64,
        num_inference_steps=2,
        guidance_scale=2.5,
        true_cfg_scale=true_cfg,
        max_sequence_length=own.encoders["tokenizer_2"].model_max_length,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).images
    torch.testing.assert_close(ours[:, :, 0], theirs, atol=1e-4, rtol=1e-4)
    assert len(seen) == (4 if true_cfg > 1 else 2)
    assert all(x.guidance_B.tolist() == [2.5] for x in seen)
    assert all(0 < float(x.time_B) <= 1 for x in seen)


def test_freed_encoders_are_gone_but_the_autoencoder_still_decodes(own: flux.Flux) -> None:
    again = flux.Flux(own.model)
    again.load_encoders(torch.device("cpu"))
    latents = again.encode_pixels(torch.zeros(1, 3, 1, 32, 32))["latents"]
    again.free_encoders()
    assert again.encoders == {}
    assert again.decode(latents, torch.device("cpu")).shape == (1, 3, 1, 32, 32)


def test_identities_follow_the_files_that_they_stand_for(model: Path, tmp_path: Path) -> None:
    own = small.family(diffusers_path=str(model))
    other = small.family(diffusers_path=str(model), dtype="bfloat16")
    assert len({own.pixels_identity, own.text_identity, other.pixels_identity, other.text_identity}) == 4
    moved = small.copied_model.__wrapped__(tmp_path)
    for part in ("vae", "text_encoder", "text_encoder_2"):
        for file in (model / part).iterdir():
            (moved / part / file.name).write_bytes(file.read_bytes())
    again = small.family(diffusers_path=str(moved))
    assert (again.pixels_identity, again.text_identity) == (own.pixels_identity, own.text_identity)
    config = moved / "vae" / "config.json"
    config.write_text(config.read_text().replace('"scaling_factor": 0', '"scaling_factor": 1'))
    changed = small.family(diffusers_path=str(moved))
    assert changed.pixels_identity != own.pixels_identity
    assert changed.text_identity == own.text_identity


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_single_file_with_diffusers_keys_takes_the_place_of_the_transformer(model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "transformer" / "diffusion_pytorch_model.safetensors")
    changed = {name: torch.randn_like(tensor) for name, tensor in weights.items()}
    save_file(changed, tmp_path / "other.safetensors")
    own = small.family(diffusers_path=str(model), transformer_path=str(tmp_path / "other.safetensors"))
    network = own.load_transformer()
    assert network.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, changed[name].float()) for name, tensor in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_single_file_in_float8_is_read(dtype: torch.dtype, model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "transformer" / "diffusion_pytorch_model.safetensors")
    small_ones = {name: tensor.to(dtype) for name, tensor in weights.items()}
    save_file(small_ones, tmp_path / "float8.safetensors")
    own = small.family(diffusers_path=str(model), transformer_path=str(tmp_path / "float8.safetensors"))
    loaded = own.load_transformer().state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in small_ones.items())


def test_storage_dtype_of_the_transformer(model: Path) -> None:
    for asked, loaded in (("float16", torch.float16), ("float8", torch.bfloat16)):
        own = small.family(diffusers_path=str(model), dtype="bfloat16", transformer_dtype=asked)
        assert {p.dtype for p in own.load_transformer().parameters()} == {loaded}


@pytest.mark.parametrize("kind", [LoraAdapter, DoraAdapter])
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_a_saved_lora_gives_the_trainers_output_in_the_stock_pipeline(
    kind: type[LoraAdapter], alpha: float | None, tmp_path: Path
) -> None:
    own, asked = small.family(), kind(rank=4, alpha=alpha)
    inputs, _ = small.noised(own, small.batch(), [5, 6])
    network, config = small.lora_network(asked)
    ours = denoise_with(own.layers(network))(inputs)
    weights = {adapters.export_name(name): p.detach() for p, name in small.trained_names(network).items()}
    own.save_adapter(tmp_path, adapters.bake_scale(weights, asked), adapters.export_config(config))

    parts = dict.fromkeys(("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    stock = FluxPipeline(**parts, transformer=small.network())
    before = denoise_with(own.layers(stock.transformer))(inputs)
    stock.load_lora_weights(tmp_path, weight_name="adapter_model.safetensors")
    theirs = denoise_with(own.layers(stock.transformer))(inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert float((ours - before).abs().mean()) > 1e-3
    assert own.load_adapter(tmp_path).keys() == weights.keys()
    assert own.load_adapter(tmp_path / "adapter_model.safetensors").keys() == weights.keys()


@pytest.mark.parametrize("kind", [LoraAdapter, DoraAdapter])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_the_stock_pipeline_reads_a_lora_in_float8(
    kind: type[LoraAdapter], dtype: torch.dtype, tmp_path: Path
) -> None:
    own = small.family()
    inputs, _ = small.noised(own, small.batch(), [5, 6])
    network, config = small.lora_network(kind(rank=4))
    weights = {}
    for parameter, name in small.trained_names(network).items():
        weights[adapters.export_name(name)] = parameter.detach().to(dtype)
        parameter.data = parameter.data.to(dtype).float()
    own.save_adapter(tmp_path, weights, adapters.export_config(config))
    parts = dict.fromkeys(("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    stock = FluxPipeline(**parts, transformer=small.network())
    stock.load_lora_weights(tmp_path, weight_name="adapter_model.safetensors")
    theirs, ours = (denoise_with(own.layers(n))(inputs) for n in (stock.transformer, network))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_diffusers_reads_a_model_in_float8(dtype: torch.dtype, tmp_path: Path) -> None:
    own, network = small.family(), small.network()
    own.config = network.config
    weights = {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}
    own.save_model(tmp_path, weights)
    loaded = FluxTransformer2DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name].float(), tensor.float()) for name, tensor in weights.items())


def test_a_saved_model_loads_in_diffusers(model: Path, tmp_path: Path) -> None:
    own = small.family(diffusers_path=str(model))
    weights = {name: torch.randn_like(t) for name, t in own.load_transformer().state_dict().items()}
    own.save_model(tmp_path, weights)
    loaded = FluxTransformer2DModel.from_pretrained(tmp_path).state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
