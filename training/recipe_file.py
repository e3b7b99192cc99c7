"""Recipe files: YAML ↔ a dataclass of sections, strictly, with every default explained.

A file holds the fields of its :class:`Kind` and at most ``extends`` (a packaged recipe's name, or a path relative to
the file) whose values it changes. A comment behind a value that starts with a mark ([P] printed, [C] code,
[D] deduced, [U] unknown) says where the value comes from; it is kept for ``--print-config``.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import math
import re
import sys
import textwrap
import types
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from tiling.errors import UsageError
from training.recipe import Recipe
from training.recipe_checks import CHOICES, check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tiling.errors import GeoAlignError

R = TypeVar("R")
_NOTE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>.*?)(?:\s#\s*(?P<note>\[[PCDU].*))?$")
_WIDTH = 116


class RecipeError(UsageError):
    """A recipe that cannot be read, or that contradicts itself."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """What a recipe file describes."""

    made: type[R]
    """The dataclass: plain fields, and sections that are dataclasses of plain fields."""
    check: Callable[[R, Callable[..., GeoAlignError]], None]
    """Refuses, with the error that its second argument makes, values that are wrong alone or together."""
    folder: Path
    """Where the packaged recipes lie."""
    command: str
    """What trains after it."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By ``section.key``: the texts that are allowed."""

    @property
    def hints(self) -> dict[str, Any]:
        """Types of the top level's fields."""
        return get_type_hints(self.made)

    @property
    def sections(self) -> dict[str, type]:
        """Sections by name."""
        return {name: hint for name, hint in self.hints.items() if isinstance(hint, type) and is_dataclass(hint)}

    def homes(self, key: str) -> list[str]:
        """Return ``section.key`` of every section that has the key."""
        return [f"{section}.{key}" for section, kind in self.sections.items() if key in get_type_hints(kind)]


RECIPES_DIR = Path(__file__).parent / "recipes"
RUN_RECIPE = Kind(Recipe, check, RECIPES_DIR, "geoalign-train run", CHOICES)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[R]):
    """A recipe with where its values come from."""

    recipe: R
    notes: Mapping[str, str]
    """By ``section.key``: the mark and source written behind the value, or what overrode it."""


class _Strict(yaml.SafeLoader):
    """YAML in which a key stands once."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"{key} stands twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def packaged(kind: Kind[Any] = RUN_RECIPE) -> dict[str, Path]:
    """Return the recipes of the package by name."""
    return {path.stem: path for path in sorted(kind.folder.glob("*.yaml"))}


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe of ``geoalign-train run``.

    Args:
        source: Name of a packaged recipe, or a file.
        overrides: ``section.key=value``, the value as YAML; or ``name=…``.

    Raises:
        RecipeError: No such recipe, an unknown key, a wrong type or choice, or options that contradict each other.
    """
    return read_recipe(source, overrides, RUN_RECIPE).recipe


def read_recipe(source: str | Path, overrides: Sequence[str], kind: Kind[R]) -> Loaded[R]:
    """Read a recipe of a kind together with the sources of its values; see :func:`load_recipe`."""
    path = find_recipe(source, kind)
    values, notes = _read(path, (), kind)
    given = dict(_override(text, kind) for text in overrides)
    try:
        built = _sound(_laid_over(values, given), path, kind)
    except RecipeError as error:
        wrong = [f"{text:.80}" for text in overrides if text.partition("=")[0].strip() in error.what.split()]
        if not given or not (wrong or _is_sound(values, path, kind)):
            raise
        where = f"override {', '.join(wrong or overrides)}"
        raise RecipeError(error.what, path=where, measured=error.measured, remedy=error.remedy) from error
    return Loaded(built, notes | dict.fromkeys(given, "set on the command line"))


