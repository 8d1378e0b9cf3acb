"""``events``: the log of what happened; with ``-f`` also of what happens now."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from virtmgr.cli.client import Client
from virtmgr.cli.command import command, output_option
from virtmgr.cli.output import at, cell, local_time
from virtmgr.cli.problems import TIMEOUT, UNREACHABLE
from virtmgr.cli.session import Session, pass_session
from virtmgr.domain.difference import to_yaml
from virtmgr.domain.errors import Unavailable

Events = Generator[dict[str, Any], None, None]

_SILENCE = 90.0  # seconds without even a keep-alive after which to connect again
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0


@dataclass(frozen=True)
class ServerSentEvent:
    """One event of an event stream (HTML Living Standard, 9.2)."""

    id: str | None
    event: str
    data: str


@command("events")
@click.option("--follow", "-f", is_flag=True, help="Go on as they happen, until interrupted.")
@click.option("--after", metavar="ID", help="Only those after the event with this id.")
@click.option("--type", "type_", metavar="TYPE", help="Such as workload.created.")
@click.option("--target", metavar="ID", help="Only those of this workload, host, …")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@output_option
@pass_session
def events(
    session: Session,
    follow: bool,
    after: str | None,
    type_: str | None,
    target: str | None,
    limit: int,
) -> None:
    """Show the log: the latest events, or with -f also every new one."""
    query = {"after": after, "type": type_, "target": target}
    found = list(session.client.pages("/events", query, limit=limit))
    found.sort(key=_sequence)
    if session.output == "json" and not follow:
        click.echo(json.dumps(found, indent=2))
    else:
        for event in found:
            _show(session, event)
    if follow:
        last = str(_sequence(found[-1])) if found else after
        for event in stream(session.client, {"type": type_, "target": target}, last):
            _show(session, event)


def stream(client: Client, query: Mapping[str, Any], last: str | None) -> Events:
    """Every event after the one with id ``last``, for ever; connects again where it left off."""
    pause = _FIRST_PAUSE
    while True:
        try:
            for event in _connection(client, query, last):
                pause = _FIRST_PAUSE
                if event.id:
                    last = event.id
                if event.data:
                    yield json.loads(event.data)
        except Unavailable as error:
            if error.code not in (UNREACHABLE, TIMEOUT):
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _connection(
    client: Client, query: Mapping[str, Any], last: str | None
) -> Iterator[ServerSentEvent]:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    opened = client.stream("GET", "/events", query, headers=headers, timeout=_SILENCE)
    with opened as response:
        yield from parse(client.transport.read_chunks(response))


def parse(chunks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """The events in an event stream; comments (keep-alives) are dropped. Pure."""
    identifier: str | None = None
    kind, data = "message", list[str]()
    for line in _lines(chunks):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerSentEvent(identifier, kind, "\n".join(data))
            kind, data = "message", []
        elif name == "id":
            identifier = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode()


def _sequence(event: Mapping[str, Any]) -> int:
    return int(event.get("sequence") or event.get("id") or 0)


def _show(session: Session, event: Mapping[str, Any]) -> None:
    if session.output == "json":
        click.echo(json.dumps(event))
    elif session.output == "yaml":
        click.echo("---\n" + to_yaml(event), nl=False)
    else:
        who = at(event, "user.name") or event.get("user") or "virtmgr"
        target = f"{at(event, 'target.type')} {at(event, 'target.name')}"
        line = f"{local_time(event['at'])}  {event['type']}  {target}  {who}"
        click.echo(f"{line}  {cell(event.get('message'))}" if event.get("message") else line)
