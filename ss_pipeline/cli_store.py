"""The verbs `ss-pipeline store …`: where job documents live, and how they are moved to another store.

Thin shells over store/copying.py and store/switching.py. Stores are named `file`, `redis`, `postgres`, at the addresses
of the settings, or `file:/folder`. No address is ever printed that may hold a password.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from ss_pipeline import console, wiring
from ss_pipeline.errors import SettingsError, StoreCopyIncompleteError, StoreError
from ss_pipeline.settings import Settings, load_settings
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.comparing import MOVES
from ss_pipeline.store.copying import CopyResult, copy_documents
from ss_pipeline.store.jobs import facets_of_body
from ss_pipeline.store.switching import SwitchResult, switch
from ss_pipeline.store.syncing import NamedBackend
from ss_pipeline.telemetry.json_logs import log_to_stderr

app = typer.Typer(help="Where job documents live, and moving them to another store.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
From = Annotated[str, typer.Option("--from", help="The store that has the documents: file, redis, postgres, file:/…")]
To = Annotated[str, typer.Option("--to", help="The store that they are brought into.")]

_SHOWN: Final = 20
"""Documents named in a list; `--json` has all of them."""


@app.command("copy")
def copy_store(
    from_: From,
    to: To,
    verify: Annotated[bool, typer.Option("--verify", help="Compare the sha256 of every document afterwards.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the last copy was broken off.")] = False,
    json_: Json = False,
) -> None:
    """Bring all documents into another store, while the first one is in use. Exit status 1 if any differ then."""
    with wiring.moving_between(_settings(), from_, to) as (source, target), console.progress_bars() as progress:
        result = copy_documents(
            source, target, facets_of=facets_of_body, verify=verify, resume=resume, progress=progress
        )
    if json_:
        console.print_json(_as_document(source, target, result))
        if result.differences:
            raise typer.Exit(1)
        return
    _print_result("copied", source, target, result)
    if result.differences:
        raise StoreCopyIncompleteError(f"{result.differences} documents differ between the two stores")


@app.command("switch")
def switch_store(from_: From, to: To, json_: Json = False) -> None:
    """Make another store the one in use: seal the old one, bring the last changes over, compare everything."""
    with wiring.moving_between(_settings(), from_, to) as (source, target), console.progress_bars() as progress:
        result = switch(source, target, facets_of=facets_of_body, progress=progress)
    variables = _variables(source.name, target.name)
    if json_:
        moved = (
            _as_document(source, target, _whole(result)) if result else {"source": source.name, "target": target.name}
        )
        console.print_json({**moved, "switched": result is not None, "set": variables})
        return
    if result:
        _print_result(
            "switched", source, target, _whole(result), {"changes refused for": f"{result.last.seconds:.1f} s"}
        )
    else:
        console.print_fields("switched before", {"from": source.name, "to": target.name})
    console.print_list("Set this, then restart every process that uses the store:", _as_lines(variables))
    console.print_list("The way back:", [f"ss-pipeline store switch --from {target.name} --to {source.name}"])


@app.command("status")
def show_status(json_: Json = False) -> None:
    """Show the stores that are configured, how many documents each has, and which of them take changes."""
    settings = _settings()
    rows = [_status(settings, name) for name in wiring.MOVABLE if _is_configured(settings, name)]
    if json_:
        console.print_json(rows)
        return
    shown = [
        (
            row["store"],
            row["role"],
            row["problem"] or (f"sealed: documents are in {row['sealed_for']}" if row["sealed_for"] else "yes"),
            ", ".join(f"{number} {collection}" for collection, number in row["documents"].items()),
            row["place"],
        )
        for row in rows
    ]
    console.print_table("Stores", ["store", "role", "takes changes", "documents", "place"], shown)


@app.command("unseal")
def unseal_store(
    name: Annotated[str, typer.Argument(help="The store: file, redis, postgres, file:/…")], json_: Json = False
) -> None:
    """Let a sealed store take changes again, as it is: to give up a move, or to go back where nothing changed since."""
    with _opened(_settings(), name) as store:
        successor = store.backend.sealed_for()
        store.backend.unseal()
    if json_:
        console.print_json({"store": store.name, "was_sealed_for": successor})
    elif successor is None:
        console.print_fields(store.name, {"unsealed": "it was not sealed"})
    else:
        left = f"Changes made in {successor} since it was sealed are not here."
        stop = f"Two stores must not take changes: let no process use {successor} any more."
        console.print_fields(store.name, {"unsealed": f"it was sealed for {successor}", "beware": f"{left} {stop}"})


def _settings() -> Settings:
    log_to_stderr("WARNING")
    return load_settings()


@contextmanager
def _opened(settings: Settings, name: str) -> Iterator[NamedBackend]:
    store = wiring.open_store(settings, name)
    with closing(store.backend):
        yield store


def _is_configured(settings: Settings, name: str) -> bool:
    address = {"redis": settings.redis_url, "postgres": settings.job_store_postgres_dsn}
    return name not in address or address[name] is not None


def _status(settings: Settings, name: str) -> dict[str, Any]:
    """What is known of a store; one that does not answer hides no other."""
    roles: dict[str | None, str] = {settings.job_store_backend: "in use", settings.job_store_mirror: "mirror"}
    places = {"file": str(settings.jobs_path()), "redis": "SS_REDIS_URL", "postgres": "SS_JOB_STORE_POSTGRES_DSN"}
    row: dict[str, Any] = {"store": name, "role": roles.get(name, ""), "place": places[name]}
    try:
        with _opened(settings, name) as store:
            collections = [name for name in store.backend.collections() if name != MOVES]
            counts = {name: sum(store.backend.counts(name).values()) for name in collections}
            return {**row, "documents": counts, "sealed_for": store.backend.sealed_for(), "problem": None}
    except (SettingsError, StoreError) as error:
        return {**row, "documents": {}, "sealed_for": None, "problem": f"{error.error_code}: {error.message}"}


def _variables(source: str, target: str) -> dict[str, str]:
    """The settings under which the target is in use and the source, where it can be, is its mirror."""
    kinds = [name.partition(":")[0] for name in (source, target)]
    folders = [name.partition(":")[2] for name in (source, target)]
    mirror = {"SS_JOB_STORE_MIRROR": kinds[0]} if kinds[0] != kinds[1] else {}
    folder = {"SS_JOBS_DIR": next(filter(None, reversed(folders)))} if any(folders) else {}
    return {"SS_JOB_STORE_BACKEND": kinds[1], **mirror, **folder}


def _whole(result: SwitchResult) -> CopyResult:
    """Both parts of a switch as one copy."""
    seconds = result.first.seconds + result.last.seconds
    return replace(result.last, copied=result.copied, removed=result.removed, seconds=seconds)


def _as_lines(variables: dict[str, str]) -> list[str]:
    return [f"{variable}={value}" for variable, value in variables.items()]


def _as_document(source: NamedBackend, target: NamedBackend, result: CopyResult) -> dict[str, Any]:
    compared = result.compared
    return {
        "source": source.name,
        "target": target.name,
        "copied": result.copied,
        "unchanged": result.unchanged,
        "removed": [key.name for key in result.removed],
        "differences": [key.name for key in compared.differences] if compared else None,
        "documents": compared.documents if compared else None,
        "source_digest": compared.source_digest if compared else None,
        "target_digest": compared.target_digest if compared else None,
        "seconds": round(result.seconds, 3),
    }


def _print_result(
    title: str, source: NamedBackend, target: NamedBackend, result: CopyResult, more: Mapping[str, str] | None = None
) -> None:
    compared = result.compared
    fields = {
        "from": source.name,
        "to": target.name,
        "copied": str(result.copied),
        "unchanged": str(result.unchanged),
        "removed": str(len(result.removed)),
        "differences": str(result.differences) if compared else "not compared (--verify)",
        "documents": str(compared.documents) if compared else None,
        "digest": compared.target_digest if compared else None,
        "seconds": f"{result.seconds:.1f}",
        **(more or {}),
    }
    console.print_fields(title, fields)
    _print_keys("Removed, because they were in the target only", result.removed)
    _print_keys("Different", compared.differences if compared else ())


def _print_keys(title: str, keys: tuple[DocumentKey, ...]) -> None:
    more = [f"and {len(keys) - _SHOWN} more (--json lists all)"] if len(keys) > _SHOWN else []
    console.print_list(title, [*(key.name for key in keys[:_SHOWN]), *more])
