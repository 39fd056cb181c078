"""What the count of reads sees."""

import torch

from tests.reads import Reads


def test_what_counts_as_a_read() -> None:
    x = torch.ones(3, requires_grad=True)
    optim = torch.optim.Adam([x])  # counts its steps in a tensor
    with Reads() as found:
        loss = x.square().sum()
        loss.backward()
        optim.step()
    assert found == {}
    with Reads() as found:
        assert loss.item() == 3 and loss > 2 and x.detach()[x > 5].tolist() == [] and torch.isfinite(loss).all()
    assert found == {"_local_scalar_dense": 3, "index": 1, "tolist": 1}
