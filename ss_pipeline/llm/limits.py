"""What settings and tenant policies say about spending and pace, as values; budgets.py and governor.py keep to it."""

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field


class Budget(BaseModel):
    """What a tenant may spend; None is no limit. Money is in the currency of the price table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens_per_job: int | None = Field(None, ge=0)
    tokens_per_day: int | None = Field(None, ge=0)
    money_per_job: Decimal | None = Field(None, ge=0)
    money_per_day: Decimal | None = Field(None, ge=0)

    @property
    def counts_money(self) -> bool:
        """Whether calls of a model without a price cannot be counted in it."""
        return self.money_per_job is not None or self.money_per_day is not None


class Rate(BaseModel):
    """What a provider allows in a minute; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
