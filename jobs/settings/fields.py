"""The keys of a model of settings, by dotted name, and what each accepts."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def field_of(model_type: type[BaseModel], key: str) -> FieldInfo | None:
    """Return what a model says of a dotted key; None for an unknown one."""
    *sections, last = key.split(".")
    current: type[BaseModel] | None = model_type
    for name in sections:
        field = current.model_fields.get(name) if current else None
        current = section_type(field.annotation) if field else None
    return current.model_fields.get(last) if current else None


def takes_list(annotation: Any) -> bool:
    """Return whether a union has a tuple or a list among its members."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(takes_list(part) for part in typing.get_args(annotation))
    return origin in (tuple, list)


def list_length(annotation: Any) -> int | None:
    """Return how many values a tuple of a fixed length has, also inside a union; else None."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return next((n for n in map(list_length, parts) if n is not None), None)
    return len(parts) if origin is tuple and Ellipsis not in parts else None


def flat_types(annotation: Any) -> Iterator[type]:
    """Yield the plain types inside unions and Annotated; of containers nothing."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from flat_types(part)
    elif origin is typing.Annotated:
        yield from flat_types(typing.get_args(annotation)[0])
    elif isinstance(annotation, type):
        yield annotation


def section_type(annotation: Any) -> type[BaseModel] | None:
    """Return the model behind a section (`Block` or `Block | None`); None for a plain value."""
    return next((kind for kind in flat_types(annotation) if issubclass(kind, BaseModel)), None)


def key_names(model_type: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield all dotted names that can be set, sections before their keys."""
    for name, field in model_type.model_fields.items():
        yield prefix + name
        if section := section_type(field.annotation):
            yield from key_names(section, f"{prefix}{name}.")
