"""The pool's figures as metrics: for Python, as JSON, and as Prometheus text.

All of them come from one `PoolStats`, so a metric never says something else than `pool.stats()`. Labels are names from
the configuration and words from short lists, never ids, so their number is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tabkeeper.pool.stats import Buckets, PoolStats

Source = tuple[Mapping[str, str], PoolStats]
"""The figures of one pool, and the labels that all of its metrics carry."""


class Metrics:
    """The metrics of one pool; get it as ``pool.metrics``."""

    def __init__(self, stats: Callable[[], PoolStats]) -> None:
        self._stats = stats

    def prometheus(self) -> str:
        """Return the metrics of this moment in Prometheus' text format."""
        return exposition([({}, self._stats())])

    def as_dict(self) -> dict[str, list[dict[str, object]]]:
        """Return the same as plain data: by name, a list of ``{"labels": {...}, "value": 1.0}``."""
        found: dict[str, list[dict[str, object]]] = {}
        for family in families([({}, self._stats())]):
            for sample in family.samples:
                row: dict[str, object] = {"labels": dict(sample.labels), "value": float(sample.value)}
                found.setdefault(sample.name, []).append(row)
        return found


def exposition(sources: Sequence[Source]) -> str:
    """Write the figures of one pool, or of several, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(sources))
    return generate_latest(registry).decode()


class _Given(Collector):
    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        return families(self._sources)


class _Families:
    """Metrics by name."""

    def __init__(self) -> None:
        self._gauges: dict[str, GaugeMetricFamily] = {}
        self._counters: dict[str, CounterMetricFamily] = {}
        self._histograms: dict[str, HistogramMetricFamily] = {}

    def __iter__(self) -> Iterator[Metric]:
        yield from self._gauges.values()
        yield from self._counters.values()
        yield from self._histograms.values()

    def gauge(self, name: str, meaning: str, value: float, **labels: str) -> None:
        name = f"tabkeeper_{name}"
        if name not in self._gauges:
            self._gauges[name] = GaugeMetricFamily(name, meaning, labels=list(labels))
        self._gauges[name].add_metric(list(labels.values()), value)

    def counter(self, name: str, meaning: str, value: float, **labels: str) -> None:
        name = f"tabkeeper_{name}"
        if name not in self._counters:
            self._counters[name] = CounterMetricFamily(name, meaning, labels=list(labels))
        self._counters[name].add_metric(list(labels.values()), value)

    def histogram(self, name: str, meaning: str, value: Buckets, **labels: str) -> None:
        name = f"tabkeeper_{name}"
        if name not in self._histograms:
            self._histograms[name] = HistogramMetricFamily(name, meaning, labels=list(labels))
        total, buckets = 0, []
        for bound, count in zip([*value.bounds, math.inf], value.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == math.inf else f"{bound:g}", float(total)))
        self._histograms[name].add_metric(list(labels.values()), buckets=buckets, sum_value=value.total)


def families(sources: Sequence[Source]) -> Iterator[Metric]:
    """Turn figures into metrics; what the ledger knows is the same for all its pools and is told once."""
    made = _Families()
    for common, stats in sources:
        _sessions(made, stats, dict(common))
        _events(made, stats, dict(common))
        _jobs(made, stats, dict(common))
    for _, stats in sources[:1]:
        _money(made, stats)
    return iter(made)


def _sessions(made: _Families, stats: PoolStats, common: dict[str, str]) -> None:
    for place in stats.places:
        made.gauge(
            "sessions",
            "Open sessions",
            place.sessions,
            platform=place.platform,
            provider=place.provider,
            state=place.state,
            **common,
        )
    made.gauge("max_sessions", "Most sessions at once", stats.max_sessions, **common)
    made.gauge("utilisation_ratio", "Share of the places that are leased", stats.utilisation, **common)
    made.gauge("session_age_seconds", "Mean age of open sessions", stats.average_age_seconds, **common)
    for name, platform in stats.platforms.items():
        made.gauge("queue_length", "Requests that wait", platform.queued, platform=name, **common)
    scores: dict[str, list[float]] = {}
    for session in stats.open_sessions:
        scores.setdefault(session.platform, []).append(session.health)
    for name, values in scores.items():
        mean = sum(values) / len(values)
        made.gauge("health_score", "Mean health of open sessions, 0 to 1", mean, platform=name, **common)
        made.gauge("health_score_lowest", "Lowest health", min(values), platform=name, **common)
    made.histogram("queue_wait_seconds", "Time from request to lease", stats.queue_wait, **common)
    for name, seconds in stats.create_seconds.items():
        made.histogram("create_seconds", "Time to create a session", seconds, provider=name, **common)


def _events(made: _Families, stats: PoolStats, common: dict[str, str]) -> None:
    for platform, results in stats.lease_results.items():
        for result, number in results.items():
            made.counter("leases", "Leases that ended", number, platform=platform, result=result, **common)
    made.counter("leases_reused", "Leases on a session that was there", stats.reused, **common)
    for provider, results in stats.creation_results.items():
        for result, number in results.items():
            made.counter(
                "creations", "Sessions asked for", number, provider=provider, result=result, **common
            )
    made.counter("requests_refused", "Requests that got no lease", stats.refused, **common)
    made.counter("leaks", "Leases held suspiciously long", stats.leaks, **common)
    made.counter("reclaimed", "Leases ended because their time was up", stats.reclaimed, **common)
    made.counter("sessions_lost", "Sessions that died under a lease", stats.lost, **common)
    made.counter(
        "evicted_in_use", "Leases that ended for a more important one", stats.evicted_in_use, **common
    )
    for kind, number in stats.errors.items():
        made.counter("use_errors", "Operations that failed", number, kind=kind, **common)
    made.gauge("error_ratio", "Share of ended leases that failed", stats.error_rate, **common)
    health, cleaning = stats.health, stats.cleaning
    made.counter("checks", "Checks", health.checks - health.checks_failed, result="passed", **common)
    made.counter("checks", "Checks", health.checks_failed, result="failed", **common)
    made.counter("recoveries", "Sick sessions that recovered", health.recovered, **common)
    made.gauge("recovery_ratio", "Share of sick sessions that recovered", health.recovery_rate, **common)
    made.counter("refreshes", "Sessions kept alive", health.refreshes, **common)
    prewarm = stats.prewarm
    made.counter("prewarmed", "Sessions created before anybody asked", prewarm.created, **common)
    made.counter("prewarmed_used", "Of those, leased at least once", prewarm.used, **common)
    made.gauge(
        "prewarm_wasted_dollars", "Cost of those never leased", float(prewarm.wasted.dollars), **common
    )
    made.counter("closes", "Sessions whose end was asked for", cleaning.closes, **common)
    made.counter("closes_retried", "Ends not confirmed at first", cleaning.retried, **common)
    made.gauge("cleaning_ratio", "Share of ends confirmed at first", cleaning.first_try_rate, **common)


def _jobs(made: _Families, stats: PoolStats, common: dict[str, str]) -> None:
    for name, job in stats.jobs.items():
        made.counter("job_runs", "Runs of jobs", job.runs, job=name, **common)
        made.counter("job_failures", "Runs that failed", job.failures, job=name, **common)
        if job.last_seconds is not None:
            made.gauge("job_seconds", "Length of the last run", job.last_seconds, job=name, **common)


def _money(made: _Families, stats: PoolStats) -> None:
    for cost in stats.costs:
        where = {"platform": cost.platform, "provider": cost.provider}
        # Not a counter: a correction may lower what was booked.
        made.gauge("cost_dollars", "Cost of closed sessions", float(cost.total.dollars), **where)
        made.gauge("cost_today_dollars", "Of those begun today", float(cost.today.dollars), **where)
    for budget in stats.budgets:
        for name, amount in (("spent", budget.spent), ("held", budget.held), ("limit", budget.limit)):
            made.gauge(
                f"budget_{name}_dollars",
                f"Budgets: {name} in the open window",
                float(amount.dollars),
                budget=budget.name,
            )
    for kind, number in stats.alerts.items():
        made.counter("alerts", "Alerts raised", number, kind=kind)
