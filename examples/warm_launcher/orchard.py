"""Three assets of a project that has nothing to do with ss_pipeline; only its dagster.yaml names the launcher."""

import time

import dagster as dg


class Press(dg.Config):
    """How the cider is made."""

    seconds: float = 0.0


@dg.asset
def trees() -> list[str]:
    """What grows in the orchard."""
    return ["Boskoop", "Elstar", "Cox", "Jonagold"]


@dg.asset
def apples(trees: list[str]) -> dict[str, int]:
    """Kilograms picked from each tree."""
    return {tree: 10 * len(tree) for tree in trees}


@dg.asset
def cider(context: dg.AssetExecutionContext, apples: dict[str, int], config: Press) -> dg.MaterializeResult[float]:
    """Litres of cider."""
    time.sleep(config.seconds)
    litres = sum(apples.values()) * 0.6
    context.log.info("%.0f litres of %d kinds", litres, len(apples))
    return dg.MaterializeResult(value=litres, metadata={"litres": litres})


harvest = dg.define_asset_job("harvest", [trees, apples, cider], executor_def=dg.in_process_executor)
defs = dg.Definitions(assets=[trees, apples, cider], jobs=[harvest])
