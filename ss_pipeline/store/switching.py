"""The switch from one store to another: of two stores exactly one takes changes, whatever happens on the way.

Both are sealed while the last changes are brought over. From the moment the new one is unsealed the old one follows it
(mirroring.py), and the way back is the same switch in the other direction. Bringing documents is copying.py's business.
"""

import logging
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from ss_pipeline.errors import StoreCopyIncompleteError, StoreUnavailableError
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.copying import (
    USUAL_PACE,
    CopyResult,
    Pace,
    Progress,
    bring_in_line,
    copy_documents,
    say_nothing,
)
from ss_pipeline.store.syncing import FacetsOf, NamedBackend
from ss_pipeline.telemetry.events import emit


@dataclass(frozen=True)
class SwitchResult:
    """What a switch brought over: first while the source took changes, then, `last`, while neither store did."""

    first: CopyResult
    last: CopyResult

    @property
    def copied(self) -> int:
        """Documents created or replaced in the target."""
        return self.first.copied + self.last.copied

    @property
    def removed(self) -> tuple[DocumentKey, ...]:
        """Documents that were in the target only."""
        return self.first.removed + self.last.removed


def switch(
    source: NamedBackend,
    target: NamedBackend,
    *,
    facets_of: FacetsOf,
    progress: Progress = say_nothing,
    pace: Pace = USUAL_PACE,
) -> SwitchResult | None:
    """Makes the target the store that takes changes, with every document and claim history of the source.

    The source refuses changes from before the last look at it on, so that none is lost: processes that still use it
    are told where the documents are now. Where anything fails it takes changes again. A switch that was killed can be
    run again.

    Returns:
        What was brought over, or None where the switch was made before.

    Raises:
        StoreSealedError: the source's documents have moved to another store than the target.
        StoreInUseError: the target takes changes itself.
        StoreCopyIncompleteError: documents still differ, or runs have held documents in the target for long.
        StoreUnavailableError: one of the two failed.
    """
    if is_switched(source, target):
        return None
    first = copy_documents(source, target, facets_of=facets_of, progress=progress, pace=pace)
    with ExitStack() as undo:
        undo.callback(_take_changes_again, source, target)
        source.backend.seal(target.name)
        last = bring_in_line(source, target, facets_of=facets_of, progress=progress, pace=pace)
        _check_whole(last, source, target)
        undo.pop_all()
    _take_changes(target)
    emit("SS_STORE_SWITCHED", source=source.name, target=target.name, sealed_seconds=round(last.seconds, 3))
    return SwitchResult(first, last)


def is_switched(source: NamedBackend, target: NamedBackend) -> bool:
    """Whether the source is sealed for the target, and the target takes changes and has been copied into."""
    return source.follows(target) and target.backend.sealed_for() is None and bool(target.backend.collections())


def _check_whole(result: CopyResult, source: NamedBackend, target: NamedBackend) -> None:
    if result.differences:
        raise StoreCopyIncompleteError(f"{result.differences} documents differ between the two stores")
    if result.held:
        raise StoreCopyIncompleteError(
            f"runs of before hold {len(result.held)} documents in {target.name}",
            todo="Stop them, or wait until their leases are over, then run the switch again.",
        )
    if not source.follows(target):
        raise StoreCopyIncompleteError(f"{source.name} was unsealed before the switch was done")


def _take_changes_again(source: NamedBackend, target: NamedBackend) -> None:
    """Unseals the source, also where the target cannot be asked whether another switch has come first."""
    with suppress(StoreUnavailableError):
        if is_switched(source, target):
            return
    source.backend.unseal()
    emit("SS_STORE_SWITCH_UNDONE", level=logging.WARNING, source=source.name)


def _take_changes(target: NamedBackend) -> None:
    """Unseals the target. Where that fails the source stays sealed: it is not known whether the target is."""
    try:
        target.backend.unseal()
    except StoreUnavailableError as error:
        todo = "Both stores are sealed now, and the documents are in both: run the same switch again."
        raise StoreUnavailableError(error.message, todo=todo) from error
