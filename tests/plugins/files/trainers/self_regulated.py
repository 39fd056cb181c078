"""Independent prompts regulated by a frozen CLIP and by an average over epochs, in the style of PromptSRC.

Its config node, TRAINER.PROMPTSRC, comes from its YAML file alone.
"""

import copy
import os.path as osp

import numpy as np
import torch
import torch.nn as nn
from torch.cuda.amp import GradScaler, autocast
from torch.nn import functional as F

from clip import clip
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, load_pretrained_weights

_tokenizer = _Tokenizer()

TEACHER_TEMPLATES = ["a photo of a {}.", "a picture of the {}.", "art of the {}."]


def load_clip_to_cpu(cfg, zero_shot_model=False):
    path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    model, weights = None, None
    try:
        model = torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError:  # not an archive but saved weights
        weights = torch.load(path, map_location="cpu")
    node = cfg.TRAINER.PROMPTSRC
    design_details = {
        "trainer": "IVLP",
        "vision_depth": 0 if zero_shot_model else node.PROMPT_DEPTH_VISION,
        "language_depth": 0 if zero_shot_model else node.PROMPT_DEPTH_TEXT,
        "vision_ctx": 0 if zero_shot_model else node.N_CTX_VISION,
        "language_ctx": 0 if zero_shot_model else node.N_CTX_TEXT,
    }
    return clip.build_model(weights or model.state_dict(), design_details)


class TextEncoder(nn.Module):
    def __init__(self, clip_model):
        super().__init__()
        self.transformer = clip_model.transformer
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.dtype = clip_model.dtype

    def forward(self, prompts, tokenized_prompts):
        x = prompts + self.positional_embedding.type(self.dtype)
        x = self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)  # the transformer takes (L, K, D)
        x = self.ln_final(x).type(self.dtype)
        eot = tokenized_prompts.argmax(dim=-1)
        return x[torch.arange(len(x)), eot] @ self.text_projection


