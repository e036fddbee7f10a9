"""What is measured of one way, and what follows from it. Pure; kept as JSON between a measurement and its page."""

from collections.abc import Iterable, Sequence
from statistics import quantiles
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

from ss_pipeline.bench.ways import Way

_MEGABYTE: Final = 1_000_000


class Figures(BaseModel):
    """The figures of one way; times in seconds. None where the way has no such thing.

    Args:
        cpu_seconds: User and system time of all processes together, for all jobs.
        steady_per_minute: Jobs a minute between the first and the last tenth of the endings.
        p50, p95: From a job's submission to its publication; all jobs are submitted at once.
        peak_megabytes: Most memory of all processes together, shared pages counted once.
        runs: Dagster runs that worked the jobs off.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    way: Way
    wall_seconds: float
    cpu_seconds: float
    steady_per_minute: float | None = None
    p50: float | None = None
    p95: float | None = None
    peak_megabytes: float | None = None
    runs: int | None = None

    @classmethod
    def of_stack(
        cls, way: Way, *, waits: Sequence[float], ends: Iterable[float], cpu_seconds: float, peak_bytes: int, runs: int
    ) -> Self:
        """The figures of a way through the engine.

        Args:
            waits: Of each job, from its own submission to its publication.
            ends: When each job was published, counted from the first submission.
        """
        ordered = sorted(ends)
        cuts = quantiles(waits, n=20, method="inclusive") if len(waits) > 1 else [*waits] * 19
        return cls(
            way=way,
            wall_seconds=ordered[-1],
            cpu_seconds=cpu_seconds,
            steady_per_minute=steady_rate(ordered),
            p50=cuts[9],
            p95=cuts[18],
            peak_megabytes=peak_bytes / _MEGABYTE,
            runs=runs,
        )

    @property
    def per_minute(self) -> float:
        """Jobs a minute, from the first submission to the last publication."""
        return 60 * self.way.jobs / self.wall_seconds

    @property
    def cpu_per_job(self) -> float:
        """CPU seconds a job."""
        return self.cpu_seconds / self.way.jobs

    def engine_cpu(self, others: Iterable["Figures"]) -> float | None:
        """CPU seconds a job beyond the bare work of the same stages on the same storage, if that was measured."""
        wanted = ("bare-loop", self.way.storage, self.way.stages)
        bare = next((o for o in others if (o.way.how, o.way.storage, o.way.stages) == wanted), None)
        return None if bare is None or self.way.is_bare else self.cpu_per_job - bare.cpu_per_job


class Measurement(BaseModel):
    """One run of the benchmark: on what, with what, when, how it was called, and its figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: dict[str, str]
    versions: dict[str, str]
    at: str
    command: str
    minutes: float
    figures: list[Figures]


def steady_rate(ends: Sequence[float]) -> float | None:
    """Jobs a minute between 10 % and 90 % of the endings (seconds, ascending); None where these are at one moment."""
    first, last = len(ends) // 10, len(ends) - 1 - len(ends) // 10
    seconds = ends[last] - ends[first]
    return 60 * (last - first) / seconds if seconds > 0 else None
