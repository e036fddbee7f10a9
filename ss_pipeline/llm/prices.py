"""What a call costs: the price table, and the most that a question may take before anyone knows what it took.

Who may spend how much is budgets.py's business. Prices are the installation's (`SS_LLM_PRICES`): none are built in,
since those of a release would be wrong a month later.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from ss_pipeline.llm.model import Question, Usage

_PER: Final = 1_000_000
"""Prices are for so many tokens."""

_OVERHEAD_TOKENS: Final = 64
"""What a provider's chat template adds to a prompt, at most."""


class Price(BaseModel):
    """The price of a model for a million tokens, in whatever currency all prices of the table are in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)


class PriceTable:
    """Prices by `<provider>/<model>`, or by `<provider>` for all of its models that are not named."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = dict(prices)

    def price_of(self, provider: str, model: str) -> Price | None:
        """The price of a model, or None where the table has none: its cost is unknown then, which is not nothing."""
        return self._prices.get(f"{provider}/{model}", self._prices.get(provider))

    def cost(self, usage: Usage, *, provider: str, model: str) -> Decimal | None:
        """What these tokens cost, exactly; None where the model has no price."""
        price = self.price_of(provider, model)
        if price is None:
            return None
        return (price.input * usage.input_tokens + price.output * usage.output_tokens) / _PER


def most_tokens(question: Question) -> Usage:
    """The most tokens that one call for a question can take.

    A token is at least one byte of text, so the prompt has no more tokens than bytes; English prose has about a
    quarter of that, Chinese about a third.
    """
    schema = json.dumps(question.schema, ensure_ascii=False) if question.schema else ""
    texts = (question.prompt.system, question.prompt.user, schema)
    prompt = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return Usage(input_tokens=prompt + _OVERHEAD_TOKENS, output_tokens=question.max_output_tokens)
