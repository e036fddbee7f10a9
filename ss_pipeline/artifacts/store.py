"""The artifact store: files under a job's folder, on whatever fsspec reaches (local folder, memory://, later s3://).

Paths are relative to the job's folder and checked to stay inside. Local files are written durably. Nothing is ever
pickled. Which files there are is the stages' business.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from upath import UPath

from ss_pipeline import durable
from ss_pipeline.errors import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ArtifactPathUnsafeError,
    ArtifactUnavailableError,
)
from ss_pipeline.jobs.documents import is_safe_rel_path, job_folder

Model = TypeVar("Model", bound=BaseModel)


class ArtifactStore:
    """Files of jobs below one root.

    Args:
        location: A folder or an fsspec URL (`memory://name`).
    """

    def __init__(self, location: str) -> None:
        self._root = UPath(location)

    @property
    def is_local(self) -> bool:
        """Whether files are plain files of this machine."""
        return self._root.protocol in {"", "file", "local"}

    def write(self, tenant_id: str, job_id: str, path: str, body: bytes, *, private: bool = False) -> None:
        """Writes a file; an existing one is replaced.

        Args:
            private: A local file that nobody but its owner may read (mode 0600).

        Raises:
            ArtifactPathUnsafeError: the path would leave the job's folder.
            ArtifactCorruptedError: there is a folder in its place, or a file in the place of a folder.
            ArtifactUnavailableError: the medium failed.
        """
        target = self._locate(tenant_id, job_id, path)
        with _named_faults(path):
            if self.is_local:
                durable.write_file(Path(target.path), body, private=private)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(body)

    def read(self, tenant_id: str, job_id: str, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            ArtifactNotFoundError: there is none.
        """
        target = self._locate(tenant_id, job_id, path)
        with _named_faults(path):
            return target.read_bytes()

    def write_model(self, tenant_id: str, job_id: str, path: str, model: BaseModel) -> None:
        """Writes a model as JSON."""
        self.write(tenant_id, job_id, path, (model.model_dump_json(indent=1) + "\n").encode())

    def read_model(self, tenant_id: str, job_id: str, path: str, kind: type[Model]) -> Model:
        """Reads a model back.

        Raises:
            ArtifactNotFoundError: there is none.
            ArtifactCorruptedError: the file is no such model.
        """
        try:
            return kind.model_validate_json(self.read(tenant_id, job_id, path))
        except ValidationError as error:
            raise ArtifactCorruptedError(f"{path!r} is not a valid {kind.__name__}") from error

    def exists(self, tenant_id: str, job_id: str, path: str) -> bool:
        """Whether there is a file or folder at this path."""
        with _named_faults(path):
            return self._locate(tenant_id, job_id, path).exists()

    def names(self, tenant_id: str, job_id: str, folder: str) -> list[str]:
        """The names in a folder of the job, sorted; empty where there is none."""
        target = self._locate(tenant_id, job_id, folder)
        with _named_faults(folder):
            return sorted(entry.name for entry in target.iterdir()) if target.exists() else []

    def location(self, tenant_id: str, job_id: str, path: str) -> str:
        """Where a file is, for people: an absolute path, or a URL."""
        target = self._locate(tenant_id, job_id, path)
        return target.path if self.is_local else str(target)

    def local_path(self, tenant_id: str, job_id: str, path: str) -> Path | None:
        """The file as a local path where it is one, else None."""
        target = self._locate(tenant_id, job_id, path)
        return Path(target.path) if self.is_local else None

    def _locate(self, tenant_id: str, job_id: str, path: str) -> UPath:
        if not is_safe_rel_path(path):
            raise ArtifactPathUnsafeError(f"{path!r} is not a path inside a job's folder")
        return self._root / job_folder(tenant_id, job_id) / path


@contextmanager
def _named_faults(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactNotFoundError(f"there is no file {path!r}") from error
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise ArtifactCorruptedError(f"{path!r}: a file is where a folder should be, or a folder for a file") from error
    except OSError as error:
        raise ArtifactUnavailableError(f"{path!r} cannot be read or written: {error.strerror or error}") from error
