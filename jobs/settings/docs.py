"""The defaults of a job as documented YAML, made from the docstrings of its fields."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from jobs.settings.fields import section_type

WIDTH = 96
"""Comments are wrapped at this column."""

_OTHERS: dict[Any, tuple[str, ...]] = {bool: ("true", "false"), Path: ("a path",)}
"""What else a key may be that takes some names."""


def render_defaults(
    model_type: type[BaseModel],
    *,
    commented: bool = False,
    shipped: Mapping[str, Any] | None = None,
) -> str:
    """Write every key with its default and its meaning; required keys stand commented out.

    Reading the text back gives the defaults again, once the required keys are filled in.

    Args:
        model_type: The configuration.
        shipped: Values that the command takes in the place of the defaults.
        commented: Every key stands commented out, as one that is left out means something else
            than the default.
    """
    title = (model_type.__doc__ or model_type.__name__).strip().splitlines()[0]
    lines = list(_keys(model_type, None, shipped or {}, ""))
    if commented:
        lines = [line if line.lstrip().startswith("#") else f"#{line}" for line in lines]
    return "\n".join([f"# {title}", "", *lines]) + "\n"


def _keys(
    model_type: type[BaseModel],
    values: BaseModel | None,
    shipped: Mapping[str, Any],
    indent: str,
) -> Iterator[str]:
    """Yield the lines of one section; `values` holds its defaults where the parent sets its own."""
    for name, field in model_type.model_fields.items():
        yield from _comment(field, indent)
        section = section_type(field.annotation)
        required = values is None and field.is_required()
        default = getattr(values, name) if values else field.get_default(call_default_factory=True)
        if section is not None and (required or isinstance(default, BaseModel)):
            yield f"{indent}{name}:"
            inner = shipped.get(name, {})
            yield from _keys(section, None if required else default, inner, indent + "  ")
        elif required and name not in shipped:
            yield f"{indent}# {name}:  (required)"
        else:
            yield f"{indent}{name}: {_scalar(shipped.get(name, default))}"


def _comment(field: FieldInfo, indent: str) -> Iterator[str]:
    choices = _choices(field.annotation)
    text = " ".join((field.description or "").split())
    if choices:
        text = f"{text} One of: {', '.join(choices)}.".strip()
    for line in textwrap.wrap(text, WIDTH - len(indent)):
        yield f"{indent}# {line}"


def _choices(annotation: Any) -> list[str]:
    """Return the values of a Literal, also inside a tuple or a union, with the rest of the union.

    >>> _choices(Literal["horizontal"] | bool | None), _choices(bool | None)
    (['horizontal', 'true', 'false'], [])
    """
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    parts = get_args(annotation)
    named = [choice for part in parts for choice in _choices(part)]
    return named + [word for part in parts for word in _OTHERS.get(part, ()) if named]


def _scalar(value: object) -> str:
    plain = TypeAdapter(Any).dump_python(value, mode="json")
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
