"""The documents say what is: links, commands, targets, paths, codes and examples are looked up."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml

from virtmgr.cli.main import root
from virtmgr.domain import migration
from virtmgr.domain.states import mermaid
from virtmgr.domain.workload import WorkloadSpec

ROOT = Path(__file__).resolve().parents[2]
OWN = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
ALL = sorted({*OWN, *ROOT.glob("*.md")})
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SHELL = ("sh", "console", "bash")


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _prose(path: Path) -> str:
    return _FENCE.sub("", _text(path))


def _shell_lines(path: Path) -> Iterator[str]:
    """Lines that somebody would type: of a ``console`` block only those after a prompt."""
    for language, block in _FENCE.findall(_text(path)):
        if language not in _SHELL:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if language == "console" and not re.match(r"[$#] ", line):
                continue
            yield re.sub(r"^[$#] ", "", line)
    yield from _SPAN.findall(_prose(path))


# ---- links


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_links_lead_somewhere(path: Path) -> None:
    for target in _LINK.findall(_prose(path)):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{_id(path)} links to {target}"
        if anchor:
            assert anchor in _anchors(there), f"{_id(path)} links to {target}"


def _anchors(path: Path) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", _prose(path), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found)
    return {heading.strip().replace(" ", "-") for heading in plain}


def test_every_document_is_reachable_from_the_readme() -> None:
    seen, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        path = todo.pop()
        seen.add(path)
        for target in _LINK.findall(_prose(path)):
            there = (path.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there.exists() and there not in seen:
                todo.append(there)
    assert not [_id(path) for path in OWN if path not in seen]


# ---- commands


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_commands_exist(path: Path) -> None:
    for line in _shell_lines(path):
        for words in _calls(line):
            problem = _problem(words)
            assert problem is None, f"{_id(path)}: {line.strip()}: {problem}"


def _calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of virtmgr in a line."""
    if re.match(r"(?:ln|tar|apt-get|pg_dump|sqlite3) ", line):
        return  # virtmgr is an argument there
    for found in re.finditer(r"(?:^|[\s(/])virtmgr (?=\S)([^|;)>]*)", line.partition(" # ")[0]):
        try:
            yield shlex.split(found[1])
        except ValueError:
            yield found[1].split()


def _problem(words: list[str]) -> str | None:
    """What is wrong with a call; None: nothing. WORDS IN CAPITALS stand for anything."""
    command: click.Command = root
    context = click.Context(root, info_name="virtmgr")
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return None
        if word.startswith("-"):
            if not _has_option(command, context, word.partition("=")[0]):
                return f"{command.name} has no option {word}"
            continue
        if not isinstance(command, click.Group):
            if command.name in ("exec", "run") and not word.isupper():
                return None  # what follows may be options of the command that is run
            continue
        if word.isupper() or word in ("…", "...") or _is_value(command, words, word):
            if word.isupper() or word in ("…", "..."):
                return None
            continue
        following = command.get_command(context, word)
        if following is None:
            return f"{command.name} has no command {word}"
        context = click.Context(following, info_name=word, parent=context)
        command = following
    return None


def _is_value(command: click.Command, words: list[str], word: str) -> bool:
    """Whether ``word`` belongs to the option before it."""
    before = words[words.index(word) - 1] if words.index(word) else ""
    found = [p for p in command.params if isinstance(p, click.Option) and before in p.opts]
    return bool(found) and not found[0].is_flag


def _has_option(command: click.Command, context: click.Context, name: str) -> bool:
    known = {opt for p in command.get_params(context) for opt in (*p.opts, *p.secondary_opts)}
    if name in known:
        return True
    letters = name[1:] if re.fullmatch(r"-[a-z]{2,}", name) else ""
    return bool(letters) and all(f"-{letter}" in known for letter in letters)


