"""An inbox to put submissions into, and what intake made of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import SystemClock
from ss_pipeline.jobs.model import Job
from ss_pipeline.stages.intake.stage import IntakeLimits, IntakeReport, take_in
from ss_pipeline.store.base import Backend
from ss_pipeline.store.jobs import JobStore
from ss_pipeline.store.memory import MemoryBackend

WAGES = "wage,educ,exper\n" + "".join(f"{5 + i % 7},{8 + i % 9},{i % 30}\n" for i in range(60))
AT_ONCE = IntakeLimits(max_bytes=1_000_000, max_files=5, quiet_seconds=0.0, incomplete_after_seconds=3_600.0)


class MovedClock(SystemClock):
    """The machine's clock, moved by some seconds; files carry the machine's times."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.seconds)


@dataclass
class Trial:
    """An inbox in a folder of its own, with the stores behind it."""

    root: Path
    backend: Backend = field(default_factory=MemoryBackend)
    limits: IntakeLimits = AT_ONCE
    clock: MovedClock = field(default_factory=MovedClock)

    def __post_init__(self) -> None:
        self.inbox.mkdir(parents=True, exist_ok=True)

    @property
    def inbox(self) -> Path:
        """The inbox folder."""
        return self.root / "inbox"

    @property
    def artifacts(self) -> ArtifactStore:
        """The artifact store."""
        return ArtifactStore(str(self.root / "artifacts"))

    def take_in(self, *, most: int = 50) -> IntakeReport:
        """One call of the stage."""
        return take_in(
            self.inbox,
            jobs=JobStore(self.backend),
            artifacts=self.artifacts,
            clock=self.clock,
            limits=self.limits,
            most=most,
        )

    def put(
        self, name: str, *, tenant: str = "", files: Mapping[str, str | bytes] | None = None, **request: Any
    ) -> Path:
        """Writes a submission the plain way, request.json last; `raw` is the request's bytes where given."""
        folder = self.inbox / tenant / name
        folder.mkdir(parents=True)
        data = {"data.csv": WAGES} if files is None else files
        for path, content in data.items():
            (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        fields = {"requirement": "Effect of educ on wage", "inputs": [{"path": path} for path in data], **request}
        raw = fields.pop("raw", None)
        (folder / "request.json").write_bytes(json.dumps(fields).encode() if raw is None else raw)
        return folder

    def jobs(self) -> list[Job]:
        """All jobs, in key order."""
        store = JobStore(self.backend)
        return [store.load(row.key.document_id, tenant_id=row.key.tenant_id) for row in store.rows()]

    def left_in_inbox(self) -> list[str]:
        """Names in the inbox, hidden ones and empty private folders left out."""
        return sorted(entry.name for entry in self.inbox.iterdir() if not entry.name.startswith("."))

    def left_on_desks(self) -> list[str]:
        """Names of submissions that are taken but not settled."""
        return sorted(entry.name for entry in (self.inbox / ".taken").iterdir() if not entry.name.startswith("@"))

    def stored_bytes(self) -> bytes:
        """All that is in the artifact store, in one piece."""
        found = (self.root / "artifacts").rglob("*")
        return b"\n".join(path.read_bytes() for path in sorted(found) if path.is_file())
