"""Multi-modal prompts in the style of the single-file trainers of MaPLe's time.

The towers are called the way such files call them: `build_model(state_dict, design_details)`, a list through the
text transformer, the shared context and the deep prompts as arguments of the image encoder.
"""

import copy
import os.path as osp

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


def load_clip_to_cpu(cfg):
    path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    model, weights = None, None
    try:
        model = torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError:  # not an archive but saved weights
        weights = torch.load(path, map_location="cpu")
    design_details = {
        "trainer": "MaPLe",
        "vision_depth": 0,
        "language_depth": 0,
        "vision_ctx": 0,
        "language_ctx": 0,
        "maple_length": cfg.TRAINER.MAPLE.N_CTX,
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

    def forward(self, prompts, tokenized_prompts, deep_prompts):
        x = (prompts + self.positional_embedding.type(self.dtype)).permute(1, 0, 2)  # (L, K, D)
        outputs = self.transformer([x, deep_prompts, 0])  # the third counts the prompts that were used
        x = self.ln_final(outputs[0].permute(1, 0, 2)).type(self.dtype)
        return x[torch.arange(len(x)), tokenized_prompts.argmax(dim=-1)] @ self.text_projection


class MultiModalPromptLearner(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        n_cls = len(classnames)
        n_ctx = cfg.TRAINER.MAPLE.N_CTX
        ctx_init = cfg.TRAINER.MAPLE.CTX_INIT
        dtype = clip_model.dtype
        ctx_dim = clip_model.ln_final.weight.shape[0]
        vis_dim = clip_model.visual.conv1.weight.shape[0]
        deeper = cfg.TRAINER.MAPLE.PROMPT_DEPTH - 1
        assert deeper >= 0
        assert cfg.INPUT.SIZE[0] == clip_model.visual.input_resolution

        if ctx_init and n_ctx <= 4:
            words = ctx_init.replace("_", " ")
            with torch.no_grad():
                start = clip_model.token_embedding(clip.tokenize(words)).type(dtype)[0, 1 : 1 + n_ctx]
        else:
            words = " ".join(["X"] * n_ctx)
            start = nn.init.normal_(torch.empty(n_ctx, ctx_dim, dtype=dtype), std=0.02)
        self.ctx = nn.Parameter(start)
        self.proj = nn.Linear(ctx_dim, vis_dim)
        self.compound_prompts_text = nn.ParameterList(
            [nn.Parameter(nn.init.normal_(torch.empty(n_ctx, ctx_dim), std=0.02)) for _ in range(deeper)]
        )
        layer = nn.Linear(ctx_dim, vis_dim)
        self.compound_prompt_projections = nn.ModuleList([copy.deepcopy(layer) for _ in range(deeper)])

        classnames = [name.replace("_", " ") for name in classnames]
        self.name_lens = [len(_tokenizer.encode(name)) for name in classnames]
        prompts = [f"{words} {name}." for name in classnames]
        tokenized_prompts = torch.cat([clip.tokenize(p) for p in prompts])  # (n_cls, n_tkn)
        with torch.no_grad():
            embedding = clip_model.token_embedding(tokenized_prompts).type(dtype)
        self.register_buffer("token_prefix", embedding[:, :1, :])
        self.register_buffer("token_suffix", embedding[:, 1 + n_ctx :, :])
        self.n_cls = n_cls
        self.tokenized_prompts = tokenized_prompts

    def forward(self):
        ctx = self.ctx.expand(self.n_cls, -1, -1)
        prompts = torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)
        pairs = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        deep_vision = [project(prompt) for project, prompt in pairs]
        return prompts, self.proj(self.ctx), self.compound_prompts_text, deep_vision


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.prompt_learner = MultiModalPromptLearner(cfg, classnames, clip_model)
        self.tokenized_prompts = self.prompt_learner.tokenized_prompts
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def forward(self, image, label=None):
        prompts, shared_ctx, deep_text, deep_vision = self.prompt_learner()
        text_features = self.text_encoder(prompts, self.tokenized_prompts, deep_text)
        image_features = self.image_encoder(image.type(self.dtype), shared_ctx, deep_vision)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        logits = self.logit_scale.exp() * image_features @ text_features.t()
        if self.prompt_learner.training:
            return F.cross_entropy(logits, label)
        return logits


@TRAINER_REGISTRY.register()
class CoupledPrompts(TrainerX):
    def check_cfg(self, cfg):
        assert cfg.TRAINER.MAPLE.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        classnames = self.dm.dataset.classnames
        clip_model = load_clip_to_cpu(cfg)
        if cfg.TRAINER.MAPLE.PREC == "fp32" or cfg.TRAINER.MAPLE.PREC == "amp":
            clip_model.float()
        self.model = CustomCLIP(cfg, classnames, clip_model)

        for name, param in self.model.named_parameters():
            param.requires_grad_("prompt_learner" in name or "VPT" in name)
        print("Learned:", {name for name, param in self.model.named_parameters() if param.requires_grad})

        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("MultiModalPromptLearner", self.model, self.optim, self.sched)
        self.scaler = GradScaler() if cfg.TRAINER.MAPLE.PREC == "amp" else None

        if torch.cuda.device_count() > 1:
            print(f"On {torch.cuda.device_count()} GPUs")
            self.model = nn.DataParallel(self.model)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        amp = self.cfg.TRAINER.MAPLE.PREC == "amp"
        with autocast(enabled=amp):
            loss = self.model(image, label)
        self.optim.zero_grad()
        if amp:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()
        else:
            loss.backward()
            self.optim.step()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}

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
