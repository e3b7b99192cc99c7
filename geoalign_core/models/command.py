"""``geoalign models``: list, info, pull, import, verify, accuracy, remove."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from geoalign_core.accuracy_command import accuracy
from geoalign_core.errors import ModelError
from geoalign_core.options import MODEL, PATH
from tiling.clikit import note, tqdm_progress
from tiling.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from geoalign_core.models.describe import Description
    from geoalign_core.models.pull import PullPlan
    from geoalign_core.models.registry import ModelEntry

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_TRUST = click.option(
    "--trust-pickle", is_flag=True, help="Read a pickle all the same, as plain tensors only; choose its source well."
)

_TITLE = 46
"""Columns that a title has in the list, in a terminal of 100."""
_DECIDED = {"family": "from the family", "config": "from its configuration", "asked": "as you asked"}


@click.group()
def models() -> None:
    """List, describe, fetch, import and check models."""


models.add_command(accuracy)


@models.command("list")
@click.option("--family", help="Only this family.")
@_JSON
def list_command(*, family: str | None, as_json: bool) -> None:
    """List the models that can be used, by family."""
    from geoalign_core.models.families import find_family
    from geoalign_core.models.registry import list_models

    if family not in (None, "embedded"):
        family = find_family(family or "").name
    entries = [entry for entry in list_models() if family in (None, entry.family)]
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], ensure_ascii=False))
        return
    groups: dict[str, list[ModelEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.family, []).append(entry)
    for name, group in groups.items():
        click.echo(_heading(name))
        for entry in group:
            title = textwrap.shorten(entry.title, _TITLE, placeholder=" …")
            click.echo(f"  {entry.name:<27} {_state(entry):<12} {entry.size_bytes / 1e6:>6,.0f} MB  {title}")


def _heading(family: str) -> str:
    from geoalign_core.models.families import families

    for known in families():
        if known.name == family:
            return f"{family}: {known.title}, {known.licence}, {known.paper}"
    return family or "unknown"


def _state(entry: ModelEntry) -> str:
    if entry.installed or not entry.family:
        return "ready" if entry.installed else "damaged"
    return "own weights" if entry.source == "none" else "to pull"


@models.command("info")
@click.argument("name", default=MODEL)
@_JSON
def info_command(name: str, *, as_json: bool) -> None:
    """Describe a model: parts, context, activation, dense mode, licence."""
    from geoalign_core.models.describe import describe

    found = describe(name)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
        return
    rows = list(_rows(found))
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        click.echo(f"{key:<{width}}  {value}")


def _rows(found: Description) -> Iterable[tuple[str, str]]:
    yield "name", found.name
    yield "title", found.title
    yield "family", found.family
    yield "installed", "yes" if found.installed else "no"
    yield "architecture", found.architecture
    yield "parameters", f"{found.parameters['total']:,}" if found.parameters else "-"
    for part, count in found.parameters.items():
        if part != "total":
            yield f"  {part}", f"{count:,}"
    yield "context", found.context
    yield "text tables", found.tables
    yield "activation", found.activation
    yield "dense mode", found.dense_mode
    yield "preprocessing", found.preprocessing
    yield "resolution", found.gsd
    yield "licence", found.licence
    yield "terms", found.terms
    yield "source", found.source
    record = found.provenance or {}
    for key in ("source_sha256", "layout", "activation_from", "change", "dropped"):
        if record.get(key) is not None and record[key] != "":
            value = record[key]
            yield (
                f"  {key.replace('_', ' ')}",
                ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value),
            )


@models.command("pull")
@click.argument("name")
@click.option("--from", "folder", type=PATH, help="Take the files from this folder instead of the network.")
@_YES
@_TRUST
def pull_command(name: str, folder: Path | None, *, yes: bool, trust_pickle: bool) -> None:
    """Fetch a published model: the one command that uses the network."""
    from geoalign_core.models.pull import pull

    with tqdm_progress() as progress:
        path = pull(
            name, from_folder=folder, trust_pickle=trust_pickle, consent=_consent(yes=yes), progress=progress
        )  # fmt: skip
    click.echo(str(path))


def _consent(*, yes: bool) -> Callable[[PullPlan], bool]:
    def ask(plan: PullPlan) -> bool:
        click.echo(f"{plan.name}: {plan.title}", err=True)
        for file in plan.files:
            size = "size unknown" if file.size_bytes is None else f"{file.size_bytes / 1e6:,.1f} MB"
            click.echo(f"  {file.name}  {size}", err=True)
        click.echo(f"  from {plan.address}\n  to {plan.folder}", err=True)
        click.echo(f"  licence {plan.licence}: {plan.terms}", err=True)
        return yes or _confirm("download?", "add --yes to download without being asked", default=True)

    return ask


def _confirm(question: str, remedy: str, *, default: bool) -> bool:
    try:
        return click.confirm(question, default=default, err=True)
    except click.Abort as error:
        click.echo(err=True)
        if isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise UsageError("there is nobody to ask", remedy=remedy) from error


@models.command("import")
@click.argument("file", type=PATH)
@click.option("--family", help="Family of the model, where its keys do not tell.")
@click.option("--activation", type=click.Choice(["gelu", "quick_gelu"]), help="Where no family tells.")
@click.option("--name", help="What to call it; else after the file or its folder. A published name means that model.")
@click.option(
    "--context", type=click.Choice(["77", "248"]), help="Cut a 248-token model to 77, or stretch a 77-token one."
)
@_TRUST
def import_command(
    file: Path, family: str | None, activation: str | None, name: str | None, context: str | None, *, trust_pickle: bool
) -> None:
    """Bring in a checkpoint FILE (or folder) of your own: layout and shapes are found from its content."""
    from geoalign_core.models.convert import import_checkpoint

    with tqdm_progress() as progress:
        report = import_checkpoint(
            file, family=family, activation=activation, name=name, trust_pickle=trust_pickle,
            context=int(context) if context else None, progress=progress,
        )  # fmt: skip
    config = report.config
    decided = f"{config.activation} ({_DECIDED[report.activation_from]}), text tables {config.text_cfg.get('tables')}"
    made = "built as the package's" if config.family == "embedded" else f"layout {report.layout}, {decided}"
    click.echo(f"{config.name}: family {config.family}, {made}, {report.parameters:,} parameters")
    if report.already_there:
        note("already there, nothing was changed")
    if report.change:
        note(report.change)
    if report.dropped:
        note(f"left out, as nothing reads it: {', '.join(report.dropped)}")
    click.echo(str(report.folder))


@models.command("verify")
@click.argument("name", default=MODEL)
def verify_command(name: str) -> int:
    """Check a model's files against their recorded SHA-256."""
    from geoalign_core.models.registry import verify_model

    checks = verify_model(name)
    for check in checks:
        state = "ok" if check.ok else "missing" if check.found_sha256 is None else "CHANGED"
        click.echo(f"{state:<8} {check.path.name}  {check.found_sha256 or ''}")
    return 0 if all(check.ok for check in checks) else 1


@models.command("remove")
@click.argument("name")
@_YES
def remove_command(name: str, *, yes: bool) -> None:
    """Delete an imported or pulled model, and what is left of its download."""
    from geoalign_core.models.registry import remove_model, stored_size

    size = stored_size(name)
    question = f"delete {name} ({size / 1e6:,.0f} MB)?"
    if not yes and not _confirm(question, "add --yes to delete without being asked", default=False):
        raise ModelError(f"{name} was not deleted")
    remove_model(name)
    click.echo(f"{name} deleted, {size / 1e6:,.0f} MB freed")
