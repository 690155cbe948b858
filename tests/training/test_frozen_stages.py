"""Freezing of stages."""

from __future__ import annotations

import pytest

from twinned.errors import SettingError
from twinned.nn.encoders.convnets import Conv4
from twinned.nn.siamese import SiameseNetwork
from twinned.training.frozen_stages import freeze_parts, frozen_stages


@pytest.mark.parametrize(("freeze", "expected"), [("none", 0), ("all", 4), ("0", 0), ("3", 3)])
def test_frozen_stages_are_counted_from_the_input(freeze, expected):
    assert frozen_stages(Conv4(embedding_size=8), freeze) == expected


@pytest.mark.parametrize("freeze", ["some", "5", "-1"])
def test_invalid_numbers_of_stages_are_refused(freeze):
    with pytest.raises(SettingError, match=f"at most 4; got '{freeze}'"):
        frozen_stages(Conv4(embedding_size=8), freeze)


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_frozen_stages_have_no_gradient_and_keep_statistics(batchnorm, projection):
    network = SiameseNetwork(Conv4(embedding_size=8)).train()
    assert freeze_parts(network, 2, batchnorm=batchnorm, projection=projection)
    stages = network.encoder.stages()
    for number, stage in enumerate(stages):
        trainable = number >= 2 and not (projection and number == len(stages) - 1)
        assert all(parameter.requires_grad == trainable for parameter in stage.parameters())
    for number, block in enumerate(network.encoder.blocks):
        assert block[0].training == (number >= 2)
        assert block[1].training == (number >= 2 and not batchnorm)


def test_nothing_is_trainable_with_all_stages_and_the_projection_frozen():
    network = SiameseNetwork(Conv4(embedding_size=8))
    assert not freeze_parts(network, 4, projection=True)
    assert freeze_parts(network, 4)
