"""CoOp with another loss: a subclass of a registered trainer in the same folder."""

import torch
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy

from .coop import CoOp


def extend_cfg(cfg):
    cfg.TRAINER.COOP.ALPHA = 1.0


@TRAINER_REGISTRY.register()
class WeightedCoOp(CoOp):
    """Cross entropy where hard images count more."""

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        losses = F.cross_entropy(output, label, reduction="none")
        weights = torch.softmax(self.cfg.TRAINER.COOP.ALPHA * losses.detach(), dim=0)
        loss = (weights * losses).sum()
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}
