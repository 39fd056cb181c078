"""CoOp with a pull towards hand-written prompts, in the style of the single-file trainers of CoOp's time.

It has its own text encoder over CLIP's transformer, prompt assembly, weight loading and mixed precision.
"""

import os.path as osp

import torch
import torch.nn as nn
from torch.cuda.amp import GradScaler, autocast
from torch.nn import functional as F
from yacs.config import CfgNode as CN

from clip import clip
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, load_pretrained_weights

_tokenizer = _Tokenizer()

TEMPLATES = {"OxfordPets": "a photo of a {}, a type of pet.", "Emoji": "a picture of a {}."}


def extend_cfg(cfg):
    """CoOp's whole node again, with one new key, as such repositories declare it."""
    cfg.TRAINER.COOP = CN()
    cfg.TRAINER.COOP.N_CTX = 4
    cfg.TRAINER.COOP.CSC = False
    cfg.TRAINER.COOP.CTX_INIT = "a photo of a"
    cfg.TRAINER.COOP.PREC = "fp16"
    cfg.TRAINER.COOP.W = 8.0


def load_clip_to_cpu(cfg):
    path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    model, weights = None, None
    try:
        model = torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError:  # not an archive but saved weights
        weights = torch.load(path, map_location="cpu")
    return clip.build_model(weights or model.state_dict())


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


class PromptLearner(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        n_ctx = cfg.TRAINER.COOP.N_CTX
        ctx_init = cfg.TRAINER.COOP.CTX_INIT
        dtype = clip_model.dtype
        ctx_dim = clip_model.ln_final.weight.shape[0]
        clip_imsize = clip_model.visual.input_resolution
        assert cfg.INPUT.SIZE[0] == clip_imsize, f"set INPUT.SIZE to {clip_imsize}"

        words = ctx_init.replace("_", " ") if ctx_init else " ".join(["X"] * n_ctx)
        n_ctx = len(words.split(" "))
        if ctx_init:
            with torch.no_grad():
                start = clip_model.token_embedding(clip.tokenize(words)).type(dtype)[0, 1 : 1 + n_ctx]
        else:
            start = nn.init.normal_(torch.empty(n_ctx, ctx_dim, dtype=dtype), std=0.02)
        self.ctx = nn.Parameter(start)

        classnames = [name.replace("_", " ") for name in classnames]
        self.name_lens = [len(_tokenizer.encode(name)) for name in classnames]
        prompts = [f"{words} {name}." for name in classnames]
        tokenized_prompts = torch.cat([clip.tokenize(p) for p in prompts])
        with torch.no_grad():
            embedding = clip_model.token_embedding(tokenized_prompts).type(dtype)
            template = TEMPLATES.get(cfg.DATASET.NAME, "a photo of a {}.")
            guide = clip_model.encode_text(torch.cat([clip.tokenize(template.format(name)) for name in classnames]))
        self.guide = guide / guide.norm(dim=-1, keepdim=True)

        # Saved with the model, but removed in load_model
        self.register_buffer("token_prefix", embedding[:, :1, :])  # SOS
        self.register_buffer("token_suffix", embedding[:, 1 + n_ctx :, :])  # CLS, EOS
        self.n_cls = len(classnames)
        self.tokenized_prompts = tokenized_prompts

    def forward(self):
        ctx = self.ctx.expand(self.n_cls, -1, -1)
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.prompt_learner = PromptLearner(cfg, classnames, clip_model)
        self.tokenized_prompts = self.prompt_learner.tokenized_prompts
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def forward(self, image):
        image_features = self.image_encoder(image.type(self.dtype))
        text_features = self.text_encoder(self.prompt_learner(), self.tokenized_prompts)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        logits = self.logit_scale.exp() * image_features @ text_features.t()
        guide = self.prompt_learner.guide.to(text_features.device)
        pull = 1.0 - torch.mean(nn.CosineSimilarity(dim=1)(text_features, guide))
        return logits, pull


@TRAINER_REGISTRY.register()
class GuidedCoOp(TrainerX):
    def check_cfg(self, cfg):
        assert cfg.TRAINER.COOP.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        classnames = self.dm.dataset.classnames

        clip_model = load_clip_to_cpu(cfg)
        if cfg.TRAINER.COOP.PREC == "fp32" or cfg.TRAINER.COOP.PREC == "amp":
            clip_model.float()
        self.model = CustomCLIP(cfg, classnames, clip_model)
        self.w = cfg.TRAINER.COOP.W

        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_(False)

        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)

        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)
        self.scaler = GradScaler() if cfg.TRAINER.COOP.PREC == "amp" else None

        if torch.cuda.device_count() > 1:
            print(f"On {torch.cuda.device_count()} GPUs")
            self.model = nn.DataParallel(self.model)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        prec = self.cfg.TRAINER.COOP.PREC
        if prec == "amp":
            with autocast():
                output, pull = self.model(image)
                loss = F.cross_entropy(output, label) + self.w * pull
            self.optim.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()
        else:
            output, pull = self.model(image)
            loss = F.cross_entropy(output, label) + self.w * pull
            self.model_backward_and_update(loss)

        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "pull": pull.item(), "acc": compute_accuracy(output, label)[0].item()}

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def model_inference(self, input):
        return self.model(input)[0]

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
            for key in ("token_prefix", "token_suffix"):  # of the classes trained on
                if key in weights:
                    del weights[key]
            print(f"{name}: epoch {checkpoint['epoch']} from {path}")
            self._models[name].load_state_dict(weights, strict=False)
