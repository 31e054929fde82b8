from types import SimpleNamespace
from typing import Any

import pytest

from leyden.errors import UsageError
from leyden_datamodules.fashion_mnist import FashionMNIST


def test_a_process_is_never_left_without_evaluation_data(fashion_mnist: dict[str, Any]) -> None:
    data = FashionMNIST(**{**fashion_mnist, "val_size": 2})
    data.setup("fit")
    trainer: Any = SimpleNamespace(global_rank=1, world_size=3)
    data.trainer = trainer
    with pytest.raises(UsageError, match=r"val has too few items \(2\) for 3 processes: .* --trainer.devices 2"):
        data.val_dataloader()
    trainer.world_size = 2
    assert len(data.val_dataloader()) == 1
