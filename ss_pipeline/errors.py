"""Every error this package raises on purpose, in one tree.

What lives here: the classes, their codes, and what a person should do about each. What does not: HTTP statuses
(the API's business) and wording for the terminal (the CLI's).

    SSError                              code                          retryable
    ├── SettingsError                    SETTINGS_INVALID              no
    ├── JobError
    │   ├── JobNotFoundError             JOB_NOT_FOUND                 no
    │   ├── JobExistsError               JOB_ALREADY_EXISTS            no
    │   ├── JobDataCorruptedError        JOB_DATA_CORRUPTED            no
    │   ├── JobVersionConflictError      JOB_VERSION_CONFLICT          yes
    │   ├── JobIllegalTransitionError    JOB_ILLEGAL_TRANSITION        no
    │   └── JobRollbackRefusedError      JOB_ROLLBACK_REFUSED          no
    ├── StoreError
    │   ├── DocumentExistsError          STORE_DOCUMENT_EXISTS         no
    │   ├── DocumentNotFoundError        STORE_DOCUMENT_NOT_FOUND      no
    │   ├── DocumentChangedError         STORE_DOCUMENT_CHANGED        yes
    │   ├── StoreUnavailableError        STORE_UNAVAILABLE             yes
    │   │   ├── StoreLockedError         STORE_LOCKED                  yes
    │   │   ├── StoreIndexDamagedError   STORE_INDEX_DAMAGED           yes
    │   │   └── StoreSealedError         STORE_SEALED                  yes
    │   ├── StoreInUseError              STORE_IN_USE                  no
    │   ├── StoreCopyIncompleteError     STORE_COPY_INCOMPLETE         yes
    │   ├── StoreUnsafeError             STORE_UNSAFE                  no
    │   ├── StoreFormatError             STORE_FORMAT_UNKNOWN          no
    │   ├── StorePathUnsafeError         STORE_PATH_UNSAFE             no
    │   └── StaleFenceError              CLAIM_STALE_FENCE             no
    ├── ClaimLostError                   CLAIM_LOST                    no
    ├── ClaimAttemptsExhaustedError      CLAIM_ATTEMPTS_EXHAUSTED      no
    ├── ArtifactError
    │   ├── ArtifactNotFoundError        ARTIFACT_NOT_FOUND            no
    │   ├── ArtifactUnavailableError     ARTIFACT_UNAVAILABLE          yes
    │   ├── ArtifactCorruptedError       ARTIFACT_CORRUPTED            no
    │   └── ArtifactPathUnsafeError      ARTIFACT_PATH_UNSAFE          no
    ├── SubmissionRefusedError           SUBMISSION_* (given)          no
    ├── SubmissionChangedError           SUBMISSION_CHANGED            yes
    ├── InputRefusedError                INPUT_* (given)               no
    ├── DraftError                       DRAFT_* (given)               no
    ├── LLMError
    │   ├── LLMUnavailableError          LLM_* (given)                yes
    │   ├── LLMOutcomeUnknownError       LLM_OUTCOME_UNKNOWN           yes
    │   ├── LLMRefusedError              LLM_* (given)                no
    │   └── LLMBudgetError               LLM_BUDGET_EXHAUSTED          no
    ├── DecisionError                    DECISION_* (given)            no
    ├── PublicationError                 PUBLICATION_* (given)         no
    ├── StackError                       STACK_* (given)               no
    ├── WebserverError
    │   ├── WebserverUnreachableError    WEBSERVER_UNREACHABLE         yes
    │   └── WebserverRefusedError        WEBSERVER_REFUSED             no
    └── LauncherError
        ├── LauncherOptionError          LAUNCHER_OPTION_INVALID       no
        ├── LauncherFolderUnsafeError    LAUNCHER_FOLDER_UNSAFE        no
        ├── LauncherProtocolError        LAUNCHER_PROTOCOL             no
        ├── LauncherBusyError            LAUNCHER_BUSY                 yes
        ├── ZygoteUnreachableError       LAUNCHER_ZYGOTE_UNREACHABLE   yes
        ├── ZygoteUnsafeError            LAUNCHER_ZYGOTE_UNSAFE        no
        └── CodeNotLoadedError           LAUNCHER_CODE_NOT_LOADED      no
"""

from typing import ClassVar


