"""The seal of the file store: a file in its root that says where the documents have moved to.

Writers look at it while they hold the index's gate shared, so whoever sets it and then waits for the gate once knows
that no earlier change is still to come (file.py).
"""

from pathlib import Path
from typing import Final

from ss_pipeline import durable
from ss_pipeline.errors import StoreSealedError
from ss_pipeline.store.file_layout import read_regular

_NAME: Final = ".sealed"


class Seal:
    """The seal of one root.

    Args:
        heeded: False for whoever moves documents: `check` lets every change pass.
    """

    def __init__(self, root: Path, *, heeded: bool) -> None:
        self._path = root / _NAME
        self._heeded = heeded

    def close(self, successor: str) -> None:
        """Sets the seal, durably."""
        durable.write_file(self._path, successor.encode())

    def open(self) -> None:
        """Removes the seal, durably; nothing where there is none."""
        if self.successor() is not None:
            self._path.unlink(missing_ok=True)
            durable.sync_folder(self._path.parent)

    def successor(self) -> str | None:
        """Where the documents have moved to; None where there is no seal."""
        try:
            return read_regular(self._path).decode("utf-8", "replace")
        except FileNotFoundError:
            return None

    def check(self) -> None:
        """Raises:
        StoreSealedError: the seal is set.
        """
        if self._heeded and (successor := self.successor()) is not None:
            raise StoreSealedError(successor)
