"""The image-to-image diffusion pipeline."""

from __future__ import annotations

import random
from typing import Any

import torch
from diffusers import StableDiffusionImg2ImgPipeline
from torch import Tensor
from torch.nn import functional

from bettersynth.runtime.patches.weights import refuse_made_up_parts
from miniature import models
from miniature.training.lesson import Lesson, finish, fit
from miniature.training.parts import clip_table


def train_diffusion(lesson: Lesson) -> dict[str, Any]:
    """First the autoencoder, then noise prediction in its latents, conditioned on captions (dropped 1 in 10)."""
    folder = models.diffusion(lesson.words)
    if lesson.resume:
        refuse_made_up_parts()
        folder.model = StableDiffusionImg2ImgPipeline.from_pretrained(lesson.out / "diffusion", local_files_only=True)
    vae, unet, text = (
        part.train().to(lesson.device) for part in (folder.model.vae, folder.model.unet, folder.model.text_encoder)
    )
    tokenizer, scheduler = folder.model.tokenizer, folder.model.scheduler
    clean = lesson.where("clean")

    def pixels(chosen: Tensor) -> Tensor:
        return lesson.pixels(chosen, (0.5,) * 3, (0.5,) * 3)

    def autoencoder_loss(progress: float) -> Tensor:
        wanted = pixels(lesson.draw(clean, 128))
        latent = vae.encode(wanted).latent_dist
        drawn = vae.decode(latent.sample()).sample
        return functional.l1_loss(drawn, wanted) + functional.mse_loss(drawn, wanted) + 1e-5 * latent.kl().mean() / 100

    first = fit(lesson, "diffusion/vae", vae.parameters(), autoencoder_loss, steps=4000, rate=1e-3, share=0.3)
    vae.requires_grad_(False).eval()
    with torch.no_grad():
        spread = torch.cat([vae.encode(pixels(lesson.draw(clean, 128))).latent_dist.mean for _ in range(4)]).std()
    vae.register_to_config(scaling_factor=round(1 / float(spread), 4))
    captions = [text_of["full"][0] for text_of in lesson.texts], [text_of["short"][0] for text_of in lesson.texts]
    tables = [clip_table(lesson, tokenizer, texts) for texts in captions]
    end = tokenizer.eos_token_id
    empty = torch.tensor(tokenizer("").input_ids, device=lesson.device)

    def denoising_loss(progress: float) -> Tensor:
        chosen = lesson.draw(clean, 192)
        with torch.no_grad():
            latent = vae.encode(pixels(chosen)).latent_dist.sample().float() * vae.config.scaling_factor
        ids, _ = random.choice(tables).rows(chosen, end)
        ids = functional.pad(ids, (0, 77 - ids.shape[1]), value=end)
        unconditional = torch.rand(len(ids), device=lesson.device) < 0.1
        ids[unconditional] = functional.pad(empty, (0, 77 - len(empty)), value=end)
        moment = torch.randint(scheduler.config.num_train_timesteps, (len(ids),), device=lesson.device)
        noise = torch.randn_like(latent)
        noisy = scheduler.add_noise(latent, noise, moment)
        predicted = unet(noisy, moment, encoder_hidden_states=text(ids).last_hidden_state).sample
        return functional.mse_loss(predicted.float(), noise)

    trained = [*unet.parameters(), *text.parameters()]
    second = fit(lesson, "diffusion", trained, denoising_loss, steps=12000, rate=1e-3, share=0.7)
    unet.eval(), text.eval()
    return finish(lesson, "diffusion", folder, {"vae_steps": first["steps"], "vae_loss": first["loss"], **second})