class SSError(Exception):
    """The root: a fault with a stable code, a sentence for a person, and what that person can do.

    Args:
        message: What is wrong, naming the thing. One sentence, no traceback, no secret.
        todo: What to do about it; defaults to the class's own advice.
        code: Overrides the class's code where one class serves a family of codes.
    """

    code: ClassVar[str] = "SS_ERROR"
    retryable: ClassVar[bool] = False
    advice: ClassVar[str] = "See docs/life-of-a-job.md for what this code means."

    def __init__(self, message: str, *, todo: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.todo = todo or self.advice
        self.error_code = code or self.code

    def as_document(self) -> dict[str, str | bool]:
        """The error as the JSON object shown to users: code, message, todo, retryable."""
        return {
            "code": self.error_code,
            "message": self.message,
            "todo": self.todo,
            "retryable": self.retryable,
        }


class SettingsError(SSError):
    """A setting (environment variable) has a value that cannot be used."""

    code = "SETTINGS_INVALID"
    advice = "Correct the variable named here; docs/configuration.md lists every one with its allowed values."


class JobError(SSError):
    """Something is wrong with one job."""


class JobNotFoundError(JobError):
    """No job of this id belongs to this tenant."""

    code = "JOB_NOT_FOUND"
    advice = "List what is there with: ss-pipeline list"

    def __init__(self, job_id: str, *, tenant_id: str) -> None:
        super().__init__(f"there is no job {job_id!r} for tenant {tenant_id!r}")


class JobExistsError(JobError):
    """A job of this id was created before."""

    code = "JOB_ALREADY_EXISTS"
    advice = "Create the job under another id, or load the one that exists."

    def __init__(self, job_id: str, *, tenant_id: str) -> None:
        super().__init__(f"job {job_id!r} of tenant {tenant_id!r} exists already")


class JobDataCorruptedError(JobError):
    """A stored job document cannot be understood; its bytes are left as they are."""

    code = "JOB_DATA_CORRUPTED"
    advice = "The document was left untouched. Restore it from a backup, or remove the job."

    def __init__(self, reason: str, *, job_id: str | None = None) -> None:
        where = f"job {job_id!r}: " if job_id else ""
        super().__init__(f"{where}the document is corrupted: {reason}")
        self.reason = reason


class JobVersionConflictError(JobError):
    """A save was based on a version that is no longer the stored one (seed S1.2.4)."""

    code = "JOB_VERSION_CONFLICT"
    retryable = True
    advice = "Load the job again, repeat the change on what is stored now, and save."

    def __init__(self, job_id: str, *, expected_version: int, actual_version: int) -> None:
        super().__init__(f"job {job_id!r} is at version {actual_version}, not {expected_version}")
        self.job_id = job_id
        self.expected_version = expected_version
        self.actual_version = actual_version


class JobIllegalTransitionError(JobError):
    """The lifecycle has no arrow between these two statuses."""

    code = "JOB_ILLEGAL_TRANSITION"
    advice = "docs/life-of-a-job.md shows which change is possible from which status."

    def __init__(self, job_id: str, *, from_status: str, to_status: str) -> None:
        super().__init__(f"job {job_id!r} cannot go from {from_status} to {to_status}")
        self.from_status = from_status
        self.to_status = to_status


class JobRollbackRefusedError(JobError):
    """The document was saved after its migration; rolling back would lose that."""

    code = "JOB_ROLLBACK_REFUSED"
    advice = "Leave this job at the current schema; the bytes from before its migration are kept."


class StoreError(SSError):
    """The place where documents live cannot do what was asked."""


class DocumentExistsError(StoreError):
    """An exclusive create found a document under the key."""

    code = "STORE_DOCUMENT_EXISTS"
    advice = "Create it under another id, or read the one that exists."


class DocumentNotFoundError(StoreError):
    """No document under the key."""

    code = "STORE_DOCUMENT_NOT_FOUND"
    advice = "Check the id and the tenant."


class DocumentChangedError(StoreError):
    """A compare-and-set found other bytes than expected."""

    code = "STORE_DOCUMENT_CHANGED"
    retryable = True
    advice = "Read the document again and repeat the change."


class StoreUnavailableError(StoreError):
    """The medium failed (disk full, I/O error, no connection, lock not granted in time)."""

    code = "STORE_UNAVAILABLE"
    retryable = True
    advice = "Nothing was changed. Check disk space and permissions (ss-pipeline doctor), then try again."


class StoreLockedError(StoreUnavailableError):
    """Another process holds the lock of a document for longer than the caller would wait."""

    code = "STORE_LOCKED"
    advice = "Nothing was changed. Try again; if it stays so, a process that holds the lock hangs: stop that process."


class StoreIndexDamagedError(StoreUnavailableError):
    """The file store's index cannot be read. It has been given up and is rebuilt at the next use."""

    code = "STORE_INDEX_DAMAGED"
    advice = "Try again: the index is rebuilt from the documents by itself."


class StoreSealedError(StoreUnavailableError):
    """The documents of this store have moved to another one; it takes no more changes (`ss-pipeline store switch`)."""

    code = "STORE_SEALED"
    advice = (
        "Nothing was changed. Point SS_JOB_STORE_BACKEND and its address to the store named here and start again; "
        "to go back to this store with what was changed since: ss-pipeline store switch."
    )

    def __init__(self, successor: str) -> None:
        super().__init__(f"this store is sealed: its documents have moved to {successor}")
        self.successor = successor


class StoreInUseError(StoreError):
    """Documents should be brought into a store that takes changes itself."""

    code = "STORE_IN_USE"
    advice = (
        "Nothing was written there. Documents are brought only into an empty store or one that is sealed for the store "
        "they come from: choose another one, or empty it. ss-pipeline store status shows all of them."
    )

    def __init__(self, target: str, *, source: str, todo: str | None = None) -> None:
        super().__init__(f"the store {target} has documents and does not follow {source}", todo=todo)


class StoreCopyIncompleteError(StoreError):
    """Documents of two stores still differ after the last look at them."""

    code = "STORE_COPY_INCOMPLETE"
    retryable = True
    advice = (
        "Run the copy again. Where processes write to the source without SS_JOB_STORE_MIRROR, differences come back "
        "until the switch."
    )


class StoreUnsafeError(StoreError):
    """A server whose settings would lose what it acknowledges, or that cannot make a change as a whole."""

    code = "STORE_UNSAFE"
    advice = "Nothing was read or changed. Change the setting named here on the server, then start again."


class StoreFormatError(StoreError):
    """A store that was written by a version of this package with another layout of the store."""

    code = "STORE_FORMAT_UNKNOWN"
    advice = "Nothing was changed. Use the version of the package that wrote this store, or a later one."


class StorePathUnsafeError(StoreError):
    """A document whose path would leave the store's folder (an unsafe name, a symbolic link, no regular file)."""

    code = "STORE_PATH_UNSAFE"
    advice = "Remove the link or the odd file named here from the jobs folder; nothing outside of it was touched."


class StaleFenceError(StoreError):
    """A write carries a fence that is not the job's live one: another run has the job now."""

    code = "CLAIM_STALE_FENCE"
    advice = "Nothing to do: the run that holds the job now finishes it."


class ClaimLostError(SSError):
    """A claim, or its lease on a job, is no longer held."""

    code = "CLAIM_LOST"
    advice = "Nothing to do: the job is back in the queue or with another run."


class ClaimAttemptsExhaustedError(SSError):
    """Too many runs began a job and none finished it: it probably kills them."""

    code = "CLAIM_ATTEMPTS_EXHAUSTED"
    advice = "Look at the data and the run logs, then requeue: ss-pipeline retry JOB"


class ArtifactError(SSError):
    """The place where files live cannot do what was asked."""


class ArtifactNotFoundError(ArtifactError):
    """No file at this path."""

    code = "ARTIFACT_NOT_FOUND"
    advice = "Materialize the asset that makes it again."


class ArtifactUnavailableError(ArtifactError):
    """The medium failed (disk full, I/O error, no connection)."""

    code = "ARTIFACT_UNAVAILABLE"
    retryable = True
    advice = "Check disk space and permissions (ss-pipeline doctor); the job is tried again by itself."


class ArtifactCorruptedError(ArtifactError):
    """A stored file is not what its name says."""

    code = "ARTIFACT_CORRUPTED"
    advice = "Materialize the asset that makes it again."


class ArtifactPathUnsafeError(ArtifactError):
    """A path that would leave the job's folder."""

    code = "ARTIFACT_PATH_UNSAFE"
    advice = "Use a relative path with forward slashes and no '..'."


class SubmissionRefusedError(SSError):
    """A submission that cannot become a job; the code (SUBMISSION_*) says why."""

    code = "SUBMISSION_INVALID"
    advice = "Correct the submission and put it into the inbox again."


class SubmissionChangedError(SSError):
    """A submission was written to while it was read; it goes back to wait until it is quiet."""

    code = "SUBMISSION_CHANGED"
    retryable = True
    advice = "Nothing to do: the submission is taken as soon as it no longer changes."


class InputRefusedError(SSError):
    """A data file that cannot be read safely or at all; the code (INPUT_*) says why."""

    code = "INPUT_UNREADABLE"
    advice = "Replace the data file and submit again."


class DraftError(SSError):
    """No valid draft could be made; the code (DRAFT_*) says why."""

    code = "DRAFT_INVALID"
    advice = "Look at the requirement and the data, then requeue: ss-pipeline retry JOB"


class LLMError(SSError):
    """A language model gave no answer that can be used."""


class LLMUnavailableError(LLMError):
    """The provider answers nobody now, or not us: 429, 5xx, no connection, an answer that is none.

    Args:
        retry_after: Seconds after which the provider says to ask again.
    """

    code = "LLM_UNAVAILABLE"
    retryable = True
    advice = "Nothing need be done: it is tried again. If it lasts, see the provider's status page and the limits."

    def __init__(self, message: str, *, retry_after: float | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class LLMOutcomeUnknownError(LLMError):
    """A question was sent and no answer came; the provider may have answered and billed it.

    Args:
        calls: How often.
    """

    code = "LLM_OUTCOME_UNKNOWN"
    retryable = True
    advice = "The call stands in the ledger as unknown; SS_LLM_UNKNOWN_POLICY says whether it is asked again."

    def __init__(self, message: str, *, calls: int = 1) -> None:
        super().__init__(message)
        self.calls = calls


class LLMRefusedError(LLMError):
    """The provider refuses this question or this key: 400, 401, 403, 404, or the model declines to answer."""

    code = "LLM_REFUSED"
    advice = "Read the provider's words in the message; check the key, the model's name and the tenant's policy."


class LLMBudgetError(LLMError):
    """The budget for calls is used up until it resets.

    Args:
        resets_at: When, as ISO 8601 in UTC.
    """

    code = "LLM_BUDGET_EXHAUSTED"
    advice = "The job waits until the budget resets; raise the budget in the tenant's policy to go on at once."

    def __init__(self, message: str, *, resets_at: str) -> None:
        super().__init__(message)
        self.resets_at = resets_at


class DecisionError(SSError):
    """A decision that cannot be taken; the code (DECISION_*) says why."""

    code = "DECISION_INVALID"
    advice = "Look at the draft and its questions first: ss-pipeline show JOB"


class PublicationError(SSError):
    """A draft that may not or cannot be published; the code (PUBLICATION_*) says why."""

    code = "PUBLICATION_REFUSED"
    advice = "Correct what is named here, then requeue: ss-pipeline retry JOB"


class StackError(SSError):
    """A process of the local stack (daemon, webserver) did not come up or died; the code (STACK_*) says which."""

    code = "STACK_FAILED"
    advice = "Read the log file named here, then run: ss-pipeline doctor"


class WebserverError(SSError):
    """Dagster's webserver did not do what it was asked for at once; the sensors do it at their next look."""


class WebserverUnreachableError(WebserverError):
    """Nothing listens at the webserver's address, or no whole answer came in time; what was asked may be done."""

    code = "WEBSERVER_UNREACHABLE"
    retryable = True
    advice = "Nothing to do: the sensors start what waits. Is SS_DAGSTER_URL, where it is set, the right address?"


class WebserverRefusedError(WebserverError):
    """Dagster's webserver answered that it does not do it (read-only, code not loaded), or it is none."""

    code = "WEBSERVER_REFUSED"
    advice = "Nothing to do: the sensors start what waits. Is SS_DAGSTER_URL, where it is set, the right address?"


class LauncherError(SSError):
    """The warm run launcher cannot do what Dagster asked it for."""


class LauncherOptionError(LauncherError):
    """An option of the warm run launcher in dagster.yaml has a value that cannot be used."""

    code = "LAUNCHER_OPTION_INVALID"
    advice = "Correct the option under run_launcher in dagster.yaml; docs/warm-launcher.md lists every one."


class LauncherFolderUnsafeError(LauncherError):
    """The launcher's private folder belongs to another user, is no folder, or cannot be made."""

    code = "LAUNCHER_FOLDER_UNSAFE"
    advice = "Remove what is at the path named here, or run Dagster as the user it belongs to."


class LauncherProtocolError(LauncherError):
    """What came over the launcher's socket is no message of this version."""

    code = "LAUNCHER_PROTOCOL"
    advice = "Stop the zygotes (python -m ss_pipeline.launcher stop); the next launch starts one of this version."


class LauncherBusyError(LauncherError):
    """As many runs as max_children allows are alive and none ended in time, or the code took too long to import."""

    code = "LAUNCHER_BUSY"
    retryable = True
    advice = "In dagster.yaml, lower max_concurrent_runs of the queue, or raise max_children or start_seconds."


class ZygoteUnreachableError(LauncherError):
    """The process that forks runs could not be started, died, or did not answer."""

    code = "LAUNCHER_ZYGOTE_UNREACHABLE"
    retryable = True
    advice = "Read the zygote's log named here."


class ZygoteUnsafeError(LauncherError):
    """The code location has threads after its import, so that no process can be forked safely from it."""

    code = "LAUNCHER_ZYGOTE_UNSAFE"
    advice = "Start the threads named here in a resource or an op instead of at import; see docs/warm-launcher.md."


class CodeNotLoadedError(LauncherError):
    """The code location raised an error while it was imported."""

    code = "LAUNCHER_CODE_NOT_LOADED"
    advice = "Correct the code; the next launch loads it again."

    def __init__(self, message: str, *, error_info: str) -> None:
        super().__init__(message)
        self.error_info = error_info
        """Dagster's own description of the error, serialized."""
