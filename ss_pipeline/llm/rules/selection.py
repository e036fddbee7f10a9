"""From phrases to columns: which column is the outcome, the treatment, a control, an instrument, and how sure."""

import re
from dataclasses import dataclass, replace
from typing import Final

from ss_pipeline.llm.rules.columns import Form, KnownColumn, has_levels, names_time, names_unit
from ss_pipeline.llm.rules.lexicon import OUTCOME_WORDS
from ss_pipeline.llm.rules.matching import ColumnIndex, Match
from ss_pipeline.llm.rules.roles import Roles
from ss_pipeline.llm.rules.words import RELATED_STEMS, SYNONYM_GROUP, is_chinese, stem, text_terms

CONFIDENT: Final = 0.5
"""From this score on, a column named in its role is taken without asking."""
PLAUSIBLE: Final = 0.3
"""From this score on, a column is taken, but a person is asked."""
CONTROL: Final = 0.42
TIE: Final = 0.005
"""Two columns this close are equally likely."""
GUESSED: Final = 0.6
"""A column found outside any turn of phrase needs this much, and is always asked about."""

MAX_CONTROLS: Final = 50
MAX_EFFECTS: Final = 10
_EFFECT = re.compile(r"effects?\b|dumm(?:y|ies)|固定效应|虚拟", re.IGNORECASE)
_OUTCOME_STEMS: Final = frozenset(stem(word) for word in OUTCOME_WORDS)
_OUTCOME_GROUPS: Final = frozenset(SYNONYM_GROUP[word] for word in _OUTCOME_STEMS if word in SYNONYM_GROUP)


@dataclass(frozen=True)
class Choice:
    """The column chosen for a role, or None; `sure` where no person needs to look; `candidates` the best five."""

    column: KnownColumn | None = None
    sure: bool = False
    candidates: tuple[str, ...] = ()
    phrase: str = ""

    @property
    def name(self) -> str | None:
        """The chosen column's name, or None."""
        return self.column.name if self.column else None


@dataclass(frozen=True)
class Selection:
    """The columns of an analysis, by role."""

    outcome: Choice
    treatment: Choice
    controls: tuple[str, ...]
    fixed_effects: tuple[str, ...]
    instrument: str | None
    cluster: str | None
    unmatched: tuple[str, ...]
    """Controls the requirement names that no column stands for."""


