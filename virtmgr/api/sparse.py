"""``fields=name,status.state``: only some fields of each item of a list."""

from __future__ import annotations

from typing import Any, Final, get_args

from pydantic import BaseModel

from virtmgr.domain.errors import InvalidRequest

Tree = dict[str, "Tree"]
"""Wanted fields; an empty tree below a name means all of it."""

_MOST: Final = 64


def parse_fields(text: str) -> Tree:
    """The fields that ``text`` names.

    :raises InvalidRequest: it names none, or too many.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(names) > _MOST:
        raise InvalidRequest(f"fields names 1 to {_MOST} fields", field="fields")
    tree: Tree = {}
    for name in names:
        branch = tree
        for part in name.split("."):
            branch = branch.setdefault(part, {})
    return tree


def check_fields(tree: Tree, model: type[BaseModel]) -> None:
    """Refuse names that the items do not have; inside free objects, such as labels, any will do.

    :raises InvalidRequest: naming the unknown field and those there are.
    """
    unknown = sorted(set(tree) - set(model.model_fields))
    if unknown:
        raise InvalidRequest(
            f"there is no field {unknown[0]!r}",
            field="fields",
            hint="there are " + ", ".join(model.model_fields),
        )
    for name, inner in tree.items():
        models = models_in(model.model_fields[name].annotation)
        if inner and len(models) == 1:
            check_fields(inner, models[0])


def item_model(listing: Any) -> type[BaseModel]:
    """What a list, such as ``Listing[ProjectView]``, has items of."""
    return models_in(listing.model_fields["items"].annotation)[0]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation: one for ``View``, ``View | None`` and ``list[View]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def select(value: Any, tree: Tree) -> Any:
    """``value`` with only the wanted fields, inside lists too."""
    if not tree:
        return value
    if isinstance(value, list):
        return [select(item, tree) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: select(value[name], inner) for name, inner in tree.items() if name in value}
