"""The rule-based drafter: from the words of the requirement and the names and labels of the columns to a draft.

Deterministic, without a key, a network, a clock or a random source. Requirement, names and labels are only compared
with each other and with fixed tables; nothing in them is followed.
"""

from typing import Final

from ss_pipeline.jobs.drafts import DraftAnswer, Method, OpenUnknown
from ss_pipeline.llm.base import DraftRequest, LLMClient
from ss_pipeline.llm.rules.columns import KnownColumn, known_columns
from ss_pipeline.llm.rules.matching import ColumnIndex, forms_named
from ss_pipeline.llm.rules.methods import Setting, is_descriptive, method_of, setting_of
from ss_pipeline.llm.rules.roles import plain_text, read_roles
from ss_pipeline.llm.rules.selection import Choice, Selection, Selector
from ss_pipeline.llm.rules.wording import (
    Language,
    Plan,
    RoleName,
    method_question,
    plan_text,
    role_question,
    unmatched_controls,
)
from ss_pipeline.llm.rules.words import is_chinese

MAX_CANDIDATES: Final = 5


class RuleDrafter(LLMClient):
    """Answers by rules; the same request gives the same bytes."""

    @property
    def name(self) -> str:
        return "rules/1"

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        """The draft. What it is not sure of is an open unknown that blocks; it raises nothing of its own."""
        text = plain_text(request.requirement)
        language = language_of(text, wanted=request.language)
        profiles = request.profile.primary.columns
        columns = known_columns(profiles)
        roles = read_roles(request.requirement)
        forms = forms_named(text)
        is_plain = is_descriptive(text, has_treatment=bool(roles.treatment or roles.either))
        selection = Selector(ColumnIndex(columns), roles, forms=forms).select(needs_treatment=not is_plain)
        profile = request.profile.primary.column(selection.outcome.name or "")
        method: Method = (
            "descriptive"
            if is_plain
            else method_of(text, outcome=selection.outcome.column, profile=profile, speaks_of_log="log" in forms)
        )
        setting = setting_of(text, method, columns=columns, taken=_taken(selection))
        return _answer(selection, setting, method=method, language=language, columns=columns)


def language_of(text: str, *, wanted: str | None) -> Language:
    """The language to answer in: the wanted one where the rules know it, else the requirement's own."""
    if wanted:
        return "zh" if wanted.lower().startswith("zh") else "en"
    return "zh" if is_chinese(text) else "en"


def _taken(selection: Selection) -> set[str]:
    named = (selection.outcome.name, selection.treatment.name, selection.instrument, *selection.controls)
    return {name for name in named if name}


def _answer(
    selection: Selection, setting: Setting, *, method: Method, language: Language, columns: list[KnownColumn]
) -> DraftAnswer:
    effects = tuple(dict.fromkeys([*setting.fixed_effects, *selection.fixed_effects]))
    plan = Plan(
        method=method,
        outcome=selection.outcome.name,
        treatment=selection.treatment.name,
        controls=selection.controls,
        fixed_effects=effects,
        instrument=selection.instrument,
        cluster=selection.cluster,
    )
    return DraftAnswer(
        draft_text=plan_text(plan, language),
        outcome_var=plan.outcome,
        treatment_var=plan.treatment,
        controls=list(plan.controls),
        method=method,
        time_var=setting.time_var,
        entity_var=setting.entity_var,
        cluster_var=plan.cluster,
        fixed_effects=list(effects),
        instrument_var=plan.instrument,
        open_unknowns=_unknowns(selection, method=method, language=language, columns=columns),
    )


def _unknowns(
    selection: Selection, *, method: Method, language: Language, columns: list[KnownColumn]
) -> list[OpenUnknown]:
    unknowns = _role_unknown("outcome", selection.outcome, language=language, columns=columns)
    if method != "descriptive":
        unknowns += _role_unknown("treatment", selection.treatment, language=language, columns=columns)
    if method == "unknown" and selection.outcome.name:
        unknowns.append(
            OpenUnknown(field="method", description=method_question(language), impact="medium", blocking=False)
        )
    if selection.unmatched:
        description = unmatched_controls(selection.unmatched, language)
        unknowns.append(OpenUnknown(field="controls", description=description, impact="low", blocking=False))
    return unknowns


def _role_unknown(
    role: RoleName, choice: Choice, *, language: Language, columns: list[KnownColumn]
) -> list[OpenUnknown]:
    """The blocking question about outcome or treatment, unless the choice is sure."""
    if choice.sure:
        return []
    description = role_question(role, chosen=choice.name, phrase=choice.phrase, language=language)
    likely = [column.name for column in columns if column.is_numeric and not column.is_identifier]
    candidates = list(choice.candidates) or likely
    return [
        OpenUnknown(
            field=f"{role}_var",
            description=description,
            impact="high",
            blocking=True,
            candidates=candidates[:MAX_CANDIDATES],
        )
    ]
