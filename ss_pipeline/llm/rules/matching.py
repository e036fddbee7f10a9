"""Which columns a phrase may mean: words of the phrase against the readings of each column, rare words counting more.

A score is between 0 and 1: how much of the column's reading the phrase says, and how much of the phrase that explains.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from ss_pipeline.llm.rules.columns import Form, KnownColumn
from ss_pipeline.llm.rules.words import (
    GENERIC_STEMS,
    has_chinese,
    is_chinese,
    likeness,
    other_words,
    stem,
    text_terms,
)

MAX_PHRASE_TERMS: Final = 40
_GENERIC_WEIGHT: Final = 0.35
_NUMBER_WEIGHT: Final = 0.6
_OFF_HEAD: Final = 0.8
"""What a match is worth that misses the noun the phrase is about."""
_PARENTHESIS = re.compile(r"[（(].*?[）)]")
_PREPOSITION = re.compile(
    r"\b(?:of|in|on|by|for|per|from|to|with|at|than|that|who|which|among|across|within|as)\b", re.I
)
_PERSONS: Final = frozenset(
    map(stem, ("student", "worker", "people", "person", "woman", "man", "child", "farmer", "firm", "player", "teacher"))
)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_FORM_WORDS: Final[dict[Form, re.Pattern[str]]] = {
    "log": re.compile(r"\blog(s|ged|arithm\w*)?\b|\bln\b|elasticit|对数|弹性", re.I),
    "square": re.compile(r"squared?\b|quadratic|平方|二次", re.I),
    "change": re.compile(r"\bchanges?\b|growth|first.differenc|increase in|变化|增长|差分|增量", re.I),
    "lag": re.compile(r"\blag(s|ged)?\b|previous|prior|last (year|period)|滞后|上一[期年]|前一[期年]", re.I),
    "interaction": re.compile(r"interact|difference.in.difference|diff-in-diff|交互|双重差分|交叉项", re.I),
}
_FORM_PENALTY: Final[dict[Form, float]] = {
    "plain": 1.0, "log": 0.93, "square": 0.6, "change": 0.7, "lag": 0.6, "interaction": 0.6,
}  # fmt: skip


@dataclass(frozen=True)
class Match:
    """A column that a phrase may mean, with its score. `exact` where the phrase has the column's very name."""

    column: KnownColumn
    score: float
    exact: bool = False


def forms_named(text: str) -> frozenset[Form]:
    """Which forms (log, change, …) a text speaks of."""
    return frozenset(form for form, pattern in _FORM_WORDS.items() if pattern.search(text))


class ColumnIndex:
    """The columns of a data set, by the words they carry."""

    def __init__(self, columns: list[KnownColumn]) -> None:
        self.columns = columns
        self._by_name = {column.name.casefold(): column for column in reversed(columns)}
        self._carriers: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._short_names = _short_names(columns)
        self._by_initial: dict[str, list[str]] = defaultdict(list)
        for place, column in enumerate(columns):
            for number, reading in enumerate(column.readings):
                for term in dict.fromkeys(reading):
                    self._carriers[term].append((place, number))
        for term in self._carriers:
            self._by_initial[term[0]].append(term)
        self._weights = {term: self._weight(term) for term in self._carriers}

    def rank(
        self, phrase: str, *, forms: frozenset[Form] = frozenset(), limit: int = 5, is_loose: bool = False
    ) -> list[Match]:
        """The columns the phrase may mean, best first.

        Args:
            forms: Forms the whole requirement asks for, beside those of the phrase.
            is_loose: The phrase is a text that says other things too: what it says beside the column counts little.
        """
        terms = list(dict.fromkeys(text_terms(phrase)))[:MAX_PHRASE_TERMS]
        exact = self._named_in(phrase)
        wanted = forms | forms_named(phrase)
        head = None if is_loose else head_term(phrase)
        scores = self._scores(terms, head=head, share=0.1 if is_loose else 0.4)
        for place, strength in [*self._abbreviated(terms).items(), *exact.items()]:
            scores[place] = max(scores.get(place, 0.0), strength)
        own = forms_named(phrase)
        ranked = [
            Match(column, score if place in exact else _formed(score, column, wanted=wanted, own=own), place in exact)
            for place, score in scores.items()
            for column in [self.columns[place]]
        ]
        ranked.sort(key=lambda match: (-match.score, match.column.position))
        return ranked[:limit]

    def _weight(self, term: str) -> float:
        carriers = len({place for place, _ in self._carriers[term]})
        rarity = math.log(1 + len(self.columns) / carriers)
        return rarity * _kind_weight(term)

    def _similar(self, term: str) -> list[tuple[str, float]]:
        """The words of columns that the word may mean."""
        pool = [*self._by_initial.get(term[0], ()), *(word for word in other_words(term) if word in self._carriers)]
        found = [(named, likeness(term, named)) for named in dict.fromkeys(pool)]
        return [(named, strength) for named, strength in found if strength > 0]

    def _scores(self, terms: list[str], *, head: str | None, share: float) -> dict[int, float]:
        said: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
        heard: dict[int, dict[int, float]] = defaultdict(dict)
        for number, term in enumerate(terms):
            for named, strength in self._similar(term):
                for place, reading in self._carriers[named]:
                    words = said[place, reading]
                    words[named] = max(words.get(named, 0.0), strength)
                    heard[place][number] = max(heard[place].get(number, 0.0), strength)
        weights = [_kind_weight(term) for term in terms]
        total = sum(weights) or 1.0
        scores: dict[int, float] = {}
        for (place, reading), words in said.items():
            explained = sum(weights[number] * strength for number, strength in heard[place].items()) / total
            score = self._coverage(self.columns[place].readings[reading], words) ** (1 - share) * explained**share
            is_about = head is None or head not in terms or heard[place].get(terms.index(head), 0.0) >= 0.5
            scores[place] = max(scores.get(place, 0.0), score if is_about else score * _OFF_HEAD)
        return scores

    def _coverage(self, reading: tuple[str, ...], words: dict[str, float]) -> float:
        """How much of the reading was said, 0 to 1."""
        whole = sum(self._weights[term] for term in reading)
        return sum(self._weights[term] * words.get(term, 0.0) for term in reading) / whole if whole else 0.0

    def named(self, phrase: str) -> list[KnownColumn]:
        """The columns whose very names the phrase is made of, if it has nothing else; else none."""
        tokens = phrase.split()
        columns = [self._by_name.get(token.casefold()) for token in tokens]
        found = [column for column in columns if column is not None]
        return found if len(found) == len(tokens) else []

    def _named_in(self, phrase: str) -> dict[int, float]:
        """Columns whose very name stands in the phrase as a name, not as a word of the language."""
        is_foreign = has_chinese(phrase)
        found: dict[int, float] = {}
        for token in _IDENTIFIER.findall(phrase):
            name = token.strip(".")
            column = self._by_name.get(name.casefold())
            if column is not None and (is_foreign or not _is_ordinary(name)) and _is_same_name(name, column.name):
                found[column.position] = 0.97 if name == column.name else 0.9
        return found

    def _abbreviated(self, terms: list[str]) -> dict[int, float]:
        """Columns named by the beginnings of words that stand together: `lfp`, `pubcap`."""
        found: dict[int, float] = {}
        for start, term in enumerate(terms):
            for name, column in self._short_names.get(term[0], ()):
                words = _words_begun(name, terms[start : start + 5])
                if words > 1:
                    strength = 0.5 if len(name) == 2 else 0.8 if words == len(name) else 0.75
                    found[column.position] = max(found.get(column.position, 0.0), strength)
        return found


