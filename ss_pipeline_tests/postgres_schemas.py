"""Schemas of PostgreSQL for tests: one for each test, on the server they share, looked at and aged from the side."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, create_engine, text

from ss_pipeline.store.postgres import PostgresBackend
from ss_pipeline_tests.servers import shared_postgres


@dataclass(frozen=True)
class PostgresSchema:
    """A schema of a server, and a connection beside those of the store; each statement is committed at once."""

    url: str
    name: str
    connection: Connection

    def rows(self, statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        result = self.connection.execute(text(statement), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []

    def store(self, **parameters: Any) -> closing[PostgresBackend]:
        """The store in this schema."""
        return closing(PostgresBackend(self.url, schema=self.name, **parameters))

    @contextmanager
    def session(self) -> Iterator[Callable[[str], object]]:
        """Runs statements in one transaction of another session, which is rolled back unless they commit it."""
        engine = create_engine(self.url)
        with engine.connect() as connection:
            connection.execute(text(f"SET LOCAL search_path = {self.name}"))
            yield lambda statement: connection.execute(text(statement))
        engine.dispose()

    def age(self, seconds: float) -> None:
        """Makes every time that is stored earlier, as if the server's clock had gone on."""
        older = "- make_interval(secs => :seconds)"
        self.rows(f"UPDATE claims SET expires_at = expires_at {older}", seconds=seconds)
        self.rows(f"UPDATE documents SET rests_until = rests_until {older}", seconds=seconds)
        self.rows("UPDATE documents SET not_before = not_before - :seconds WHERE not_before > 0", seconds=seconds)


@contextmanager
def postgres_schema(url: str | None = None) -> Iterator[PostgresSchema]:
    """A name for a new schema, on the shared server unless another is given; the schema is dropped afterwards."""
    url = url or shared_postgres().url
    name = f"t_{uuid4().hex[:12]}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"SET search_path = {name}"))
            try:
                yield PostgresSchema(url, name, connection)
            finally:
                connection.execute(text(f"DROP SCHEMA IF EXISTS {name} CASCADE"))
    finally:
        engine.dispose()
