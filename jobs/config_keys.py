"""Which keys a configuration model has, by dotted name, and what each accepts."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel


def leaf_types(model_type: type[BaseModel], key: str) -> frozenset[type]:
    """The plain types that a dotted key accepts; empty for an unknown key."""
    *sections, last = key.split(".")
    current: type[BaseModel] | None = model_type
    for name in sections:
        field = current.model_fields.get(name) if current else None
        current = section_type(field.annotation) if field else None
    field = current.model_fields.get(last) if current else None
    return frozenset(flat_types(field.annotation)) if field else frozenset()


def flat_types(annotation: Any) -> Iterator[type]:
    """The plain types inside unions and Annotated; containers give themselves."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from flat_types(part)
    elif origin is typing.Annotated:
        yield from flat_types(typing.get_args(annotation)[0])
    elif isinstance(annotation, type):
        yield annotation


def section_type(annotation: Any) -> type[BaseModel] | None:
    """The model behind a section (`Block` or `Block | None`); None for a plain value."""
    return next((kind for kind in flat_types(annotation) if issubclass(kind, BaseModel)), None)


def key_names(model_type: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All dotted names that can be set, sections before their keys."""
    for name, field in model_type.model_fields.items():
        yield prefix + name
        if section := section_type(field.annotation):
            yield from key_names(section, f"{prefix}{name}.")
