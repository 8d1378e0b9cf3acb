"""What the console asks of the API, read from its source: the paths that it hands to ``Rest``."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ANY: Final = "*"  # a part that only shows when it runs: one segment, or any method
_METHOD_OF: Final = {"get": "GET", "stream": "GET"}
_TAKE_METHOD: Final = ("ask", "send", "pass_on")
_SCOPES: Final = (ast.FunctionDef, ast.ClassDef)
_LISTS: Final = ("ListPage", "Searched")  # what says which list is read


@dataclass(frozen=True)
class Asked:
    """One request that the console makes: METHOD and the path's template."""

    method: str
    path: str
    where: str = field(compare=False)


def asked(package: Path) -> set[Asked]:
    """What any module of ``package`` asks."""
    modules = {path: ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}
    shared = _constants(modules.values())
    found = set()
    for path, module in modules.items():
        functions = [part for part in module.body if isinstance(part, _SCOPES)]
        own = _assigned([part for part in module.body if not isinstance(part, _SCOPES)])
        scopes = [(part, _assigned([part])) for part in functions] + [(module, {})]
        told: set[ast.AST] = set()
        for scope, local in scopes:
            for node in ast.walk(scope):
                if isinstance(node, ast.Call) and node not in told:
                    told.add(node)
                    names = {**shared, **own, **local}
                    found |= set(_of_call(node, names, f"{path.name}:{node.lineno}"))
    return found


def _constants(modules: Iterable[ast.Module]) -> dict[str, list[ast.expr]]:
    """What modules may import of each other."""
    found: dict[str, list[ast.expr]] = {}
    for module in modules:
        for name, values in _assigned(module.body).items():
            if name.isupper() and not name.startswith("_"):
                found.setdefault(name, []).extend(values)
    return found


def _assigned(statements: Iterable[ast.stmt]) -> dict[str, list[ast.expr]]:
    """Everything that is bound to each name anywhere in the statements."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(ast.Module(list(statements), [])):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name, value in _pairs(target, node.value):
                    found.setdefault(name, []).append(value)
        elif (
            isinstance(node, ast.AnnAssign | ast.NamedExpr)
            and isinstance(node.target, ast.Name)
            and node.value is not None
        ):
            found.setdefault(node.target.id, []).append(node.value)
    return found


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=True):
            yield from _pairs(one, its)


def _of_call(call: ast.Call, names: dict[str, list[ast.expr]], where: str) -> Iterator[Asked]:
    function = call.func
    if isinstance(function, ast.Name) and function.id in _LISTS:
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        texts = {text for value in given for text in _texts(value, names)}
        yield from (Asked("GET", text, where) for text in texts if text.startswith("/"))
        return
    if not isinstance(function, ast.Attribute) or not _is_rest(function.value):
        return
    if function.attr in _METHOD_OF and call.args:
        methods, path = {_METHOD_OF[function.attr]}, call.args[0]
    elif function.attr in _TAKE_METHOD and len(call.args) > 1:
        methods, path = _texts(call.args[0], names), call.args[1]
    else:
        return
    for method in methods:
        yield from (Asked(method, text, where) for text in _texts(path, names) if "/" in text)


def _is_rest(value: ast.expr) -> bool:
    name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
    return name.lstrip("_") == "rest"


def _texts(value: ast.expr, names: dict[str, list[ast.expr]], depth: int = 0) -> set[str]:
    """What ``value`` may be; what cannot be told is ``ANY``."""
    if isinstance(value, ast.Constant):
        return {str(value.value)} if isinstance(value.value, str) else {ANY}
    if isinstance(value, ast.Name) and depth < 4 and value.id in names:
        return {text for each in names[value.id] for text in _texts(each, names, depth + 1)}
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        left, right = _texts(value.left, names, depth), _texts(value.right, names, depth)
        return {first + second for first in left for second in right}
    if isinstance(value, ast.IfExp):
        return _texts(value.body, names, depth) | _texts(value.orelse, names, depth)
    if isinstance(value, ast.JoinedStr):
        made = {""}
        for part in value.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            made = {text + more for text in made for more in _texts(inner, names, depth)}
        return made
    return {ANY}