def _short_names(columns: list[KnownColumn]) -> dict[str, list[tuple[str, KnownColumn]]]:
    """Names of a few letters by their first, as `_abbreviated` reads them."""
    names: dict[str, list[tuple[str, KnownColumn]]] = defaultdict(list)
    for column in columns:
        name = column.name.replace("_", "").lower()
        if name.isascii() and name.isalpha() and 2 <= len(name) <= 10:
            names[name[0]].append((name, column))
    return names


def head_term(phrase: str) -> str | None:
    """The stem of the noun a phrase is about: the last of its first part in English, the last one in Chinese."""
    plain = _PARENTHESIS.sub(" ", phrase)
    if is_chinese(plain):
        return next((term for term in reversed(_telling(plain)) if len(term) > 1), None)
    parts = [terms for terms in map(_telling, _PREPOSITION.split(plain)) if terms]
    return next((terms[-1] for terms in parts if terms[-1] not in _PERSONS), parts[-1][-1] if parts else None)


def _telling(text: str) -> list[str]:
    return [term for term in text_terms(text) if term not in GENERIC_STEMS and not term.isdigit()]


def _is_ordinary(token: str) -> bool:
    """Whether it may be a word of the language: letters of one case, as `card` or `Card`."""
    return token.isalpha() and (token.islower() or token.istitle())


def _is_same_name(token: str, name: str) -> bool:
    """Short names must agree in case; a lone letter is no name but a word."""
    return len(token) > 1 and (len(token) > 2 or token == name)


def _words_begun(name: str, terms: list[str]) -> int:
    """How many words the name is made of if it strings together their beginnings, first word first; else 0."""
    if not name:
        return 0
    if not terms:
        return -99
    term = terms[0]
    longest = next((n for n, (a, b) in enumerate(zip(name, term, strict=False)) if a != b), min(len(name), len(term)))
    return max((1 + _words_begun(name[size:], terms[1:]) for size in range(1, longest + 1)), default=-99)


def _kind_weight(term: str) -> float:
    if term.isdigit():
        return _NUMBER_WEIGHT
    return _GENERIC_WEIGHT if term in GENERIC_STEMS or len(term) == 1 else 1.0


def _formed(score: float, column: KnownColumn, *, wanted: frozenset[Form], own: frozenset[Form]) -> float:
    """The score, lowered for a form nobody asked for and for row numbers, raised for the one the phrase asks for."""
    if column.is_identifier:
        score *= 0.5
    if column.form == "plain":
        return score * (0.85 if own & {"change", "lag"} else 1.0)
    if column.form in own:
        return min(1.0, score * 1.2)
    return min(1.0, score * 1.08) if column.form in wanted else score * _FORM_PENALTY[column.form]
