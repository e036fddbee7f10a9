"""Structured events: every log line is an event code and named fields, never free text (seed C6).

`emit` is the only way to log. The registry below is the list of codes; docs/events.md is generated from it.
How lines are written (JSON, level, destination) is telemetry/json_logs.py's business.
"""

import logging
from typing import Final

LOGGER: Final = logging.getLogger("ss_pipeline")

EVENTS: Final[dict[str, str]] = {
    # submission
    "SS_SUBMISSION_TAKEN": "A complete submission was moved out of the inbox for ingestion.",
    "SS_SUBMISSION_ACCEPTED": "A submission became a job.",
    "SS_SUBMISSION_DUPLICATE": "A submission equals one that is a job already; that job is kept.",
    "SS_SUBMISSION_REFUSED": "A submission was refused; refused/<name>/reason.json says why.",
    "SS_SUBMISSION_STALLED": "A taken submission cannot become a job now (store or medium failed); it is tried again.",
    "SS_SUBMISSION_PUT_BACK": "A submission changed while it was taken and was put back to wait.",
    # job documents and store
    "SS_JOB_CREATED": "A job document was created.",
    "SS_JOB_JSON_SCHEMA_MIGRATED": "A job document was migrated by one schema step.",
    "SS_JOB_JSON_SCHEMA_VERSION_UNSUPPORTED": "A job document has a schema version this code does not know.",
    "SS_JOB_JSON_CORRUPTED": "A job document is not readable JSON; its bytes were left alone.",
    "SS_JOB_JSON_INVALID": "A job document does not fit the schema; its bytes were left alone.",
    "SS_JOB_JSON_VERSION_CONFLICT": "A save was refused because the stored version is another.",
    "SS_JOB_JSON_ROLLED_BACK": "A job document was put back to its bytes from before the migration.",
    "SS_JOB_TRACE_ID_BACKFILLED": "A job without a trace id was given one.",
    "SS_JOB_ILLEGAL_TRANSITION": "A change of status was refused.",
    "SS_JOB_STATUS_CHANGED": "A job changed its status.",
    "SS_STORE_INDEX_REBUILT": "The file store's index was rebuilt from the documents.",
    "SS_STORE_INDEX_DEFERRED": "A document was stored but not yet entered in the index; the next listing does it.",
    "SS_STORE_WAITING": "A store did not answer; it is tried again after a pause.",
    "SS_STORE_MIRROR_BEHIND": "A change was stored but not brought to the mirror; the next copy brings it in line.",
    "SS_STORE_COPIED": "The documents of a store were brought into another one.",
    "SS_STORE_SWITCHED": "Another store takes the changes from now on.",
    "SS_STORE_SWITCH_UNDONE": "A switch to another store failed; the old one takes changes again.",
    "SS_STORE_SCHEMA_MIGRATED": "The tables of the PostgreSQL store were made or brought to another version.",
    "SS_STORE_FORMAT_UPGRADED": "A Redis store of the format before was brought to the current one.",
    "SS_STORE_RECORD_QUARANTINED": "A record that cannot be read was set aside with its bytes.",
    # claims
    "SS_CLAIM_RESERVED": "Jobs were reserved for a run to come.",
    "SS_CLAIM_LAUNCHED": "The run of a claim was launched at once, by a request to Dagster's webserver.",
    "SS_CLAIM_LEFT_TO_SENSOR": "A run could not be launched at once, for the reason given; a sensor requests it.",
    "SS_CLAIM_LEASED": "A run leased the jobs it will work on.",
    "SS_CLAIM_SKIPPED": "A run found its job claimed elsewhere and left it alone.",
    "SS_CLAIM_LOST": "A run lost its lease on a job; its writes are refused from then on.",
    "SS_CLAIM_RELEASED": "A run gave jobs back unworked.",
    "SS_CLAIM_ATTEMPTS_EXHAUSTED": "A job was leased too often without success and was failed.",
    # stages
    "SS_PROFILE_CREATED": "The data files of a job were profiled.",
    "SS_PROFILE_REFUSED": "A data file could not be profiled.",
    "SS_DRAFT_CREATED": "A draft was made.",
    "SS_DRAFT_REFUSED": "No valid draft could be made.",
    "SS_JOB_PARKED": "A job was set aside until the time given; it goes on by itself then.",
    "SS_LLM_ANSWERED": "A model answered, and the answer is in the ledger.",
    "SS_LLM_ANSWER_ON_RECORD": "An answer was taken from the ledger; nobody was asked.",
    "SS_LLM_FAILED": "A model gave no answer, and nothing was billed.",
    "SS_LLM_OUTCOME_UNKNOWN": "A question was sent and no answer came; it may have been billed.",
    "SS_LLM_HEARTBEAT_FAILED": "A process that asks a model could not say that it lives.",
    "SS_LLM_TRACE_NOT_WRITTEN": "A file of a call's trace could not be written; the ledger has the call.",
    "SS_LLM_BUDGET_EXHAUSTED": "A budget has no room for a call; nothing was sent.",
    "SS_LLM_SPENDING_NOT_ENTERED": "What a call took could not be entered in a budget or a limit a minute.",
    "SS_LLM_RATE_WAITED": "A call waited for its turn because of a limit a minute.",
    "SS_LLM_RETRIED": "A call failed in a way that may pass; the question is asked again after the pause.",
    "SS_LLM_BREAKER_OPENED": "A provider failed several times in a row; for a while this process does not ask it.",
    "SS_LLM_BREAKER_CLOSED": "A provider answers again.",
    "SS_LLM_FORM_LOWERED": "A server does not take this form of answer; less is asked of it from now on.",
    "SS_LLM_REPAIR_ASKED": "An answer could not be used; the model was told why and asked once more.",
    "SS_LLM_NEXT_MODEL_ASKED": "A model gave no usable answer; the next one of the tenant's policy is asked.",
    "SS_LLM_FALLBACK_USED": "No model gave a usable answer; rules drafted instead, and the draft says so.",
    "SS_DECISION_TAKEN": "A draft was approved, edited or sent back.",
    "SS_DECISION_WAITING": "A draft waits for a person.",
    "SS_PUBLICATION_COMMITTED": "A version of the result was published.",
    "SS_PUBLICATION_REFUSED": "A draft was not published because a check failed.",
    "SS_PUBLICATION_CURRENT_REPAIRED": "The pointer to the current version was missing or old and was written again.",
    # the warm run launcher
    "SS_LAUNCHER_ZYGOTE_STARTED": "A zygote was started for a code location; launches wait until it has imported it.",
    "SS_LAUNCHER_ZYGOTE_READY": "A zygote has imported its code location and forks runs.",
    "SS_LAUNCHER_ZYGOTE_RETIRED": "A zygote takes no more launches; it ends when its runs have ended.",
    "SS_LAUNCHER_CODE_UNUSABLE": "A code location cannot be imported, or no process can be forked safely from it.",
    "SS_LAUNCHER_FALLBACK": "Runs of a code location go to Dagster's default launcher, for the reason given.",
    "SS_LAUNCHER_RUN_LAUNCHED_AGAIN": "A run was launched a second time (two daemons); its one process goes on.",
    "SS_LAUNCHER_RUN_ADOPTED": "A zygote watches a run whose own zygote died.",
    "SS_LAUNCHER_RUN_LOST": "The process of a run ended before the run was finished; Dagster is told.",
}
"""Event code -> what it says. Names starting SS_JOB_JSON and SS_JOB_TRACE are the seed's."""


def emit(event: str, /, *, level: int = logging.INFO, **fields: object) -> None:
    """Logs one event with its fields. Fields must hold no secret and no cell of the data."""
    if event not in EVENTS:
        raise KeyError(f"unknown event {event}: add it to telemetry/events.py")
    LOGGER.log(level, event, extra={"event": event, "fields": fields})
