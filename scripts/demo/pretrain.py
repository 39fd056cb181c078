"""Pretrain ViT-Micro/8, the demonstration backbone: `python -m scripts.demo.pretrain`.

A CLIP of OpenAI's architecture at toy size learns from two flat emoji styles (Noto, Twemoji) with the symmetric
contrastive loss. The schedule depends on steps, not on time: the same seed and number of threads give the same bits.

Shapes: B images and captions, L tokens, P patches, D width, E joint width.
"""

import argparse
import io
import math
import time
import zipfile
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip.model import CLIP
from clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer

from .augment import Augment
from .captions import SOFT, Caption, Captioner
from .packages import Emoji, fetch_packages, list_pictures, read_emoji, read_rgba

STYLES = ("noto", "twemoji")
SOT, EOT, VOCABULARY = 49406, 49407, 49408
SIZE, SMALL = 48, 32  # pixels; most steps use small images
QUICK_GELU = 1.702
FLAG_WEIGHT = 0.25  # one emoji in eight is a country flag: draw them less often


def build_towers() -> CLIP:
    """ViT-Micro/8, initialised as CLIP is, with SiLU in place of QuickGELU (`fold_activation` undoes it)."""
    model = CLIP(
        embed_dim=128,
        image_resolution=SIZE,
        vision_layers=4,
        vision_width=128,
        vision_patch_size=8,
        context_length=77,
        vocab_size=VOCABULARY,
        transformer_width=128,
        transformer_heads=2,
        transformer_layers=4,
    )
    for tower in (model.transformer, image_tower(model).transformer):
        width, depth = tower.width, tower.layers
        for block in blocks(tower):
            c_fc, c_proj = mlp_layers(block)
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * depth * width) ** -0.5)
            nn.init.normal_(c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(c_proj.weight, std=(2 * depth * width) ** -0.5)
            block.mlp[1] = nn.SiLU()
    return model


def image_tower(model: CLIP) -> VisionTransformer:
    assert isinstance(model.visual, VisionTransformer)
    return model.visual


def blocks(tower: Transformer) -> list[ResidualAttentionBlock]:
    return [block for block in tower.resblocks if isinstance(block, ResidualAttentionBlock)]


def mlp_layers(block: ResidualAttentionBlock) -> tuple[nn.Linear, nn.Linear]:
    c_fc, _, c_proj = block.mlp
    assert isinstance(c_fc, nn.Linear) and isinstance(c_proj, nn.Linear)
    return c_fc, c_proj


@torch.no_grad()
def fold_activation(model: CLIP) -> None:
    """Rescale the MLPs so that QuickGELU, x sigmoid(1.702 x), gives what SiLU, x sigmoid(x), gave."""
    for block in blocks(model.transformer) + blocks(image_tower(model).transformer):
        c_fc, c_proj = mlp_layers(block)
        c_fc.weight.div_(QUICK_GELU)
        c_fc.bias.div_(QUICK_GELU)
        c_proj.weight.mul_(QUICK_GELU)


class Pretraining:
    """The towers, the token table and the auxiliary classifiers.

    The table contains only the tokens that occur in captions and, last, the vector of an unknown word, which all other
    tokens of the vocabulary get.
    """

    def __init__(self, emoji: list[Emoji], captioner: Captioner, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.model = build_towers()
        self.visual = image_tower(self.model)
        vocabulary = [*captioner.vocabulary, SOT, EOT]
        self.tokens = {token: row for row, token in enumerate(vocabulary)}
        self.table = nn.Embedding(len(vocabulary) + 1, self.model.transformer.width)
        nn.init.normal_(self.table.weight, std=0.02)
        counts = (len(emoji), len(captioner.kinds), len(captioner.groups))
        self.heads = nn.ModuleList(nn.Linear(self.visual.output_dim, n) for n in counts)

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Weight decay for matrices, none for embeddings, biases and gains."""
        named = [(n, p) for n, p in self.model.named_parameters() if n != "token_embedding.weight"]
        matrices = [p for n, p in named if p.ndim >= 2 and "embedding" not in n]
        others = [p for n, p in named if p.ndim < 2 or "embedding" in n]
        decayed = matrices + list(self.heads.parameters())
        return [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": [*others, self.table.weight], "weight_decay": 0.0},
        ]

    def encode_image(self, images: Tensor) -> Tensor:
        """Features (B, E) of images of any size."""
        visual = self.visual
        x = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, P, D)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)  # (B, 1 + P, D)
        x = visual.ln_pre(x + self._positions(x.shape[1] - 1))
        x = visual.transformer.encode(x, visual.transformer.dense)  # (B, 1, D)
        return visual.ln_post(x[:, 0]) @ visual.proj

    def _positions(self, patches: int) -> Tensor:
        """Positional embedding (1 + P, D), interpolated when the image is smaller than the tower's."""
        table = self.visual.positional_embedding
        grid, side = math.isqrt(len(table) - 1), math.isqrt(patches)
        if grid == side:
            return table
        square = table[1:].t().reshape(1, -1, grid, grid)
        square = F.interpolate(square, (side, side), mode="bilinear", align_corners=False)
        return torch.cat([table[:1], square.flatten(2)[0].t()])

    def encode_text(self, captions: list[Caption]) -> Tensor:
        """Features (B, E) of captions: the shorter and the longer half, each padded to its longest caption."""
        order = sorted(range(len(captions)), key=lambda i: len(captions[i].ids))
        half = len(order) // 2
        features = [self._encode_padded([captions[i] for i in part]) for part in (order[:half], order[half:])]
        return torch.cat(features)[torch.tensor(order).argsort()]

    def _encode_padded(self, captions: list[Caption]) -> Tensor:
        model, unknown = self.model, len(self.tokens)
        rows = [[self.tokens[SOT], *(self.tokens.get(i, unknown) for i in c.ids), self.tokens[EOT]] for c in captions]
        ends = torch.tensor([len(r) - 1 for r in rows])
        L = int(ends.max()) + 1
        ids = torch.tensor([r + [0] * (L - len(r)) for r in rows])
        soft = torch.tensor([[False, *(i == SOFT for i in c.ids)] + [False] * (L - 1 - len(c.ids)) for c in captions])
        x = self.table(ids)  # (B, L, D)
        x = torch.where(soft[..., None], self._random_tokens(*x.shape), x) + model.positional_embedding[:L]
        x = model.transformer.encode(x, model.transformer.dense, pool=False)
        x = model.ln_final(x[torch.arange(len(x)), ends])  # (B, D)
        return x @ model.text_projection

    def _random_tokens(self, B: int, L: int, D: int) -> Tensor:
        """(B, L, D), with a random scale per caption, up to twice that of trained words."""
        std = 0.01 * 10 ** torch.rand(B, 1, 1, generator=self.generator)
        return std * torch.randn(B, L, D, generator=self.generator)

    def loss(self, images: Tensor, captions: list[Caption], levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Contrastive loss, and the classification loss of the three auxiliary heads.

        An image matches every caption in the batch that describes it.

        Args:
            levels: name, kind and group numbers (B,) of the images.
        """
        features = self.encode_image(images)
        image, text = (F.normalize(f, dim=-1) for f in (features, self.encode_text(captions)))
        logits = self.model.logit_scale.exp() * image @ text.t()  # (B, B)
        truth = torch.stack([levels[c.level] == c.key for c in captions], dim=1).float()
        by_image = -(truth / truth.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
        by_text = -(truth / truth.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
        heads = zip(self.heads, levels, (0.4, 0.4, 0.2), strict=True)
        auxiliary = sum(w * F.cross_entropy(head(features), y, label_smoothing=0.1) for head, y, w in heads)
        return (by_image + by_text) / 2, torch.as_tensor(auxiliary)

    def state_dict(self) -> dict[str, Tensor]:
        """OpenAI's layout in fp16, the whole vocabulary, QuickGELU."""
        fold_activation(self.model)
        weights = dict(self.model.state_dict())
        table = self.table.weight.detach()
        embedding = table[-1].repeat(VOCABULARY, 1)
        embedding[list(self.tokens)] = table[:-1]
        weights["token_embedding.weight"] = embedding
        return {name: value.half() for name, value in weights.items()}


def load_pictures(folder: Path, emoji: list[Emoji]) -> tuple[Tensor, list[list[int]]]:
    """All flat pictures, uint8 (N, 4, 64, 64), and for each emoji the indices of its pictures."""
    styles = [list_pictures(folder, style) for style in STYLES]
    pictures: list[Tensor] = []
    of_emoji: list[list[int]] = []
    for e in emoji:
        files = [style[v] for style in styles for v in e.variants if v in style]
        of_emoji.append(list(range(len(pictures), len(pictures) + len(files))))
        pictures += [torch.from_numpy(read_rgba(f, 64).copy()) for f in files]
    return torch.stack(pictures).permute(0, 3, 1, 2).contiguous(), of_emoji


def learning_rate(step: int, steps: int, peak: float) -> float:
    """The rate at a step: 5 % linear warm-up, then cosine to zero."""
    warm = 0.05 * steps
    return peak * min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(step - warm, 0) / (steps - warm)))


def save_deflated(weights: dict[str, Tensor], path: Path) -> None:
    """Save as a compressed torch archive, which `torch.load` reads like any other."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for item in plain.infolist():
            entry = zipfile.ZipInfo(item.filename, (1980, 1, 1, 0, 0, 0))
            packed.writestr(entry, plain.read(item), zipfile.ZIP_DEFLATED)


def pretrain(packages: Path, out: Path, steps: int, batch: int, peak: float, seed: int) -> None:
    """Train and write the weights to `out`."""
    torch.manual_seed(seed)
    torch.set_num_threads(2)
    everything = read_emoji(packages)
    drawn = list_pictures(packages, "noto").keys() | list_pictures(packages, "twemoji").keys()
    emoji = [e for e in everything if e.key in drawn]
    rng = Random(seed)
    captioner = Captioner(emoji, rng)
    pictures, of_emoji = load_pictures(packages, emoji)
    run = Pretraining(emoji, captioner, seed)
    augment = Augment(run.generator)
    numbers = [torch.arange(len(emoji)), torch.tensor(captioner.kind_of()), torch.tensor(captioner.group_of())]
    weights = torch.tensor([FLAG_WEIGHT if e.subcategory == "country-flag" else 1.0 for e in emoji])
    optimizer = torch.optim.AdamW(run.parameter_groups(0.1), lr=peak, betas=(0.9, 0.98), eps=1e-6)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    print(f"{len(pictures)} pictures of {len(emoji)} emoji, {len(run.tokens)} tokens", flush=True)

    start, seen = time.time(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        concepts = torch.multinomial(weights, batch, generator=run.generator)
        chosen = pictures[[rng.choice(of_emoji[c]) for c in concepts.tolist()]]
        strength = min(1.0, 0.1 + 1.8 * step / steps)
        images = augment(chosen, SMALL if step < 0.6 * steps else SIZE, strength)
        captions = captioner.draw(concepts.tolist())
        contrastive, auxiliary = run.loss(images, captions, [n[concepts] for n in numbers])
        optimizer.zero_grad(set_to_none=True)
        (contrastive + auxiliary).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            run.model.logit_scale.clamp_(0, math.log(100))
        seen += contrastive.item()
        if (step + 1) % 100 == 0:
            seconds = time.time() - start
            left = seconds / (step + 1) * (steps - step - 1)
            print(f"step {step + 1}/{steps} loss {seen / 100:.3f} {seconds:.0f} s, {left:.0f} s left", flush=True)
            seen = 0.0
    save_deflated(run.state_dict(), out)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=root / "build" / "emoji", help="unpacked npm packages")
    parser.add_argument("--out", type=Path, default=root / "build" / "ViT-Micro-8.pt")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    fetch_packages(args.packages)
    pretrain(args.packages, args.out, args.steps, args.batch, args.lr, args.seed)
