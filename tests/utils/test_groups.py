"""Members and ranks of groups, compared with loops."""

from __future__ import annotations

import numpy as np
import pytest

from twinned.utils.groups import members, rank_within_group


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_members_equal_a_loop(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 9, 40).astype(str)
    seen: dict[str, list[int]] = {}
    ranks = []
    for index, label in enumerate(labels.tolist()):
        ranks.append(len(seen.setdefault(label, [])))
        seen[label].append(index)
    assert rank_within_group(labels).tolist() == ranks
    assert [index.tolist() for index in members(labels)] == [seen[label] for label in sorted(seen)]


def test_empty_input_has_no_groups() -> None:
    assert members(np.array([], np.str_)) == []
    assert rank_within_group(np.array([], np.str_)).shape == (0,)