class Selector:
    """Chooses columns of one data set for the phrases of one requirement."""

    def __init__(self, index: ColumnIndex, roles: Roles, *, forms: frozenset[Form]) -> None:
        self._index = index
        self._roles = roles
        self._forms = forms

    def select(self, *, needs_treatment: bool) -> Selection:
        """All roles; the treatment is left out where the analysis has none."""
        outcome_phrase, treatment_phrase = self._phrases()
        outcome = self._outcome(outcome_phrase or self._roles.prefix, treatment_phrase)
        taken = _family(outcome.column)
        treatment = self._treatment(treatment_phrase, taken) if needs_treatment else Choice()
        taken |= _family(treatment.column)
        instruments = [match for item in self._roles.instruments for match in self._item(item, taken)]
        taken |= {match.column.name for match in instruments}
        controls, effects, unmatched = self._controls(taken)
        return Selection(
            outcome=outcome,
            treatment=treatment,
            controls=controls,
            fixed_effects=effects,
            instrument=instruments[0].column.name if instruments else None,
            cluster=next((match.column.name for match in self._item(self._roles.cluster or "", set())), None),
            unmatched=unmatched,
        )

    def _phrases(self) -> tuple[str | None, str | None]:
        """The phrases for outcome and treatment; of two variables "between" which stands a relation, one is chosen."""
        if not self._roles.either or self._roles.outcome:
            return self._roles.outcome, self._roles.treatment
        first, second = self._roles.either
        first_is, second_is = self._speaks_of_outcome(first), self._speaks_of_outcome(second)
        is_first = first_is > second_is or (first_is == second_is and is_chinese(first + second))
        return (first, second) if is_first else (second, first)

    def _speaks_of_outcome(self, phrase: str) -> int:
        return int(any(_is_outcome_word(term) for term in text_terms(phrase)))

    def _outcome(self, phrase: str | None, treatment_phrase: str | None) -> Choice:
        ranked = (
            [_as_outcome(match) for match in self._index.rank(phrase, forms=self._forms, limit=12)] if phrase else []
        )
        ranked.sort(key=lambda match: (-match.score, match.column.position))
        if ranked and ranked[0].score >= PLAUSIBLE:
            return _choice(ranked, phrase)
        banned = {match.column.name for match in self._index.rank(treatment_phrase or "", limit=1)}
        return (
            self._guess(f"{phrase or ''} {self._roles.prefix}", banned)
            or self._guess(self._roles.context, banned)
            or _none(ranked, phrase)
        )

    def _guess(self, text: str, banned: set[str]) -> Choice | None:
        """The likeliest outcome among the columns a text mentions anywhere; never a sure one."""
        ranked = [
            _with_score(match, match.score * (1.25 if _is_typical_outcome(match.column) else 1.0))
            for match in map(_as_outcome, self._index.rank(text, forms=self._forms, limit=12, is_loose=True))
            if match.column.name not in banned
        ]
        ranked.sort(key=lambda match: (-match.score, match.column.position))
        if not ranked or ranked[0].score < GUESSED:
            return None
        return Choice(ranked[0].column, sure=False, candidates=_names(ranked), phrase=text.strip())

    def _treatment(self, phrase: str | None, taken: set[str]) -> Choice:
        ranked = self._free(self._index.rank(phrase, forms=self._forms, limit=12), taken) if phrase else []
        if ranked and ranked[0].score >= PLAUSIBLE:
            return _choice(
                _in_order_of_mention(ranked, phrase or "", may_be_product="interaction" in self._forms), phrase
            )
        loose = self._free(self._index.rank(self._roles.context, forms=self._forms, limit=12, is_loose=True), taken)
        if loose and loose[0].score >= GUESSED:
            return Choice(loose[0].column, sure=False, candidates=_names(loose), phrase=phrase or "")
        return _none(ranked or loose, phrase)

    def _controls(self, taken: set[str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """The controls, the fixed effects among them, and the items no column stands for."""
        controls: list[str] = []
        effects: list[str] = []
        unmatched: list[str] = []
        has_effects = any(_EFFECT.search(item) for item in self._roles.controls)
        for item in self._roles.controls:
            matches = self._item(item, taken)
            for match in matches:
                # of "firm and year fixed effects" only the last item says so
                is_named = _EFFECT.search(item) or (has_effects and _is_panel_dimension(match.column))
                is_effect = is_named and has_levels(match.column)
                (effects if is_effect else controls).append(match.column.name)
            if not matches and text_terms(item):
                unmatched.append(item)
        named = dict.fromkeys(controls)
        return tuple(named)[:MAX_CONTROLS], tuple(dict.fromkeys(effects))[:MAX_EFFECTS], tuple(unmatched)

    def _item(self, item: str, taken: set[str]) -> list[Match]:
        """The column one item of a list means; several where it names several or a group such as "race"."""
        ranked = self._free(self._index.rank(item, forms=self._forms, limit=20), taken)
        named = [column for column in self._index.named(item) if column.name not in taken]
        if named:
            return [Match(column, 1.0, exact=True) for column in named]
        if not ranked or ranked[0].score < CONTROL:
            return self._members(item, taken)
        return ranked[:1]

    def _members(self, item: str, taken: set[str]) -> list[Match]:
        """Columns for a word that stands for several others: demographic, race, region."""
        stems = dict.fromkeys(other for term in text_terms(item) for other in RELATED_STEMS.get(term, ()))
        members = [self._free(self._index.rank(other, limit=3), taken)[:1] for other in stems]
        return [match for matches in members for match in matches if match.score >= 0.7]

    def _free(self, ranked: list[Match], taken: set[str]) -> list[Match]:
        return [match for match in ranked if match.column.name not in taken and match.column.base not in taken]


def _is_panel_dimension(column: KnownColumn) -> bool:
    return names_unit(column) or names_time(column)


def _choice(ranked: list[Match], phrase: str | None) -> Choice:
    best = ranked[0]
    sure = best.score >= CONFIDENT and not _is_tie(ranked)
    return Choice(best.column, sure=sure, candidates=_names(ranked), phrase=phrase or "")


def _is_tie(ranked: list[Match]) -> bool:
    """Whether another variable fits as well as the best, so that only their places in the file decide."""
    best = ranked[0]
    family = _family(best.column)
    others = [match for match in ranked[1:] if not family & _family(match.column)]
    return not best.exact and bool(others) and best.score - others[0].score < TIE


def _choice_of_treatment(ranked: list[Match], phrase: str | None) -> Choice:
    """As any choice, but a column that only says of whom a row is is asked about."""
    choice = _choice(ranked, phrase)
    return replace(choice, sure=choice.sure and not names_unit(ranked[0].column))


def _none(ranked: list[Match], phrase: str | None) -> Choice:
    return Choice(None, candidates=_names(ranked), phrase=phrase or "")


def _names(ranked: list[Match]) -> tuple[str, ...]:
    return tuple(match.column.name for match in ranked[:5])


def _family(column: KnownColumn | None) -> set[str]:
    """The column and what it was made from: neither may play a second role."""
    return {name for name in (column.name, column.base) if name} if column else set()


def _with_score(match: Match, score: float) -> Match:
    return Match(match.column, score, match.exact)


def _as_outcome(match: Match) -> Match:
    """Text columns are seldom explained; what was lagged never is."""
    column = match.column
    penalty = 0.6 if column.form == "lag" else 0.85 if column.inferred_type in {"string", "datetime"} else 1.0
    return match if match.exact else _with_score(match, match.score * penalty)


def _is_typical_outcome(column: KnownColumn) -> bool:
    return any(_is_outcome_word(term) for reading in column.readings for term in reading)


def _is_outcome_word(term: str) -> bool:
    return term in _OUTCOME_STEMS or SYNONYM_GROUP.get(term) in _OUTCOME_GROUPS


def _in_order_of_mention(ranked: list[Match], phrase: str, *, may_be_product: bool) -> list[Match]:
    """Among columns the phrase names outright, the first named leads; their product, if the phrase wants it."""
    exact = [match for match in ranked if match.exact and match.score >= ranked[0].score - 0.1]
    if not exact:
        return ranked
    lowered = phrase.casefold()
    exact.sort(key=lambda match: lowered.find(match.column.name.casefold()))
    product = [
        match for match in ranked if match.column.form == "interaction" and match.column.base in _exact_names(exact)
    ]
    leading = [*product[: may_be_product and len(exact) > 1], *exact]
    return [*leading, *(match for match in ranked if match not in leading)]


def _exact_names(exact: list[Match]) -> set[str]:
    return {match.column.name for match in exact}
