"""The installation's secret, which makes the fences around data in prompts unguessable."""

import os
import secrets
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from ss_pipeline.errors import SettingsError

_FILE: Final = "installation.secret"


def installation_secret(folder: Path, *, given: SecretStr | None) -> bytes:
    """The secret that was given, else the one in the folder, made at first use; readable by its owner only.

    Raises:
        SettingsError: it can be neither read nor made.
    """
    if given is not None:
        return given.get_secret_value().encode()
    try:
        return _kept(folder / _FILE)
    except OSError as error:
        raise SettingsError(
            f"the installation's secret cannot be kept in {folder / _FILE}: {error.strerror}",
            todo="Set SS_INSTALLATION_SECRET to a long random text.",
        ) from error


def _kept(path: Path) -> bytes:
    """Of several processes that make it at once, the first one's counts: a hard link never replaces a file."""
    if path.exists():
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f"{_FILE}.{secrets.token_hex(8)}")
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        os.link(mine, path)
    except FileExistsError:
        pass
    finally:
        mine.unlink()
    return path.read_bytes()
