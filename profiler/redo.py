"""Rule by which rounds are measured again, and when that has to end."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from netlathe.profiler.device import RoundEnd
from netlathe.profiler.errors import DeviceError

DRIFTED_SHARE = 0.25
"""Share of all rounds, and three more, that may be measured again for their drift: a machine that never settles is
corrected like any other."""

MOST_REDONE = 10
"""Number of rounds that may be measured again, for any reason, beyond the number of those that count."""


class RedoRule:
    """Decision, in one campaign, which rounds do not count. `limit` is the largest difference of a round's drift from
    the campaign's median, None for any."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.count = 0
        """Rounds to be measured again so far."""
        self._drifted = 0

    def reason(
        self,
        end: RoundEnd,
        missing_anchors: Sequence[str],
        drifts: Mapping[float, float],
        round_starts: Sequence[float],
    ) -> str:
        """Reason why this round is to be measured again, '' when it counts.

        `drifts` are those of all rounds as known now, this one included, `round_starts` the times at which the
        campaign's earlier rounds started. Raises DeviceError once it makes no sense to go on.
        """
        reason = end.redo or self._cut_off(missing_anchors) or self._off(end.started_at, drifts, round_starts)
        self.count += bool(reason)
        if self.count > MOST_REDONE + len(round_starts) - (self.count - 1):
            raise DeviceError(
                f"{self.count} of {len(round_starts) + 1} rounds had to be measured again (now: {reason}); what is "
                "measured is kept. Let the device cool, close other programs, and run the same command again"
            )
        return reason

    @staticmethod
    def _cut_off(missing_anchors: Sequence[str]) -> str:
        return f"cut off before {len(missing_anchors)} anchors" if missing_anchors else ""

    def _off(self, started_at: float, drifts: Mapping[float, float], round_starts: Sequence[float]) -> str:
        if self.limit is None or self._drifted >= 3 + DRIFTED_SHARE * len(round_starts):
            return ""
        drift = drifts[started_at]
        off = drift / statistics.median([drift, *(drifts[start] for start in round_starts if start in drifts)]) - 1
        if abs(off) <= self.limit:
            return ""
        self._drifted += 1
        return f"drift {drift:.3f}, {100 * off:+.1f} % off this campaign's"
