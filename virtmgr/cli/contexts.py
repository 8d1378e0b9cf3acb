"""Contexts: which server, as whom, in which project. Kept in a file that only its owner reads."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from virtmgr.domain.errors import InvalidRequest, NotFound


@dataclass(frozen=True)
class Context:
    """One server and how to talk to it. ``ca`` is PEM text; it wins over ``ca_file``."""

    server: str
    ca_file: str | None = None
    ca: str | None = None
    token: str | None = field(default=None, repr=False)
    project: str | None = None


@dataclass(frozen=True)
class Contexts:
    """The configuration file's content."""

    current: str | None = None
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def with_context(self, name: str, context: Context, *, use: bool) -> Contexts:
        current = name if use or self.current is None else self.current
        return Contexts(current, {**self.contexts, name: context})

    def without(self, name: str) -> Contexts:
        rest = {key: value for key, value in self.contexts.items() if key != name}
        return Contexts(None if self.current == name else self.current, rest)

    def named(self, name: str) -> Context:
        """
        :raises NotFound: there is no such context.
        """
        if name not in self.contexts:
            raise NotFound(
                f"there is no context {name!r}",
                hint="'virtmgr context list' shows those that exist",
            )
        return self.contexts[name]


def config_path(environment: Mapping[str, str]) -> Path:
    """Where the configuration is: VIRTMGR_CONFIG, else the XDG base directory's place."""
    if given := environment.get("VIRTMGR_CONFIG"):
        return Path(given).expanduser()
    base = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "virtmgr" / "config.yaml"


def load(path: Path) -> Contexts:
    """The contexts in ``path``; none if there is no such file.

    :raises InvalidRequest: others may read the file, or it is not what it should be.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise InvalidRequest(
                    f"{path} holds tokens and may be read by others; it is not used",
                    hint=f"chmod 600 {path}",
                )
            text = file.read()
    except FileNotFoundError:
        return Contexts()
    return _parse(path, text)


def save(path: Path, contexts: Contexts) -> None:
    """Replace ``path`` atomically; only its owner may read it.

    It is written as JSON, which is YAML too and is read back without importing a YAML parser.
    """
    import tempfile

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    described = {
        "current": contexts.current,
        "contexts": {
            name: {key: value for key, value in vars(context).items() if value is not None}
            for name, context in contexts.contexts.items()
        },
    }
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(described, file, indent=2)
            file.write("\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def choose(contexts: Contexts, name: str | None, environment: Mapping[str, str]) -> Context:
    """The context to work in: ``name``, else VIRTMGR_CONTEXT, else the current one.

    VIRTMGR_SERVER, _TOKEN, _CA_FILE and _PROJECT then override its parts. A server that is given
    so without its own token gets none: a token never goes to another server than its own.

    :raises NotFound: the named context does not exist.
    :raises InvalidRequest: no server is known.
    """
    name = name or environment.get("VIRTMGR_CONTEXT") or contexts.current
    context = contexts.named(name) if name else Context(server="")
    if (server := environment.get("VIRTMGR_SERVER")) and server != context.server:
        context = Context(server=server, project=context.project)
    overrides = {
        key: environment[variable]
        for key, variable in (
            ("token", "VIRTMGR_TOKEN"),
            ("ca_file", "VIRTMGR_CA_FILE"),
            ("project", "VIRTMGR_PROJECT"),
        )
        if environment.get(variable)
    }
    if "ca_file" in overrides:
        context = replace(context, ca=None)
    context = replace(context, **overrides)
    if not context.server:
        raise InvalidRequest(
            "no server is known",
            hint="run 'virtmgr context add NAME --server URL --ca-file FILE', or set "
            "VIRTMGR_SERVER and VIRTMGR_TOKEN",
        )
    return context


def _parse(path: Path, text: str) -> Contexts:
    try:
        read = json.loads(text)
    except ValueError:
        read = _parse_yaml(path, text)
    try:
        contexts = {str(name): Context(**value) for name, value in read["contexts"].items()}
        return Contexts(read.get("current"), contexts)
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(
            f"{path} is not a virtmgr configuration: {error}",
            hint="docs/cli.md shows what it looks like; 'virtmgr context add' writes it",
        ) from error


def _parse_yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{path} is neither YAML nor JSON: {error}") from error
