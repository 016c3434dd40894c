#!/usr/bin/env python3
"""A client of `guestmeter worker`'s HTTP API: Python's own library, and the worker's OpenAPI document.

    from guestmeter_worker import Worker, Problem
    worker = Worker("/run/guestmeter-worker/api.sock")
    life = worker.started("sb-7", memory_mib=4096, epoch=None)
    worker.scaled("sb-7", memory_mib=8192, epoch=life["epoch"]["id"])
    for sandbox in worker.sandboxes():
        print(sandbox["sandbox"], sandbox["agent"])

There is a method for each operation of the document, which the worker serves itself: so the client knows what its worker
knows. It has the names of the path as arguments, and those of the body or the query by keyword; what the document does not
have, or asks for and is not given, is a TypeError before anything is sent. `event_id` and `at` need not be given.

From a shell: guestmeter_worker.py [--socket PATH] OPERATION [ARGUMENT…] [NAME=JSON…]
"""

import http.client
import json
import socket
import sys
import time
import urllib.parse
import uuid

SOCKET = "/run/guestmeter-worker/api.sock"


class Problem(Exception):
    """An answer that is not 200: `status`, `error` (a name for a program), `message`, `expected` or None."""

    def __init__(self, status, answer):
        self.status = status
        self.error = answer.get("error", "unknown")
        self.message = answer.get("message", json.dumps(answer))
        self.expected = answer.get("expected")
        super().__init__(f"{status} {self.error}: {self.message}")


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("worker", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Worker:
    """A worker at a Unix socket. A call that is not in the books (503, or no answer) is made again for `retry` seconds."""

    def __init__(self, path=SOCKET, timeout=30, retry=30):
        self.path, self.timeout, self.retry = path, timeout, retry
        self.document = self._exchange("GET", "/openapi.json")
        self.operations = {}
        for place, methods in self.document["paths"].items():
            for method, operation in methods.items():
                self.operations[operation["operationId"]] = (method.upper(), place, operation)

    def __getattr__(self, name):
        if name not in self.operations:
            raise AttributeError(f"the worker has no operation {name}; it has {', '.join(sorted(self.operations))}")
        return lambda *arguments, **fields: self._call(name, arguments, fields)

    def sandboxes(self):
        """All of them, page by page."""
        page = self.list()
        yield from page["sandboxes"]
        while page["next"] is not None:
            page = self.list(after=page["next"])
            yield from page["sandboxes"]

    def schema(self, reference):
        """What the document says of a type."""
        return self.document["components"]["schemas"][reference.rpartition("/")[2]]

    def _call(self, name, arguments, fields):
        method, place, operation = self.operations[name]
        parameters = operation.get("parameters", [])
        names = [parameter["name"] for parameter in parameters if parameter["in"] == "path"]
        if len(names) != len(arguments):
            raise TypeError(f"{name} takes {', '.join(names) or 'no argument'} by place, and got {len(arguments)}")
        for key, value in zip(names, arguments):
            place = place.replace(f"{{{key}}}", urllib.parse.quote(value, safe=""))
        query = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
        body = None
        if "requestBody" in operation:
            body = self._body(name, operation, fields)
        elif unknown := fields.keys() - query:
            raise TypeError(f"{name} has no {', '.join(sorted(unknown))}")
        elif fields:
            place += "?" + urllib.parse.urlencode(fields)
        return self._insist(method, place, body)

    def _body(self, name, operation, fields):
        schema = self.schema(operation["requestBody"]["content"]["application/json"]["schema"]["$ref"])
        # One id for all attempts: the worker gives a call that it has in its books its first answer.
        body = {"event_id": uuid.uuid4().hex, "at": time.time_ns()} | fields
        if unknown := body.keys() - schema["properties"].keys():
            raise TypeError(f"{name} has no {', '.join(sorted(unknown))}")
        # What may be null has to be said all the same: an epoch that is forgotten is no epoch that there was not.
        wanted = set(schema.get("required", [])) | ({"epoch"} & schema["properties"].keys())
        if missing := wanted - body.keys():
            raise TypeError(f"{name} needs {', '.join(sorted(missing))}")
        return body

    def _insist(self, method, place, body):
        until = time.monotonic() + self.retry
        while True:
            try:
                return self._exchange(method, place, body)
            except Problem as problem:
                if problem.status != 503 or body is None or time.monotonic() > until:
                    raise
            except OSError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.5)

    def _exchange(self, method, place, body=None):
        connection = Connection(self.path, self.timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, place, data, {"content-type": "application/json"} if data else {})
            answer = connection.getresponse()
            text = answer.read().decode()
            if "json" not in answer.headers.get("content-type", ""):
                if answer.status == 200:
                    return text
                raise Problem(answer.status, {"message": text})
            if answer.status != 200:
                raise Problem(answer.status, json.loads(text))
            return json.loads(text)
        finally:
            connection.close()


def main(arguments):
    path = SOCKET
    if arguments[:1] == ["--socket"]:
        path, arguments = arguments[1], arguments[2:]
    if not arguments or arguments[0] in ("-h", "--help"):
        raise SystemExit(__doc__)
    fields = dict(argument.split("=", 1) for argument in arguments[1:] if "=" in argument)
    places = [argument for argument in arguments[1:] if "=" not in argument]
    try:
        call = getattr(Worker(path), arguments[0])
        answer = call(*places, **{name: json.loads(value) for name, value in fields.items()})
    except Problem as problem:
        raise SystemExit(str(problem)) from None
    print(answer if isinstance(answer, str) else json.dumps(answer, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
