"""Whether the numbers in a draft's text are those of the profile or the requirement.

A number is held against what the text can be about: the sizes of the files and the statistics of the columns that the
draft or its text names. Whether a statement about a right number is right is a person's business.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.jobs.profiles import ColumnProfile, DatasetProfile
from ss_pipeline.llm.base import DraftRequest

_NUMBER: Final = re.compile(
    r"(?<![A-Za-z0-9_.,#])[-−]?(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"(?:\s?(?P<unit>%|％|万|亿|thousand|million|billion|k\b))?(?![A-Za-z0-9_])"
)
_UNITS: Final = {"万": 1e4, "亿": 1e8, "thousand": 1e3, "k": 1e3, "million": 1e6, "billion": 1e9}
_METHOD_NUMBERS: Final = frozenset([*range(13), 90, 95, 99, 100, 0.01, 0.05, 0.1, 0.001])
"""Numbers that texts about methods have: counts of a few, levels of confidence and significance."""


@dataclass(frozen=True)
class Quoted:
    """A number as it stands in a text.

    Args:
        slack: By how much the number meant may differ, since this one is rounded.
        is_percent: Whether it may be a share times a hundred.
    """

    text: str
    value: float
    slack: float
    is_percent: bool

    def means(self, number: float) -> bool:
        """Whether it is this number, as far as it is written out; the sign is left open ("fell by 3")."""
        candidates = (number, number * 100) if self.is_percent else (number,)
        return any(abs(abs(known) - self.value) <= self.slack * (1 + 1e-9) for known in candidates)


def ungrounded(answer: DraftAnswer, request: DraftRequest) -> list[str]:
    """The numbers of the draft's text that neither the profile nor the requirement has, as they are written."""
    quoted = list(numbers_in(answer.draft_text))
    if not quoted:
        return []
    known = [*_numbers_known(answer, request)]
    return [
        number.text
        for number in quoted
        if number.value not in _METHOD_NUMBERS and not any(number.means(one) for one in known)
    ]


def numbers_in(text: str) -> Iterator[Quoted]:
    """The numbers of a text; not those within words (`R2`, `2SLS`, `x_12`)."""
    for match in _NUMBER.finditer(text):
        digits, unit = match["digits"].replace(",", ""), match["unit"] or ""
        scale = _UNITS.get(unit, 1.0)
        decimals = len(digits.partition(".")[2])
        step = 10.0**-decimals if decimals else 10.0 ** _trailing_zeros(digits)
        is_percent = unit in {"%", "％"}
        yield Quoted(match[0].strip(), value=float(digits) * scale, slack=step * scale / 2, is_percent=is_percent)


def _trailing_zeros(digits: str) -> int:
    """Places that may be rounded: `1,200` may be 1,217, but `100` is not 60."""
    return min(len(digits) - len(digits.rstrip("0")), max(len(digits) - 2, 0))


def _numbers_known(answer: DraftAnswer, request: DraftRequest) -> Iterator[float]:
    yield from (number.value for number in numbers_in(request.requirement))
    named = frozenset(answer.columns_named())
    for dataset in request.profile.datasets:
        yield from (dataset.rows, dataset.columns_total)
        for column in dataset.columns:
            if column.name in named or column.name in answer.draft_text:
                yield from _numbers_of(column, dataset)


def _numbers_of(column: ColumnProfile, dataset: DatasetProfile) -> Iterator[float]:
    statistics = (column.min, column.max, column.mean, column.std, column.p25, column.p50, column.p75)
    yield from (float(value) for value in statistics if isinstance(value, int | float) and math.isfinite(value))
    yield from (column.count, column.missing, column.distinct)
    if dataset.rows:
        yield from (column.missing / dataset.rows, column.count / dataset.rows)
    for text in (column.name, column.label, *column.value_labels.values(), str(column.min), str(column.max)):
        yield from (float(digits) for digits in re.findall(r"\d+(?:\.\d+)?", text)[:20])
    yield from (float(code) for code in column.value_labels if re.fullmatch(r"-?\d{1,9}(\.\d{1,9})?", code))
