"""CoPrompt: consistency-guided prompt learning (Roy and Etemad, ICLR 2024, arXiv 2306.01195).

MaPLe with an adapter on the features of each tower, trained to agree with the frozen CLIP: on another view of the
image, and on descriptions of the classes that a language model wrote.

Letters: B images, K classes, D descriptions of a class, E joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import number, one_of, text, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import first_few
from dassl.utils.files import read_json

from .base import ClipTrainer
from .coupled import MultiModalPromptLearner, coupled_options
from .precision import PRECISIONS
from .prompted_clip import PromptedCLIP, unit
from .prompts import IMAGENET_TEMPLATES_SELECT, TEXT_CTX, fill, readable, tokenize
from .teacher import TextTeacher

IMAGE_SHARE, TEXT_SHARE = 0.1, 0.2  # of the adapters' output in the features
TEMPLATES = "templates"  # hand-written prompts instead of descriptions
# The published files are <name>_prompt.json, with these names for the registered ones
FILE_NAMES = {
    **{"ImageNet": "imagenet", "Caltech101": "caltech", "OxfordPets": "oxford_pets", "StanfordCars": "stanford_cars"},
    **{"OxfordFlowers": "oxford_flowers", "Food101": "food101", "FGVCAircraft": "fgvc", "SUN397": "sun397"},
    **{"DescribableTextures": "dtd", "EuroSAT": "eurosat", "UCF101": "ucf101"},
}
_MOST_BYTES = 2**28  # of a file of descriptions


class Adapter(nn.Module):
    """relu(W2 relu(W1 x)) of features (…, E), in fp32."""

    def __init__(self, width: int):
        super().__init__()
        down, up = nn.Linear(width, width // 4, bias=False), nn.Linear(width // 4, width, bias=False)
        self.fc = nn.Sequential(down, nn.ReLU(), up, nn.ReLU())

    def mix(self, features: Tensor, share: float) -> Tensor:
        """Features, of which the adapter's output has a share; normalised."""
        return unit(share * self.fc(features.float()) + (1 - share) * features.float())


class AdaptedCLIP(PromptedCLIP):
    """Prompts in both towers, and an adapter after each."""

    not_in_text = ("adapter_image",)

    def __init__(self, clip_model: CLIP, prompt_learner: MultiModalPromptLearner):
        super().__init__(clip_model, prompt_learner)
        width = clip_model.text_projection.shape[1]
        self.adapter_image, self.adapter_text = Adapter(width), Adapter(width)
        self.teacher_of = lambda texts: TextTeacher(clip_model, [texts])
        self.descriptions: list[TextTeacher] = []  # D; none in an evaluation

    def compute_text_features(self) -> Tensor:
        return self.adapter_text.mix(self.encode_text(), TEXT_SHARE)

    def adapt_image(self, features: Tensor) -> Tensor:
        return self.adapter_image.mix(features, IMAGE_SHARE)


