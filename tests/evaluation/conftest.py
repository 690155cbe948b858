"""Fixture with fewer bootstrap replicates, for tests that do not check intervals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from twinned.evaluation import thresholds, verification
from twinned.metrics import bootstrap
from twinned.metrics.comparisons import Comparisons
from twinned.metrics.roc import Roc


@pytest.fixture
def few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resample 10 times instead of 200; `tests/metrics/test_bootstrap.py` checks the intervals."""

    def replicates(comparisons: Comparisons, *, count: int, seed: int) -> Iterator[Roc]:
        return bootstrap.replicates(comparisons, count=min(count, 10), seed=seed)

    for module in (thresholds, verification):
        monkeypatch.setattr(module, "replicates", replicates)
