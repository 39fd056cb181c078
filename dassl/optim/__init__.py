from dassl.optim.lr_scheduler import AVAI_SCHEDS, build_lr_scheduler
from dassl.optim.optimizer import AVAI_OPTIMS, build_optimizer

__all__ = ["AVAI_OPTIMS", "AVAI_SCHEDS", "build_lr_scheduler", "build_optimizer"]
