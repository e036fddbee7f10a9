"""Reads texts as dates and times in the common formats: ISO 8601, day/month/year, year年month月day日 and the like."""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from ss_pipeline.stages.profiling.tables import Array, object_array

_ISO: Final = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)?\s?(Z|[+-]\d{2}(:?\d{2})?)?)?")
_TIMES: Final = (("", ""), (r" \d{1,2}:\d{2}", " %H:%M"), (r" \d{1,2}:\d{2}:\d{2}", " %H:%M:%S"))
_DAYS: Final = (
    (r"\d{1,2}/\d{1,2}/\d{4}", "%d/%m/%Y", "%m/%d/%Y"),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y", None),
    (r"\d{1,2}-\d{1,2}-\d{4}", "%d-%m-%Y", "%m-%d-%Y"),
    (r"\d{4}/\d{1,2}/\d{1,2}", "%Y/%m/%d", None),
    (r"\d{4}\.\d{1,2}\.\d{1,2}", "%Y.%m.%d", None),
    (r"\d{4}-\d{1,2}-\d{1,2}", "%Y-%m-%d", None),
    (r"\d{4}年\d{1,2}月\d{1,2}日", "%Y年%m月%d日", None),
    (r"\d{4}年\d{1,2}月", "%Y年%m月", None),
    (r"\d{1,2}[- ][A-Za-z]{3}[- ]\d{4}", "%d-%b-%Y", None),
)


@dataclass(frozen=True)
class DateReading:
    """Texts read as dates: the moments (datetime64[us]), and whether day and month could be the other way round."""

    moments: Array
    ambiguous: bool = False
    offsets: bool = False
    """Whether texts carry UTC offsets; the moments are in UTC then."""


def read_dates(texts: tuple[str, ...]) -> DateReading | None:
    """The texts as dates if all of them are, in one format; else None."""
    first = texts[0]
    if not any(char.isdigit() for char in first[:12]):
        return None
    if _ISO.fullmatch(first):
        reading = _read_iso(texts)
        if reading is not None:
            return reading
    for time_pattern, time_format in _TIMES:
        for pattern, day_first, month_first in _DAYS:
            if re.fullmatch(pattern + time_pattern, first):
                return _read_formatted(texts, re.compile(pattern + time_pattern), day_first, month_first, time_format)
    return None


def _read_iso(texts: tuple[str, ...]) -> DateReading | None:
    if not all(map(_ISO.fullmatch, texts)):
        return None
    values = object_array(list(texts))
    offsets = any(re.search(r"(Z|[+-]\d{2}(:?\d{2})?)$", text[10:]) for text in texts)
    moments = pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce").tz_localize(None)
    return None if moments.isna().any() else DateReading(moments=_microseconds(moments), offsets=offsets)


def _read_formatted(
    texts: tuple[str, ...], pattern: re.Pattern[str], day_first: str, month_first: str | None, time_format: str
) -> DateReading | None:
    if not all(map(pattern.fullmatch, texts)):
        return None
    plain = [re.sub(r"[- ](?=[A-Za-z])|(?<=[A-Za-z])[- ]", "-", text) for text in texts]
    values = object_array(plain)
    read = [
        pd.to_datetime(values, format=layout + time_format, errors="coerce")
        for layout in (day_first, month_first)
        if layout is not None
    ]
    valid = [moments for moments in read if not moments.isna().any()]
    if not valid:
        return None
    return DateReading(moments=_microseconds(valid[0]), ambiguous=len(valid) > 1 and not valid[0].equals(valid[1]))


def _microseconds(moments: pd.DatetimeIndex) -> Array:
    return moments.to_numpy().astype("datetime64[us]")


def as_iso(moment: np.datetime64, *, with_time: bool, offsets: bool = False) -> str:
    """A moment as ISO text: the date alone where no moment of the column has a time of day."""
    text = str(moment.astype("datetime64[us]"))
    if not with_time:
        return text[:-16]
    return text.removesuffix(".000000") + ("Z" if offsets else "")
