"""A job's configuration: YAML file + `section.key=value` overrides -> one validated model.

    job = load(InferJob, find_config("configs/infer.yaml"), ["tiles=tiles/", "lattice.window=256"])

Every mistake of the user becomes a ConfigError of one sentence that names the key.
"""

from __future__ import annotations

import copy
import difflib
import os
import string
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from jobs.runtime.folder import refuse_address
from jobs.settings.fields import (
    field_of,
    flat_types,
    key_names,
    list_length,
    section_type,
    takes_list,
)
from jobs.settings.yaml_text import one_line, parse_texts, parse_value, read_yaml
from wpcrack.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)

SHOWN_KEYS = 12
"""An error lists at most this many valid keys."""


def load(
    model_type: type[Model],
    path: Path | None = None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Model:
    """Build a job's configuration from its defaults, a file and overrides, in rising priority.

    Args:
        model_type: A pydantic model; unknown keys are refused.
        path: A YAML file that holds only what differs from the defaults; None: nothing differs.
        overrides: `section.key=value`; see `_value_of` for how the value is read.
        base: Values that stand in the place of the defaults.

    Returns:
        The validated model.

    Raises:
        ConfigError: Missing or unreadable file, unknown key (the nearest valid one is named),
            value of a wrong type or out of range, required key without a value, address for path.
    """
    values = _merge(base or {}, read_yaml(path) if path is not None else {})
    given = [_parse_override(text, model_type) for text in overrides]
    for override in given:
        _assign(values, override)
    _prepare(values, model_type)
    try:
        job = model_type.model_validate(values)
    except ValidationError as error:
        source = _Source(path, frozenset(override.key for override in given))
        raise ConfigError(_explain(error, model_type, source)) from None
    refuse_address(job.model_dump())
    return job


def _merge(below: Mapping[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge nested values, of which those above count where both have one."""
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], Mapping) and isinstance(above[name], dict):
            merged[name] = _merge(below[name], above[name])
    return copy.deepcopy(merged)


def explain_value(error: ValidationError, model_type: type[BaseModel], key: str) -> str | None:
    """Say in one sentence what is wrong with the value of a key, or with the key itself.

    Args:
        error: Of a model that was valid before this key was set.
        model_type: The model.
        key: Dotted name.

    Returns:
        None if the value is right as such and only does not go together with another key's.
    """
    for details in error.errors(include_url=False):
        if details["type"] == "extra_forbidden":
            return f"unknown key {key}; {_suggestion(key, model_type)}"
        found = _key(details, model_type)
        if details["type"] != "value_error" or found.startswith(key):
            return _sentence(found, [details], model_type, _Source(None, frozenset()))
    return None


def find_config(name: str) -> Path:
    """Return the file of a CONFIG argument: a path, or the name of a config that ships with us.

    Raises:
        ConfigError: There is neither such a file nor such a shipped config.
    """
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    shipped = {file.stem: file for file in shipped_configs()}
    if name in shipped:
        return shipped[name]
    raise ConfigError(
        f"config {name} {'is a folder' if path.is_dir() else 'does not exist'}; give a YAML file, "
        f"or one of the names {', '.join(sorted(shipped)) or '(none)'} that come with the program"
    )


def shipped_configs() -> list[Path]:
    """Return the YAML files of configs/, which lie inside the package, sorted by name."""
    with resources.as_file(resources.files("jobs") / "configs") as folder:
        return sorted(folder.glob("*.yaml"))


def refuse_repeated(overrides: Sequence[str], model_type: type[BaseModel]) -> None:
    """Refuse what a user sets twice where both may be meant: a list, a section and a key of it.

    Of a single value the last one counts, so that a script's settings can be overridden.

    Raises:
        ConfigError: So it is.
    """
    known: dict[str, str] = {}
    for text in overrides:
        key = text.partition("=")[0]
        field = field_of(model_type, key)
        kind = field.annotation if field else None
        several = takes_list(kind) and list_length(kind) is None
        section = any(name != key and _holds(key, name) for name in key_names(model_type))
        before = next((one for one in known if _holds(key, one)), None)
        if before is not None and (several or section):
            remedy = f"; several are written {key}=[a,b]" if several else ""
            raise ConfigError(f"got {known[before]} and {text}; give {key} once{remedy}")
        known[key] = text


class _Override(NamedTuple):
    """One `section.key=value` of the command line."""

    key: str
    value: Any


class _Source(NamedTuple):
    """Where values came from, for the error message."""

    path: Path | None
    overridden: frozenset[str]

    def name_unknown(self, key: str) -> tuple[str, str]:
        """Return an unknown key as the user wrote it, and ` in FILE` or ` on the command line`.

        pydantic names only the unknown section that an override made.
        """
        made = (name for name in sorted(self.overridden) if name.startswith(f"{key}."))
        written = next(made, key)
        given = written in self.overridden
        return written, " on the command line" if given else self.of(written)

    def of(self, key: str) -> str:
        """Return ` in FILE` for a key that the file set, nothing for one of the command line.

        The command line may have set an item of it, or what it is an item of.
        """
        whole = key.partition("[")[0]
        given = any(_holds(one, whole) or _holds(whole, one) for one in self.overridden)
        return "" if self.path is None or given else f" in {self.path}"


def _holds(outer: str, inner: str) -> bool:
    """Return whether a dotted key is another one, or the section around it."""
    return f"{inner}.".startswith(f"{outer}.")


def _parse_override(text: str, model_type: type[BaseModel]) -> _Override:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"got {text!r}; an override is written section.key=value")
    try:
        return _Override(key, _value_of(value, field_of(model_type, key)))
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of {text!r} is not valid YAML: {one_line(error)}") from None


def _value_of(text: str, field: FieldInfo | None) -> Any:
    """Read the value of an override as its key means it.

    Paths and texts are taken as they were typed: `city #2`, `null` and `[2024]` are names. Nothing
    at all is null. A key that takes several texts reads `[a, b]` as a list, unless a file of this
    very name exists. All others are YAML (`1e-3`, `[1, 2]`, `null`).

    Raises:
        yaml.YAMLError: The text is not YAML.
    """
    wanted = frozenset(flat_types(field.annotation)) if field else frozenset()
    if not {str, Path} & wanted:
        return parse_value(text)
    if not text:
        return None
    if wanted & {bool, int, float}:
        try:
            value = parse_value(text)
        except yaml.YAMLError:
            return text
        return value if type(value) in wanted else text
    is_list = text.startswith("[") and text.endswith("]")
    if field and is_list and takes_list(field.annotation) and not os.path.lexists(text):
        return parse_texts(text)
    return text


def _prepare(values: dict[str, Any], model_type: type[BaseModel]) -> None:
    """Replace a leading `~` in paths and texts by the home directory, as a shell would.

    Where a number is wanted, `true` becomes a text: pydantic would take it for 1. An empty path is
    null, not the working folder.
    """
    for name, field in model_type.model_fields.items():
        value, section = values.get(name), section_type(field.annotation)
        if section is not None and isinstance(value, dict):
            if isinstance(field.default, BaseModel):  # what it holds beside the section's defaults
                value = _merge(field.default.model_dump(exclude_defaults=True), value)
                values[name] = value
            _prepare(value, section)
        elif value is not None:
            values[name] = _prepared(value, frozenset(flat_types(field.annotation)))


def _prepared(value: Any, wanted: frozenset[type]) -> Any:
    if isinstance(value, list):
        return [_prepared(item, wanted) for item in value]
    if value == "" and Path in wanted:
        return None
    is_text = bool({str, Path} & wanted)
    if isinstance(value, bool) and bool not in wanted and (not is_text or wanted & {int, float}):
        return str(value).lower()
    return os.path.expanduser(value) if is_text and isinstance(value, str) else value


def _assign(values: dict[str, Any], override: _Override) -> None:
    """Write an override into nested values; sections that are absent or null are made."""
    *sections, last = override.key.split(".")
    section = values
    for depth, name in enumerate(sections):
        if section.get(name) is None:
            section[name] = {}
        inner = section[name]
        if not isinstance(inner, dict):
            dotted = ".".join(sections[: depth + 1])
            raise ConfigError(f"{override.key}: {dotted} is {inner!r}, not a section with keys")
        section = inner
    section[last] = override.value


def _explain(error: ValidationError, model_type: type[BaseModel], source: _Source) -> str:
    """Write one sentence for the most telling key; further wrong keys are only named."""
    by_key: dict[str, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_key.setdefault(_key(details, model_type), []).append(details)
    ranked = sorted(by_key, key=lambda key: by_key[key][0]["type"] != "extra_forbidden")
    first, *others = ranked
    more = f" (also wrong: {', '.join(others)})" if others else ""
    return _sentence(first, by_key[first], model_type, source) + more


def _key(details: ErrorDetails, model_type: type[BaseModel]) -> str:
    """Return the key as the user writes it; pydantic's location also names members of unions.

    What a list lacks is the list's own fault.
    """
    name = ""
    current: type[BaseModel] | None = model_type
    for part in details["loc"][:-1] if _lacks_item(details) else details["loc"]:
        if isinstance(part, int):
            name += f"[{part}]"
        elif current is not None:
            name += f".{part}" if name else part
            field = current.model_fields.get(part)
            current = section_type(field.annotation) if field else None
    return name


def _sentence(
    key: str, problems: list[ErrorDetails], model_type: type[BaseModel], source: _Source
) -> str:
    details, where = problems[0], source.of(key)
    match details["type"]:
        case "extra_forbidden":
            key, where = source.name_unknown(key)
            return f"unknown key {key}{where}; {_suggestion(key, model_type)}"
        case "missing" if not _lacks_item(details):
            key = _first_required(key, model_type)
            return f"{key} is required; set it as {key}=VALUE or in the config file"
        case "value_error":
            reason = details["msg"].removeprefix("Value error, ")
            if not key:  # of keys that do not go together, some of which may stand elsewhere
                return reason if source.overridden else f"{reason}{where}"
            return f"{key}{where}: {reason}"
        case "model_type" | "model_attributes_type":
            return f"{key} is {details['input']!r}{where}, but it is a section with keys of its own"
    field = field_of(model_type, key)
    expected = dict.fromkeys(_expectation(problem, field) for problem in problems)
    return f"{key} is {details['input']!r}{where}, but must be {' or '.join(expected)}"


def _first_required(key: str, model_type: type[BaseModel]) -> str:
    """Return the first key without a default in a missing section; the key itself for a value."""
    current: type[BaseModel] | None = model_type
    for part in key.split("."):
        field = current.model_fields.get(part) if current else None
        current = section_type(field.annotation) if field else None
    fields = current.model_fields.items() if current else ()
    inner = next((name for name, field in fields if field.is_required()), None)
    return key if inner is None else _first_required(f"{key}.{inner}", model_type)


def _lacks_item(details: ErrorDetails) -> bool:
    """Return whether a list of a fixed length is too short."""
    return details["type"] == "missing" and isinstance(details["loc"][-1], int)


def _expectation(problem: ErrorDetails, field: FieldInfo | None) -> str:
    """Take `a valid integer` out of pydantic's `Input should be a valid integer, unable ...`."""
    if problem["type"] == "path_type":
        return "a path"
    if problem["type"].startswith("date_"):
        return "a date like 2025-05-31"
    if problem["type"] in ("tuple_type", "too_short", "too_long") or _lacks_item(problem):
        return _list_wanted(problem, field)
    subject, should, rest = problem["msg"].split(", unable")[0].partition(" should be ")
    return rest if should else f"such that {subject[0].lower()}{subject[1:]}"


def _list_wanted(problem: ErrorDetails, field: FieldInfo | None) -> str:
    """Say how many values a list has, and how one is written where there is none."""
    count = list_length(field.annotation) if field else None
    bounds = problem.get("ctx", {})
    wanted = "a list"
    if count is not None:
        wanted += f" of {count} values"
    elif "min_length" in bounds:
        wanted += f" of at least {bounds['min_length']}"
    elif "max_length" in bounds:
        wanted += f" of at most {bounds['max_length']}"
    given = problem["input"]
    if isinstance(given, list | tuple):
        return wanted
    items = str(given).split(",") if isinstance(given, str | int | float) else []
    fits = len(items) == count if count is not None else bool(items)
    example = ",".join(items) if fits else ", ".join(string.ascii_lowercase[: count or 2])
    return f"{wanted}, written [{example}]"


def _suggestion(key: str, model_type: type[BaseModel]) -> str:
    names = [name for name in key_names(model_type) if not _holds(name, key)]
    same_leaf = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if near or same_leaf:
        return f"did you mean {(near or same_leaf)[0]}?"
    section, siblings = key, list[str]()
    while section and not siblings:
        section = section.rpartition(".")[0]
        siblings = [name for name in names if name.rpartition(".")[0] == section]
    dots = ", ..." if len(siblings) > SHOWN_KEYS else ""
    return f"valid keys are {', '.join(siblings[:SHOWN_KEYS])}{dots}"
