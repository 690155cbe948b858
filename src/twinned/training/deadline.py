"""Time budget of a training run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Budget:
    """Time for one part of a run.

    Args:
        deadline: End of the run on the monotonic clock, in seconds; None for unlimited time.
        fraction: Fraction of the time until the deadline that belongs to this part, in (0, 1].
        reserved: Seconds before the deadline that are kept for the work after this part.

    Example:
        >>> Budget(time.monotonic() + 100).reserve(20).share(0.5).remaining() <= 40
        True
        >>> Budget().share(0.5).remaining() is None
        True
    """

    deadline: float | None = None
    fraction: float = 1.0
    reserved: float = 0.0

    def share(self, fraction: float) -> Budget:
        """Return the budget of a part that takes a fraction of this one."""
        return replace(self, fraction=self.fraction * fraction)

    def reserve(self, seconds: float) -> Budget:
        """Return a budget that keeps some seconds before the deadline for later work."""
        return replace(self, reserved=self.reserved + seconds)

    def remaining(self) -> float | None:
        """Return the seconds left for this part, negative after the deadline; None for unlimited time."""
        if self.deadline is None:
            return None
        return self.fraction * (self.deadline - time.monotonic() - self.reserved)
