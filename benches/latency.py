"""How long events took to become part of a balance, as the service itself counted it."""

from __future__ import annotations

from dataclasses import dataclass

from deployment import Metrics

EVENT_TO_BALANCE = "event_to_balance_seconds"


@dataclass(frozen=True)
class Latency:
    """The histogram of what came between two readings: events at most so many seconds old, by bound."""

    buckets: list[tuple[float, int]]

    @classmethod
    def between(cls, first: Metrics, last: Metrics) -> Latency:
        def cumulative(metrics: Metrics) -> dict[float, int]:
            found = metrics.of(f"{EVENT_TO_BALANCE}_bucket")
            return {float(labels["le"]): int(value) for labels, value in found}

        before = cumulative(first)
        return cls([(bound, count - before[bound]) for bound, count in sorted(cumulative(last).items())])

    @property
    def count(self) -> int:
        return self.buckets[-1][1]

    def above(self, seconds: float) -> int:
        """Events later than the bound that is not below that."""
        return self.count - next(count for bound, count in self.buckets if bound >= seconds)

    def quantile_s(self, share: float) -> float:
        """Linear inside its bucket, as Prometheus reckons it."""
        wanted = self.count * share
        lower, below = 0.0, 0
        for bound, count in self.buckets:
            if count >= wanted and count > below:
                return lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / (count - below)
            lower, below = bound, count
        return lower