def test_what_the_test_itself_notices() -> None:
    assert _problem(["list", "-A", "-o", "wide"]) is None
    assert _problem(["--context", "lab", "list"]) is None
    assert _problem(["exec", "-it", "web1", "--", "sh", "--nonsense"]) is None
    assert _problem(["lsit"]) is not None
    assert _problem(["host", "bind", "NAME"]) is not None
    assert _problem(["list", "--nonsense"]) is not None


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_make_targets_exist(path: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", _text(ROOT / "Makefile"), re.MULTILINE))
    for line in _shell_lines(path):
        for target in re.findall(r"(?:^|[\s;&])make ([a-z][a-z-]*)", line):
            assert target in known, f"{_id(path)}: {line.strip()}"


# ---- what is in the code


@pytest.mark.parametrize("path", OWN, ids=_id)
def test_paths_exist(path: Path) -> None:
    top = r"(?:virtmgr|tests|scripts|migrations|bench|examples)"
    for span in _SPAN.findall(_prose(path)):
        if re.fullmatch(rf"{top}/[\w./-]*", span) and "NAME" not in span:
            assert (ROOT / span).exists(), f"{_id(path)} names {span}"


@pytest.mark.parametrize("path", OWN, ids=_id)
def test_names_in_the_code_exist(path: Path) -> None:
    """``tests/…/test_x.py::test_name`` and ``virtmgr/…/x.py::name`` are there."""
    for file, name in re.findall(r"`((?:virtmgr|tests)/[\w./-]+\.py)::(\w+)`", _prose(path)):
        assert re.search(rf"\b{name}\b", _text(ROOT / file)), f"{_id(path)} names {file}::{name}"


def test_error_codes_exist() -> None:
    sources = "\n".join(_text(path) for path in sorted(ROOT.glob("virtmgr/**/*.py")))
    section = _text(ROOT / "docs/operator-guide.md").partition("## Troubleshooting")[2]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", section, re.MULTILINE)
    codes = [code for row in rows for code in re.findall(r"`(\w+)`", row)]
    assert len(codes) > 20
    built = {"lacks_vcpus", "lacks_memory", "lacks_disk"}  # made of the resource's name
    built |= {
        "host_unreachable",
        "host_cordoned",
        "host_enrolling",
        "host_draining",
    }  # … and of the host's state
    assert not [code for code in codes if f'"{code}"' not in sources and code not in built]


def _workloads() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in ALL:
        for language, block in _FENCE.findall(_text(path)):
            if language == "yaml":
                yield from ((_id(path), found) for found in yaml.safe_load_all(block))
    for path in sorted(ROOT.glob("examples/*.yaml")):
        yield from ((_id(path), found) for found in yaml.safe_load_all(_text(path)))


def test_examples_of_workloads_are_valid() -> None:
    checked = 0
    for where, document in _workloads():
        if not isinstance(document, dict) or document.get("kind") not in ("vm", "container"):
            continue
        spec = {key: value for key, value in document.items() if key not in ("type", "project")}
        assert WorkloadSpec.model_validate(spec).name, where
        checked += 1
    assert checked >= 4


# ---- what is made from the code


@cache
def _generator() -> ModuleType:
    path = str(ROOT / "scripts/generate-docs")
    loader = importlib.machinery.SourceFileLoader("generate_docs", path)
    spec = importlib.util.spec_from_loader("generate_docs", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_state_diagram_is_the_state_machine() -> None:
    blocks = [
        block
        for language, block in _FENCE.findall(_text(ROOT / "docs/architecture.md"))
        if language == "mermaid" and block.startswith("stateDiagram")
    ]
    assert blocks == [mermaid(), migration.mermaid()]


def test_what_is_made_from_the_code_is_fresh() -> None:
    pytest.importorskip("libvirt", reason="the VM driver's features need libvirt-python")
    stale = [_id(path) for path in _generator().stale()]
    assert not stale, "run '.venv/bin/python scripts/generate-docs'"


def test_every_field_of_a_workload_is_described() -> None:
    section = _text(ROOT / "docs/workload.md").partition("## The workload")[2]
    for name in WorkloadSpec.model_fields:
        row = re.search(rf"^\| `{name}` \| .* \| .* \| (.+) \|$", section, re.MULTILINE)
        assert row, name
        assert row[1].strip(), name
