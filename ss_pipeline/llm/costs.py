"""What calls cost, added up from the ledger: by day, by model, by tenant. Reading the records is call_records.py's."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from ss_pipeline.llm.call_records import CallRecord

CostGroup: TypeAlias = Literal["day", "model", "tenant", "state", "prompt"]

GROUPS: Final[dict[CostGroup, Callable[[CallRecord], str]]] = {
    "day": lambda record: record.asked_at[:10],
    "model": lambda record: f"{record.provider}/{record.model}",
    "tenant": lambda record: record.tenant_id,
    "state": lambda record: record.state,
    "prompt": lambda record: record.prompt_version,
}
"""What a question is counted under; days are UTC's, and those on which it was asked last."""


@dataclass(frozen=True)
class Costs:
    """What some questions came to.

    Args:
        calls: That were made for the answers.
        unknowns: Calls that were sent and never answered; each may have been billed.
        cost: Of the answers of models that have a price.
        unpriced: Answers of models that have none: their cost is not in `cost`.
        unknown_cost: The most that the calls never answered can have cost, of models that have a price.
    """

    questions: int = 0
    answers: int = 0
    calls: int = 0
    unknowns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    unknown_cost: Decimal = Decimal(0)

    def with_record(self, record: CallRecord) -> "Costs":
        """With one more question."""
        answer = record.answer
        usage = answer.usage if answer else None
        return Costs(
            questions=self.questions + 1,
            answers=self.answers + (answer is not None),
            calls=self.calls + (answer.calls if answer else 0),
            unknowns=self.unknowns + record.unknowns,
            input_tokens=self.input_tokens + (usage.input_tokens if usage else 0),
            output_tokens=self.output_tokens + (usage.output_tokens if usage else 0),
            cost=self.cost + ((usage.cost if usage else None) or Decimal(0)),
            unpriced=self.unpriced + (usage is not None and usage.cost is None),
            unknown_cost=self.unknown_cost + record.unknowns * (record.expected.cost or Decimal(0)),
        )


def costs_by(records: Iterable[CallRecord], *groups: CostGroup) -> dict[tuple[str, ...], Costs]:
    """The costs of each combination of groups that occurs, in order; of all together where no group is named."""
    found: dict[tuple[str, ...], Costs] = {}
    for record in records:
        under = tuple(GROUPS[group](record) for group in groups)
        found[under] = found.get(under, Costs()).with_record(record)
    return dict(sorted(found.items()))