class VLPromptLearner(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        n_ctx = cfg.TRAINER.PROMPTSRC.N_CTX_TEXT
        ctx_init = cfg.TRAINER.PROMPTSRC.CTX_INIT.replace("_", " ")
        dtype = clip_model.dtype
        assert cfg.TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT >= 1, "language prompting needs a depth of at least 1"
        assert ctx_init and n_ctx <= 4
        with torch.no_grad():
            embedding = clip_model.token_embedding(clip.tokenize(ctx_init)).type(dtype)
        self.ctx = nn.Parameter(embedding[0, 1 : 1 + n_ctx, :])

        classnames = [name.replace("_", " ") for name in classnames]
        prompts = [f"{ctx_init} {name}." for name in classnames]
        tokenized_prompts = torch.cat([clip.tokenize(p) for p in prompts])

        # The teacher: CLIP without any prompt, its text features averaged over templates
        teacher = load_clip_to_cpu(cfg, True).float()
        self.ZS_image_encoder = teacher.visual
        with torch.no_grad():
            embedding = clip_model.token_embedding(tokenized_prompts).type(dtype)
            features = [
                teacher.encode_text(torch.cat([clip.tokenize(template.format(name)) for name in classnames]))
                for template in TEACHER_TEMPLATES
            ]
        self.fixed_embeddings = torch.stack(features).mean(dim=0)
        self.register_buffer("token_prefix", embedding[:, :1, :])
        self.register_buffer("token_suffix", embedding[:, 1 + n_ctx :, :])
        self.n_cls = len(classnames)
        self.tokenized_prompts = tokenized_prompts

    def forward(self):
        ctx = self.ctx.expand(self.n_cls, -1, -1)
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.prompt_learner = VLPromptLearner(cfg, classnames, clip_model)
        self.tokenized_prompts = self.prompt_learner.tokenized_prompts
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype
        self.n_cls = len(classnames)

    def forward(self, image, label=None):
        logit_scale = self.logit_scale.exp()
        text_features = self.text_encoder(self.prompt_learner(), self.tokenized_prompts)
        text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        image_features = self.image_encoder(image.type(self.dtype))
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        logits = logit_scale * image_features @ text_features.t()
        if not self.prompt_learner.training:
            return logits
        with torch.no_grad():
            fixed = F.normalize(self.prompt_learner.fixed_embeddings.to(image.device), dim=-1)
            zs_image = F.normalize(self.prompt_learner.ZS_image_encoder(image.type(self.dtype)), dim=-1)
            zs_logits = logit_scale * zs_image @ fixed.t()
        return F.cross_entropy(logits, label), text_features, fixed, image_features, zs_image, logits, zs_logits


@TRAINER_REGISTRY.register()
class SelfRegulated(TrainerX):
    def check_cfg(self, cfg):
        assert cfg.TRAINER.PROMPTSRC.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        clip_model = load_clip_to_cpu(cfg)
        if cfg.TRAINER.PROMPTSRC.PREC == "fp32" or cfg.TRAINER.PROMPTSRC.PREC == "amp":
            clip_model.float()
        self.model = CustomCLIP(cfg, self.dm.dataset.classnames, clip_model)

        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_("VPT" in name)
            elif "ZS_image_encoder" in name:
                param.requires_grad_(False)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("VLPromptLearner", self.model, self.optim, self.sched)

        # The tested weights are an average over epochs, weighted by a Gaussian of the epoch
        self.total_epochs = cfg.OPTIM.MAX_EPOCH
        self.step_counter = 1
        gauss = self.get_gauss(cfg.TRAINER.PROMPTSRC.GPA_MEAN, cfg.TRAINER.PROMPTSRC.GPA_STD)
        self.gauss = gauss(np.arange(1, self.total_epochs + 1))
        self.gauss /= self.gauss.sum()
        self.scaler = GradScaler() if cfg.TRAINER.PROMPTSRC.PREC == "amp" else None
        self.previous_model_gpa = None

        if torch.cuda.device_count() > 1:
            self.model = nn.DataParallel(self.model)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        model, optim, scaler = self.model, self.optim, self.scaler
        if self.cfg.TRAINER.PROMPTSRC.PREC == "amp":
            with autocast():
                loss = self.total_loss(model(image, label))
            optim.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optim)
            scaler.update()
        else:
            loss = self.total_loss(model(image, label))
            optim.zero_grad()
            loss.backward()
            optim.step()

        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
            weighted = self.state_dict_weighting(copy.deepcopy(model.state_dict()), self.gauss[self.step_counter - 1])
            first = self.previous_model_gpa is None
            self.previous_model_gpa = weighted if first else self.state_dict_add(weighted, self.previous_model_gpa)
            self.step_counter += 1
            if self.step_counter > self.total_epochs:
                model.load_state_dict(self.previous_model_gpa, strict=False)
        return {"loss": loss.item()}

    def total_loss(self, outputs):
        loss_ce, text_features, fixed, image_features, zs_image, logits, zs_logits = outputs
        node = self.cfg.TRAINER.PROMPTSRC
        text_loss = node.TEXT_LOSS_WEIGHT * F.l1_loss(text_features, fixed)
        image_loss = node.IMAGE_LOSS_WEIGHT * F.l1_loss(image_features, zs_image)
        soft = F.kl_div(logits.log_softmax(dim=1), zs_logits.log_softmax(dim=1), reduction="batchmean", log_target=True)
        n_iter = self.epoch * self.num_batches + self.batch_idx
        self.write_scalar("train/scl_text", text_loss.item(), n_iter)
        self.write_scalar("train/scl_image", image_loss.item(), n_iter)
        return loss_ce + text_loss + image_loss + soft

    def state_dict_weighting(self, weights, factor):
        for key in weights:
            weights[key] = weights[key] * factor
        return weights

    def state_dict_add(self, weights, others):
        return {key: others[key] + value for key, value in weights.items()}

    def get_gauss(self, mean, std):
        return lambda epoch: np.exp(-(((epoch - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        if not directory:
            return
        file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            path = osp.join(directory, name, file)
            if not osp.exists(path):
                raise FileNotFoundError(path)
            checkpoint = load_checkpoint(path)
            weights = checkpoint["state_dict"]
            for key in ("prompt_learner.token_prefix", "prompt_learner.token_suffix"):
                if key in weights:
                    del weights[key]
            print(f"{name}: epoch {checkpoint['epoch']} from {path}")
            self._models[name].load_state_dict(weights, strict=False)