def _laid_over(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's values with those of the command line; a section that is none is left for :func:`build`."""
    changed = dict(values)
    for key, value in given.items():
        section, _, item = key.rpartition(".")
        part = {} if changed.get(section) is None else changed[section]
        if not section:
            changed[item] = value
        elif isinstance(part, dict):
            changed[section] = part | {item: value}
    return changed


def _is_sound(values: Mapping[str, Any], path: Path, kind: Kind[Any]) -> bool:
    try:
        _sound(values, path, kind)
    except RecipeError:
        return False
    return True


def _sound(values: Mapping[str, Any], path: Path, kind: Kind[R]) -> R:
    built = build(values, kind, where=str(path))
    kind.check(built, functools.partial(RecipeError, path=path))
    return built


def find_recipe(source: str | Path, kind: Kind[Any] = RUN_RECIPE) -> Path:
    """Return a recipe's file by its packaged name or its path.

    Raises:
        RecipeError: There is none; the nearest packaged names are offered.
    """
    known = packaged(kind)
    if str(source) in known:
        return known[str(source)]
    path = Path(source)
    if _is_file(path):
        return path
    name = str(source)[:80]
    if any(found.stem == name for found in RECIPES_DIR.rglob("*.yaml")):
        raise RecipeError(f"{name} is no recipe of {kind.command}", remedy="see geoalign-train recipes")
    near = difflib.get_close_matches(name, known, n=3) or list(known)
    raise RecipeError(f"no recipe is called {name!r}", remedy=f"give a file, or one of {', '.join(near)}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or holds a NUL
        return False


def _read(path: Path, seen: tuple[Path, ...], kind: Kind[Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a file's values laid over those of the recipe it extends, and the notes."""
    if path.resolve() in seen:
        raise RecipeError("extends itself", path=path, remedy="take the line `extends` out of one of the files")
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, _Strict)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError("cannot be read", path=path, measured=str(error), remedy="give a recipe file") from error
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:  # a date of month 13 is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise RecipeError("is not YAML", path=path, measured=f"{where}{what}", remedy="correct that line") from error
    if not isinstance(values, dict):
        raise RecipeError("is not a recipe", path=path, measured=type(values).__name__, remedy="start with `name: …`")
    notes = _notes(text)
    parent = values.pop("extends", None)
    if parent is None:
        return values, notes
    near = path.parent / str(parent)
    base, old = _read(near if _is_file(near) else find_recipe(str(parent), kind), (*seen, path.resolve()), kind)
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = base[key] | value if both else value
    # A value that is given anew loses the old one's source.
    given = {f"{s}.{k}" for s, part in values.items() if isinstance(part, dict) for k in part}
    return base, {key: note for key, note in old.items() if key not in given} | notes


def _notes(text: str) -> dict[str, str]:
    """Return the marked comments behind values, by ``section.key``."""
    found, section = {}, ""
    for line in text.splitlines():
        match = _NOTE.match(line)
        if match and not match["indent"]:
            section = match["key"]
        elif match and match["note"]:
            found[f"{section}.{match['key']}"] = match["note"].strip()
    return found


def _override(text: str, kind: Kind[Any]) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"(\w+\.)?\w+", key):
        raise RecipeError(f"cannot be set like this: {text!r}", remedy="write section.key=value")
    section, dot, _ = key.partition(".")
    if key in kind.sections:
        raise RecipeError(f"{key!r} is a section, not a value", remedy=f"write {key}.key=value")
    if section not in kind.hints or bool(dot) != (section in kind.sections):
        homes = kind.homes(key)
        raise RecipeError(f"{key!r} names no section", remedy=f"write {homes[0] if homes else 'section.key'}=…")
    try:
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise RecipeError(f"the value of {key} is not YAML", measured=value[:60], remedy="quote it") from error


def build(values: Mapping[str, Any], kind: Kind[R], *, where: str = "recipe") -> R:
    """Make a recipe of plain values; every key must be known and every value of its type.

    Raises:
        RecipeError: Names the key and what would be right.
    """
    made: R = _dataclass(kind.made, values, "", where, kind)
    return made


def _dataclass(made: type, values: Any, prefix: str, where: str, kind: Kind[Any]) -> Any:  # noqa: ANN401 - all the parts
    if not isinstance(values, dict):
        raise RecipeError(f"{prefix.rstrip('.')} must be a section", path=where, measured=repr(values)[:60])
    hints = get_type_hints(made)
    for key in values:
        if key not in hints:
            raise _unknown(str(key), hints, prefix, where, kind)
    for item in fields(made):
        if item.default is MISSING and item.default_factory is MISSING and item.name not in values:
            raise RecipeError(
                f"{prefix}{item.name} is missing", path=where, remedy=f"add it: {_first_line(made, item.name)}"
            )
    parts = {} if prefix else kind.sections
    return made(**{
        key: _dataclass(hints[key], {} if value is None else value, f"{key}.", where, kind) if key in parts
        else _value(hints[key], value, f"{prefix}{key}", where, kind)
        for key, value in values.items()
    })  # fmt: skip


def _unknown(key: str, hints: Mapping[str, Any], prefix: str, where: str, kind: Kind[Any]) -> RecipeError:
    near = kind.homes(key) or [prefix + name for name in difflib.get_close_matches(key, hints, n=2, cutoff=0.5)]
    remedy = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(hints)}"
    return RecipeError(f"{prefix}{key} is unknown", path=where, remedy=remedy)


def _value(hint: Any, value: Any, key: str, where: str, kind: Kind[Any]) -> Any:  # noqa: ANN401 - whatever YAML holds
    """Return a value in a field's type; YAML 1.1 reads 1e-4 as text and 77 as a number, which both are meant."""

    def wrong(wanted: str) -> RecipeError:
        return RecipeError(
            f"{key} must be {wanted}", path=where, measured=f"{value!r}"[:80], remedy="correct the value"
        )

    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        return _value(next(part for part in get_args(hint) if part is not types.NoneType), value, key, where, kind)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        items = value if isinstance(value, list) else [value] if inner[-1] is ... and value is not None else None
        if items is None or (inner[-1] is not ... and len(items) != len(inner)):
            raise wrong("a list" if inner[-1] is ... else f"a list of {len(inner)} numbers")
        return tuple(_value(inner[0], item, key, where, kind) for item in items)
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise wrong("true or false")
    if hint is str:
        if isinstance(value, bool | float) or not isinstance(value, str | int):
            raise wrong("a text")
        return _choice(key, str(value), where, kind)
    if isinstance(value, str):
        value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise wrong("a whole number" if hint is int else "a number")
    if hint is int and value != int(value if math.isfinite(value) else 0.5):
        raise wrong("a whole number")
    return hint(value)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _choice(key: str, value: str, where: str, kind: Kind[Any]) -> str:
    allowed = kind.choices.get(key)
    if allowed is None or value in allowed:
        return value
    near = difflib.get_close_matches(value, allowed, n=1)
    remedy = f"{f'did you mean {near[0]}? ' if near else ''}choose one of {', '.join(allowed)}"
    raise RecipeError(f"{key} cannot be {value!r}", path=where, remedy=remedy)


@functools.cache
def field_docs(made: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, read from its source."""
    tree = ast.parse(inspect.getsource(sys.modules[made.__module__]))
    docs: dict[str, str] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name != made.__name__:
            continue
        for item, after in zip(node.body, node.body[1:], strict=False):
            match item, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split()).replace("``", "`")
    return docs


def _first_line(made: type, name: str) -> str:
    return field_docs(made).get(name, name).partition(".")[0]


def to_dict(recipe: Any) -> Any:  # noqa: ANN401 - dataclasses, tuples and plain values
    """Return a recipe, or a part of it, as plain values that :func:`build` takes back."""
    if is_dataclass(recipe):
        return {item.name: to_dict(getattr(recipe, item.name)) for item in fields(recipe)}
    return [to_dict(item) for item in recipe] if isinstance(recipe, tuple) else recipe


def dump_recipe(recipe: Any, *, comments: bool = True, notes: Mapping[str, str] | None = None) -> str:  # noqa: ANN401
    """Write a recipe of any kind out in full, as YAML that reads back to an equal recipe.

    Args:
        recipe: The recipe.
        comments: Whether each value is explained.
        notes: By ``section.key``: sources to put behind values.
    """
    lines, places = [], dict(notes or {})
    for item in fields(recipe):
        value = getattr(recipe, item.name)
        if not is_dataclass(value):
            lines += _entry(type(recipe), item.name, value, "", places.get(item.name, ""), comments)
            continue
        lines += ["", f"{item.name}:" + (f"  # {(value.__doc__ or '').partition(chr(10))[0]}" if comments else "")]
        for part in fields(value):
            note = places.get(f"{item.name}.{part.name}", "")
            lines += _entry(type(value), part.name, getattr(value, part.name), "  ", note, comments)
    return "\n".join(lines) + "\n"


def _entry(made: type, name: str, value: Any, indent: str, note: str, comments: bool) -> list[str]:  # noqa: ANN401
    doc = field_docs(made).get(name, "") if comments else ""
    explained = [f"{indent}# {line}" for line in textwrap.wrap(doc, _WIDTH - 4)]
    return [*explained, f"{indent}{name}: {_scalar(to_dict(value))}" + (f"  # {note}" if note and comments else "")]


def _scalar(value: Any) -> str:  # noqa: ANN401 - a plain value
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()
