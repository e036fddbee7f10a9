"""What was asked of the engine before it was built, and whether a measurement reaches it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ss_pipeline.bench.figures import Figures

Measure: TypeAlias = Callable[[Figures, Sequence[Figures]], float | None]


@dataclass(frozen=True)
class Target:
    """A bound on one figure of one way."""

    way: str
    what: str
    measure: Measure
    sign: Literal["≤", "≥"]
    bound: float
    unit: str = ""

    def is_met(self, value: float) -> bool:
        """Whether a measured value keeps the bound."""
        return value <= self.bound if self.sign == "≤" else value >= self.bound


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured."""

    target: Target
    value: float

    @property
    def is_met(self) -> bool:
        """Whether the target is reached."""
        return self.target.is_met(self.value)


def _per_minute(figures: Figures, _all: Sequence[Figures]) -> float | None:
    return figures.per_minute


def _engine_cpu(figures: Figures, measured: Sequence[Figures]) -> float | None:
    return figures.engine_cpu(measured)


def _engine_cpu_against_default(figures: Figures, measured: Sequence[Figures]) -> float | None:
    """Engine CPU as a share of the default launcher's at its best, on the same storage and stages."""
    wanted = ("default", figures.way.storage, figures.way.stages)
    default = next(
        (other for other in measured if (other.way.how, other.way.storage, other.way.stages) == wanted), None
    )
    own, its = figures.engine_cpu(measured), default and default.engine_cpu(measured)
    return own / its if own is not None and its else None


TARGETS: Final = (
    Target("warm-sqlite-trivial", "jobs a minute", _per_minute, "≥", 170),
    Target("warm-sqlite-real", "jobs a minute", _per_minute, "≥", 110),
    Target("warm-sqlite-trivial", "engine CPU a job", _engine_cpu, "≤", 0.50, "s"),
    Target("warm-sqlite-trivial", "engine CPU, of the default launcher's", _engine_cpu_against_default, "≤", 0.20),
    Target("claims-sqlite-trivial", "jobs a minute", _per_minute, "≥", 900),
    Target("claims-sqlite-real", "jobs a minute", _per_minute, "≥", 300),
    Target("claims-sqlite-trivial", "engine CPU a job", _engine_cpu, "≤", 0.06, "s"),
    Target("warm-postgres-trivial", "jobs a minute", _per_minute, "≥", 130),
    Target("warm-postgres-real", "jobs a minute", _per_minute, "≥", 90),
)


def verdicts(measured: Sequence[Figures]) -> Iterator[Verdict]:
    """Each target whose ways were measured, and what was measured."""
    for target in TARGETS:
        figures = next((each for each in measured if each.way.name == target.way), None)
        value = target.measure(figures, measured) if figures else None
        if value is not None:
            yield Verdict(target, value)