def read_descriptions(path: Path, classnames: Sequence[str]) -> list[list[str]]:
    """D lists of the K classes' descriptions, from a JSON file {class name: D texts}.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a class is missing, the classes have not equally many texts, or a text is too long for CLIP.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no descriptions of the classes in {path}: CoPrompt trains with texts that a language model wrote. Copy "
            "the folder gpt_file of the published code into DATASET.ROOT, or name a JSON file {class name: [texts]}: "
            f"TRAINER.COPROMPT.DESCRIPTIONS FILE; '{TEMPLATES}' takes hand-written prompts instead (not published)"
        )
    content = read_json(path, _MOST_BYTES)
    lists = {readable(str(name)): texts for name, texts in content.items()} if isinstance(content, dict) else {}
    names = [readable(name) for name in classnames]
    if missing := [name for name in names if name not in lists]:
        raise ValueError(f"{path}: no descriptions of {first_few(missing)}; expected {{class name: [texts]}}")
    of_classes = [lists[name] for name in names]
    wrong = [
        name
        for name, texts in zip(names, of_classes, strict=True)
        if not (isinstance(texts, list) and texts and all(isinstance(one, str) and one.strip() for one in texts))
    ]
    if wrong:
        raise ValueError(f"{path}: expected a list of texts for each class, not what is there for {first_few(wrong)}")
    counts = {len(texts) for texts in of_classes}
    if len(counts) > 1:
        raise ValueError(
            f"{path}: expected equally many descriptions of every class, found {min(counts)} to {max(counts)}"
        )
    for texts in of_classes:
        tokenize(texts)  # too long a text is an error now, not in the step that draws it
    return [list(one) for one in zip(*of_classes, strict=True)]


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.COPROMPT = CfgNode()
    cfg.TRAINER.COPROMPT.N_CTX = 2  # prompt tokens in each tower
    cfg.TRAINER.COPROMPT.CTX_INIT = "a photo of a"  # words whose first N_CTX tokens start the context; "" is random
    cfg.TRAINER.COPROMPT.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp
    cfg.TRAINER.COPROMPT.PROMPT_DEPTH = 9  # layers that get prompts of their own, 1 (input only) … number of layers
    cfg.TRAINER.COPROMPT.W = 8.0  # weight of the distances to the frozen CLIP
    cfg.TRAINER.COPROMPT.DISTILL = "cosine"  # distance of the features: cosine or mse
    # JSON file {class name: [texts]}; "" is gpt_file/<name>_prompt.json in DATASET.ROOT, as published
    cfg.TRAINER.COPROMPT.DESCRIPTIONS = ""


declare_ranges(
    "TRAINER.COPROMPT",
    N_CTX=TEXT_CTX,
    CTX_INIT=text(),
    PREC=PRECISIONS,
    PROMPT_DEPTH=whole(1, 100),
    W=number(0, 1e6),
    DISTILL=one_of("cosine", "mse"),
    DESCRIPTIONS=text(),
)


@TRAINER_REGISTRY.register()
class CoPrompt(ClipTrainer):
    """Learned: MaPLe's prompts and maps, and two adapters."""

    config_node = "COPROMPT"
    registered_name = "MultiModalPromptLearner"
    not_loaded = (*ClipTrainer.not_loaded, "model_distill")  # the frozen CLIP in published checkpoints
    draws_once = True

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> AdaptedCLIP:
        learner = MultiModalPromptLearner(
            dataset.classnames, clip_model, options.N_CTX, options.CTX_INIT, options.PROMPT_DEPTH
        )
        return AdaptedCLIP(clip_model, learner)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        return coupled_options(shapes) if "adapter_text.fc.0.weight" in shapes else None

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if cfg.DATALOADER.K_TRANSFORMS != 2:
            raise ValueError(
                f"CoPrompt compares two views of an image, but DATALOADER.K_TRANSFORMS is "
                f"{cfg.DATALOADER.K_TRANSFORMS}: set it to 2, as its config files do"
            )

    def before_train(self) -> None:
        self._descriptions()  # so that an error comes first
        super().before_train()

    def _descriptions(self) -> list[TextTeacher]:
        model = self.model
        if not model.descriptions:
            model.descriptions = [model.teacher_of(texts) for texts in self._read_descriptions()]
        return model.descriptions

    def _read_descriptions(self) -> list[list[str]]:
        given, classnames = self.cfg.TRAINER.COPROMPT.DESCRIPTIONS, self.dm.dataset.classnames
        if given == TEMPLATES:
            return [fill(template, classnames) for template in IMAGENET_TEMPLATES_SELECT]
        name = type(self.dm.dataset).__name__
        published = Path(self.cfg.DATASET.ROOT) / "gpt_file" / f"{FILE_NAMES.get(name, name.lower())}_prompt.json"
        return read_descriptions(Path(given).expanduser() if given else published, classnames)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The two views (2, B, 3, H, W), and labels."""
        return super().parse_batch_train(batch | {"img": torch.stack(batch["img"])})

    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy on the first view; distances to the frozen CLIP on the second and on one description of each
        class, the same for all, drawn anew in every step (section 3.2).
        """
        model = self.model
        descriptions = self._descriptions()
        description = descriptions[int(torch.randint(len(descriptions), ()))]
        image_features, text_features = model.image_features(image[0]), model.text_features()
        logits = model.logits(image_features, text_features)
        weight = self.cfg.TRAINER.COPROMPT.W
        return logits, {
            "ce": self.cross_entropy(logits, label),
            "distill_text": weight * self._distance(text_features, description.features(model.text_encoder)),
            "distill_image": weight * self._distance(image_features, model.without_prompts(image[1])),
        }

    def _distance(self, features: Tensor, teacher: Tensor) -> Tensor:
        """The mean distance of normalised features (N, E)."""
        if self.cfg.TRAINER.COPROMPT.DISTILL == "mse":
            return F.mse_loss(features, teacher)
        return 1 - F.cosine_similarity(features, teacher, eps=1e-7).mean()
