"""Commands as a person types them, run in this process: what they print and how they end."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from ss_pipeline import cli


@dataclass(frozen=True)
class Outcome:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run: TypeAlias = Callable[..., Outcome]


def typist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *before: str) -> Run:
    """Types `ss-pipeline`, the words given here, and those it is called with."""
    monkeypatch.setenv("COLUMNS", "200")

    def type_in(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ss-pipeline", *before, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return type_in
