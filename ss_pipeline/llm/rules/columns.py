"""What is known of each column of the primary data set: how its name and label read, and what it is made from.

Names and labels are data: they are compared with the requirement, never followed.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from ss_pipeline.jobs.profiles import ColumnProfile, InferredType
from ss_pipeline.llm.rules.words import MAX_TERMS, name_readings, stem, text_terms

Form: TypeAlias = Literal["plain", "log", "square", "change", "lag", "interaction"]

MAX_LABEL_CHARACTERS: Final = 160

_LOG = re.compile(r"^(?:natural )?log(?:arithm)?(?: of)?[ (]\s*(?P<base>[\w.]+)\)?$|^ln\(?\s*(?P<ln>[\w.]+)\)?$", re.I)
_CHANGE = re.compile(r"^(?:change|growth|difference) in (?P<base>[\w.]+)\b.*$", re.I)
_DIFFERENCE = re.compile(r"^(?P<base>[\w.]+) - (?P<other>[\w.]+)(?:\[_n-1\]?)?$")
_LAG = re.compile(r"^(?P<base>[\w.]+)(?:\[_n-\d+\]?| lagged.*)$")
_SQUARE = re.compile(r"^(?P<base>[\w.]+)\s*(?:\^|\*\*)\s*\d$")
_PRODUCT = re.compile(r"^(?P<base>[\w.]+)\s*\*\s*(?P<other>[\w.]+)$")
_LABEL_FORMS: Final[tuple[tuple[Form, re.Pattern[str]], ...]] = (
    ("log", _LOG),
    ("change", _CHANGE),
    ("change", _DIFFERENCE),
    ("lag", _LAG),
    ("square", _SQUARE),
    ("interaction", _PRODUCT),
)
_NAME_FORMS: Final[tuple[tuple[Form, re.Pattern[str]], ...]] = (
    ("log", re.compile(r"^(?:log_?|ln_?|l)(?P<base>.{2,})$", re.I)),
    ("square", re.compile(r"^(?P<base>.{2,}?)_?(?:sq|squared|2)$", re.I)),
    ("lag", re.compile(r"^(?P<base>.{2,})_(?:lag)?\d$", re.I)),
    ("change", re.compile(r"^(?:d_|diff_|delta_|c)(?P<base>.{3,})$", re.I)),
)
_LOG_NAME = re.compile(r"^(?:log_?|ln_|l)(?=(wage|wg|price|sal|inc|earn|nr|gdp|pop|sales|exp|rent|output))", re.I)
_FORMULA = re.compile(r"[*^\[\]]|\w [-+] \w|==|\)/")
_UNITS = re.compile(r"\(?\$?\d{3,}'?s?\$\)?|\(?\$\d{3,}'?s?\)?|\b1000s\b")
_ROW_NUMBER = re.compile(r"^(?:unnamed\b.*|rownames?|index|obs(?:no)?|_?id|.*_id|.*identifier.*)$", re.I)
_DUMMY = re.compile(r"^\s*=\s*\d\s*(?:if|for|in|when|after|of)?\s*", re.I)


_TIME_STEMS = frozenset(map(stem, ("year", "month", "quarter", "date", "time", "period", "wave", "week", "day", "t")))
_UNIT_WORDS: Final = (
    "state", "firm", "company", "country", "county", "city", "district", "person", "individual", "household", "school",
    "village", "plant", "industry", "fip", "fips", "nr", "id", "identifier", "code", "province", "region",
)  # fmt: skip
_UNIT_STEMS = frozenset(map(stem, _UNIT_WORDS))


@dataclass(frozen=True)
class KnownColumn:
    """One column as the rules see it.

    Args:
        position: Its place in the data set; ties are decided by it.
        readings: Each a way to read name or label, as stems; the first is the name's.
        form: What was done to `base` to get it; `plain` where nothing is known.
    """

    name: str
    position: int
    readings: tuple[tuple[str, ...], ...]
    inferred_type: InferredType
    form: Form
    base: str | None
    is_identifier: bool

    @property
    def is_numeric(self) -> bool:
        """Whether it can be used in arithmetic as it stands."""
        return self.inferred_type in {"integer", "number", "boolean"}


def names_time(column: KnownColumn) -> bool:
    """Whether the column says when a row was observed."""
    return column.form == "plain" and any(set(reading) <= _TIME_STEMS for reading in column.readings[:2])


def names_unit(column: KnownColumn) -> bool:
    """Whether the column says of whom a row is: state, firm, person."""
    if re.match(r"^(?:unnamed|rownames?|index|obs)", column.name, re.IGNORECASE):
        return False
    return column.is_identifier or any(set(reading) <= _UNIT_STEMS for reading in column.readings[:2])


def has_levels(column: KnownColumn) -> bool:
    """Whether the column divides the rows into groups that may each have an effect."""
    return column.inferred_type == "string" or names_time(column) or names_unit(column)


def known_columns(profiles: list[ColumnProfile]) -> list[KnownColumn]:
    """The columns with their readings; one made from another also reads as that other."""
    names = {profile.name.casefold(): profile.name for profile in profiles}
    columns = [_known(profile, position, names) for position, profile in enumerate(profiles)]
    by_name = {column.name: column for column in columns}
    return [_with_base_readings(column, by_name) for column in columns]


def _known(profile: ColumnProfile, position: int, names: dict[str, str]) -> KnownColumn:
    label = profile.label.strip()[:MAX_LABEL_CHARACTERS]
    form, base = _form_of(profile.name, label, names)
    readings = name_readings(profile.name)
    label_reading = tuple(text_terms(_UNITS.sub(" ", _DUMMY.sub("", label)))[:MAX_TERMS])
    if label_reading and not (_FORMULA.search(label) or (base and form != "plain")):
        readings.append(label_reading)
    return KnownColumn(
        name=profile.name,
        position=position,
        readings=tuple(readings),
        inferred_type=profile.inferred_type,
        form=form,
        base=base,
        is_identifier=bool(_ROW_NUMBER.match(profile.name) or re.search(r"\bidentifier\b|\bID\b", label)),
    )


def _form_of(name: str, label: str, names: dict[str, str]) -> tuple[Form, str | None]:
    for form, pattern in _LABEL_FORMS:
        found = pattern.match(label)
        base = found and next((value for key, value in found.groupdict().items() if value and key != "other"), None)
        if base and base.casefold() in names and names[base.casefold()] != name:
            return form, names[base.casefold()]
    for form, pattern in _NAME_FORMS:
        found = pattern.match(name)
        if found and found["base"].casefold() in names and not label:
            return form, names[found["base"].casefold()]
    if label.casefold().startswith(("log ", "log(", "logarithm", "ln(")) or _LOG_NAME.match(name):
        return "log", None
    return "plain", None


def _with_base_readings(column: KnownColumn, by_name: dict[str, KnownColumn]) -> KnownColumn:
    """A column made from another reads as that one too; two steps (a change of a log) are followed."""
    readings = list(column.readings)
    base = by_name.get(column.base or "")
    for _ in range(3):
        if base is None or base is column:
            break
        readings.extend(base.readings)
        base = by_name.get(base.base or "")
    if column.form == "log" and column.base is None:
        readings.extend(name_readings(_LOG_NAME.sub("", column.name)))
    return replace(column, readings=tuple(dict.fromkeys(reading for reading in readings if reading)))
