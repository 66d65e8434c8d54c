"""Counters and histograms of what happens to every request: plain numbers that the event loop alone changes.

The library's own take a lock, and look whether they may, each time, which is much where a request counts six things.
Here the scrape does the work, on a thread of its own: it may be a request behind.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.samples import Sample

Values = tuple[str, ...]


class Count:
    """One series."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0.0

    def inc(self, amount: float = 1) -> None:
        self.total += amount


class LoopCounter(Count):
    """As a Counter of the library, which says all of it but the numbers. Without labels it is its only series."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), registry: CollectorRegistry = REGISTRY
    ) -> None:
        super().__init__()
        self._labels = labels
        self._shown = Counter(name, documentation, labels, registry=None)
        self._series: dict[Values, Count] = {} if labels else {(): self}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Count()
            self._shown.labels(*values)
        return found

    def describe(self) -> Iterable[Metric]:
        return self._shown.describe()

    def collect(self) -> Iterable[Metric]:
        for family in self._shown.collect():
            family.samples = [self._filled(sample) for sample in family.samples]
            yield family

    def _filled(self, sample: Sample) -> Sample:
        if not sample.name.endswith("_total"):
            return sample
        return sample._replace(value=self._series[_values(sample, self._labels)].total)


class Spread:
    """One series, by the upper bounds of its buckets."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0.0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, amount: float) -> None:
        self.counts[bisect_left(self.bounds, amount)] += 1
        self.total += amount


class LoopHistogram(Spread):
    """As a Histogram of the library, which says all of it but the numbers. Without labels it is its only series."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        registry: CollectorRegistry = REGISTRY,
        *,
        buckets: Sequence[float],
    ) -> None:
        super().__init__(buckets)
        self._labels = labels
        self._shown = Histogram(name, documentation, labels, registry=None, buckets=buckets)
        self._series: dict[Values, Spread] = {} if labels else {(): self}
        registry.register(self)

    def labels(self, *values: str) -> Spread:
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Spread(self.bounds)
            self._shown.labels(*values)
        return found

    def describe(self) -> Iterable[Metric]:
        return self._shown.describe()

    def collect(self) -> Iterable[Metric]:
        # Read once, so that the last bucket is the count whatever happens meanwhile.
        up_to = {values: list(accumulate(series.counts)) for values, series in list(self._series.items())}
        for family in self._shown.collect():
            family.samples = [self._filled(sample, up_to) for sample in family.samples]
            yield family

    def _filled(self, sample: Sample, up_to: dict[Values, list[float]]) -> Sample:
        values = _values(sample, self._labels)
        counts = up_to.get(values, [0.0] * len(self.counts))
        if sample.name.endswith("_bucket"):
            return sample._replace(value=counts[bisect_left(self.bounds, float(sample.labels["le"]))])
        if sample.name.endswith("_count"):
            return sample._replace(value=counts[-1])
        return sample._replace(value=self._series[values].total) if sample.name.endswith("_sum") else sample


def _values(sample: Sample, labels: Sequence[str]) -> Values:
    return tuple(sample.labels[name] for name in labels)
