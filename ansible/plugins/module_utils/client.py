"""A small client of virtmgr's REST API, and how a thing is brought to what is wanted.

Runs on the controller or on any machine with Python 3.8 or newer. Nothing but ansible's own
``open_url`` is used.
"""

from __future__ import annotations

import json
import os
import time
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode

from ansible.module_utils.urls import open_url

_DONE = ("succeeded", "failed", "cancelled")

# Options of every module, and of the inventory plugin.
CONNECTION = {
    "server": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "token_file": {"type": "path"},
    "ca_file": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 300},
}


class ApiError(Exception):
    """The server refused, failed, or cannot be reached; ``problem`` is what it said (RFC 9457)."""

    def __init__(self, message, status=None, problem=None):
        super().__init__(message)
        self.status = status
        self.problem = problem or {}


class Client:
    """Asks one server."""

    def __init__(self, server, token, ca_file=None, validate_certs=True, timeout=300):
        self._base = server.rstrip("/") + "/api/v1"
        self._token = token
        self._ca_file = ca_file
        self._validate_certs = validate_certs
        self.timeout = timeout

    @classmethod
    def from_options(cls, options):
        """From the options in ``CONNECTION``; what is missing comes from the environment.

        :raises ApiError: server or token are missing.
        """
        server = options.get("server") or os.environ.get("VIRTMGR_SERVER")
        if not server:
            raise ApiError("no server: give 'server', or set VIRTMGR_SERVER")
        return cls(
            server,
            _token(options),
            ca_file=options.get("ca_file") or os.environ.get("VIRTMGR_CA_FILE"),
            validate_certs=options.get("validate_certs", True),
            timeout=options.get("timeout") or 300,
        )

    def get(self, path, **query):
        """The answer and its ETag; (None, None) where there is nothing."""
        try:
            return self._send("GET", path, query=query)
        except ApiError as error:
            if error.status == 404:
                return None, None
            raise

    def list(self, path, **query):
        """Every item of a list, page by page."""
        query = dict(query, limit=500)
        while True:
            page, _etag = self._send("GET", path, query=query)
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    def change(self, method, path, body=None, dry_run=False, etag=None):
        """Send a change; the answer, or what it would be."""
        query = {"dry_run": "true"} if dry_run else {}
        answer, _etag = self._send(method, path, body=body, query=query, etag=etag)
        return answer.get("would", {}) if dry_run and answer else answer

    def wait(self, operation):
        """Wait for an operation to end.

        :raises ApiError: it failed, or did not end in time.
        """
        deadline = time.monotonic() + self.timeout
        while operation["state"] not in _DONE:
            if time.monotonic() > deadline:
                how = f"{operation['verb']} is still {operation['state']}"
                raise ApiError(f"{how} after {self.timeout} s")
            time.sleep(0.5)
            operation, _etag = self._send("GET", "/operations/" + operation["id"])
        if operation["state"] != "succeeded":
            problem = operation.get("error") or {}
            said = _told(problem) or operation.get("message") or operation["state"]
            raise ApiError(f"{operation['verb']} failed: {said}", problem=problem)
        return operation

    def _send(self, method, path, body=None, query=None, etag=None):
        url = self._base + path + ("?" + urlencode(query) if query else "")
        headers = {"Authorization": "Bearer " + self._token, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if etag:
            headers["If-Match"] = etag
        try:
            response = open_url(
                url,
                method=method,
                headers=headers,
                data=None if body is None else json.dumps(body).encode(),
                timeout=60,
                validate_certs=self._validate_certs,
                ca_path=self._ca_file,
                use_proxy=False,
                follow_redirects="none",
            )
        except HTTPError as error:
            problem = _json(error.read())
            said = _told(problem) or f"HTTP {error.code}"
            raise ApiError(f"{method} {path}: {said}", error.code, problem) from error
        except (URLError, OSError) as error:
            raise ApiError(f"{self._base} cannot be reached: {error}") from error
        return _json(response.read()), response.headers.get("ETag")


def _token(options):
    """From the option, a file, or the environment, in this order."""
    path = options.get("token_file") or os.environ.get("VIRTMGR_TOKEN_FILE")
    token = options.get("token") or (None if path else os.environ.get("VIRTMGR_TOKEN"))
    if not token and path:
        try:
            with open(path, encoding="utf-8") as file:
                token = file.read().strip()
        except OSError as error:
            raise ApiError(f"reading the token failed: {error}") from error
    if not token:
        raise ApiError("no token: give 'token' or 'token_file', or set VIRTMGR_TOKEN")
    return token


def _json(body):
    try:
        return json.loads(body) if body else {}
    except ValueError:
        return {}


def _told(problem):
    """A problem in one line."""
    words = [problem.get("detail") or problem.get("title") or ""]
    for each in (problem.get("errors") or ())[1:]:  # the first is in the detail
        words.append(f"{each.get('field')}: {each.get('message')}")
    if problem.get("hint"):
        words.append(f"({problem['hint']})")
    return " ".join(word for word in words if word)


def segment(text):
    """A name as a part of a path."""
    return quote(str(text), safe="")


def patch_between(current, wanted):
    """The merge patch (RFC 7396) with which ``current`` has all that ``wanted`` says."""
    patch = {}
    for key, value in wanted.items():
        old = current.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            inner = patch_between(old, value)
            if inner:
                patch[key] = inner
        elif old != value:
            patch[key] = value
    return patch


def given(parameters, names):
    """Those of the parameters that were given."""
    return {name: parameters[name] for name in names if parameters[name] is not None}


class Noun:
    """How one kind of thing is found, made, changed and removed.

    :param collection: the path below which it is found by name.
    :param make: the path to make it at, where that is another.
    :param spec: the member of its answers that has what was asked for; None: the answer itself.
    :param would: the member of a dry run's answer that has the thing itself; None: that answer.
    """

    def __init__(self, collection, make=None, spec=None, would=None):
        self.collection = collection
        self.make = make or collection
        self.spec = spec
        self.would = would

    def path(self, name):
        return f"{self.collection}/{segment(name)}"

    def of(self, view):
        """What was asked for, in an answer."""
        return view[self.spec] if self.spec else view


def bring_to(client, noun, name, wanted, check):
    """Make the thing, or change it to what is ``wanted``; what is left out stays as it is.

    :return: a dict with ``changed``, ``diff``, ``object`` (what is, or would be) and ``answer``
        (of the change; None without one).
    """
    path = noun.path(name)
    current, etag = client.get(path)
    if current is None:
        body = dict(wanted, name=name)
        answer = _made(client, noun, body, check)
        return _result(True, {}, body, {} if check else _after(client, path, answer), answer)
    now = noun.of(current)
    patch = patch_between(now, wanted)
    if patch:
        # The server knows its defaults and units: what it would make of it is the truth.
        would = client.change("PATCH", path, patch, dry_run=True, etag=etag)
        then = noun.of(would[noun.would] if noun.would else would)
        before, after = _differing(now, then, patch)
        if before != after:
            if check:
                return _result(True, before, after, current, None)
            answer = client.change("PATCH", path, patch, etag=etag)
            return _result(True, before, after, _after(client, path, answer), answer)
    return _result(False, {}, {}, current, None)


def _made(client, noun, body, check):
    try:
        return client.change("POST", noun.make, body, dry_run=check)
    except ApiError as error:
        if check and error.status == 404:
            return None  # what it belongs to would be made before it, too
        raise


def take_away(client, noun, name, check):
    """Remove the thing, unless it is gone; the same dict."""
    path = noun.path(name)
    current, _etag = client.get(path)
    if current is None:
        return _result(False, {}, {}, {}, None)
    answer = client.change("DELETE", path, dry_run=check)
    if not check and _is_operation(answer):
        client.wait(answer)
    return _result(True, {"name": name}, {}, {}, None if check else answer)


def _after(client, path, answer):
    """The thing after a change, which may take its time."""
    if _is_operation(answer):
        client.wait(answer)
    return client.get(path)[0] or {}


def _is_operation(answer):
    return isinstance(answer, dict) and "verb" in answer and "state" in answer


def _differing(now, then, patch):
    """The parts of both that a patch touches, and that differ."""
    names = [key for key in patch if now.get(key) != then.get(key)]
    return {key: now.get(key) for key in names}, {key: then.get(key) for key in names}


def _result(changed, before, after, thing, answer):
    diff = {"before": _text(before), "after": _text(after)} if changed else {}
    return {"changed": changed, "diff": diff, "object": thing or {}, "answer": answer}


def _text(value):
    return json.dumps(value, indent=2, sort_keys=True) + "\n" if value else ""


def run(module, work):
    """Do ``work(client)``, and end the module with what it returns or why it failed."""
    try:
        result = work(Client.from_options(module.params))
    except ApiError as error:
        module.fail_json(msg=str(error), status=error.status, problem=error.problem)
    else:
        result.pop("answer", None)
        module.exit_json(**result)
