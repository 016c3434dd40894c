#!/usr/bin/env python3
"""Leads a sandbox through its life with the client of the worker's API. Usage: worker.py FOLDER-OF-THE-CLIENT SOCKET"""

import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from guestmeter_worker import Problem, Worker  # noqa: E402

worker = Worker(sys.argv[2], retry=0)


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def fits(value, reference, place="answer"):
    """Whether it has what the document promises of it, and nothing else."""
    schema = worker.schema(reference)
    for choice in schema.get("oneOf", []):
        schema = schema if "$ref" not in choice else worker.schema(choice["$ref"])
    if "properties" in schema:
        assert not value.keys() - schema["properties"].keys(), f"{place}: {value}"
        assert not set(schema.get("required", [])) - value.keys(), f"{place}: {value}"
    if "enum" in schema:
        assert value in schema["enum"], f"{place}: {value}"
    for name, inner in schema.get("properties", {}).items():
        if "$ref" in inner and name in value:
            fits(value[name], inner["$ref"], f"{place}.{name}")


calls = {"started", "scaled", "pausing", "resumed", "destroyed"}
assert calls | {"list", "show", "health"} <= worker.operations.keys(), worker.operations.keys()

# Wrong before it is sent.
assert "no epcoh" in str(raises(TypeError, lambda: worker.started("sb-1", memory_mib=1024, epoch=None, epcoh=1)))
assert "needs epoch" in str(raises(TypeError, lambda: worker.started("sb-1", memory_mib=1024)))
assert "needs memory_mib" in str(raises(TypeError, lambda: worker.started("sb-1", epoch=None)))
assert "by place" in str(raises(TypeError, lambda: worker.started(memory_mib=1024, epoch=None)))
assert "no operation" in str(raises(AttributeError, lambda: worker.restarted("sb-1")))

# Wrong by the books.
assert raises(Problem, lambda: worker.show("nobody/../x")).error == "unknown_sandbox"
problem = raises(Problem, lambda: worker.pausing("sb-1", epoch="0" * 32))
assert (problem.status, problem.error) == (409, "out_of_order"), problem
assert problem.expected["calls"] == ["started", "resumed"], problem.expected

# A life.
first = worker.started("sb-1", memory_mib=1024, epoch=None, event_id="one", at=(now := time.time_ns()))
assert worker.started("sb-1", memory_mib=1024, epoch=None, event_id="one", at=now) == first, "said again, answered as before"
fits(first, "Answer")
epoch = first["epoch"]["id"]
fits(worker.scaled("sb-1", memory_mib=2048, epoch=epoch), "Answer")
fits(worker.pausing("sb-1", epoch=epoch, deadline_ms=100), "Answer")
second = worker.resumed("sb-1", epoch=epoch)
assert int(second["epoch"]["number"]) > int(first["epoch"]["number"]), second
view = worker.show("sb-1")
fits(view, "SandboxView")
assert (view["phase"], view["epoch"]) == ("running", second["epoch"]), view
worker.destroyed("sb-1", epoch=second["epoch"]["id"])
assert worker.show("sb-1")["phase"] == "destroyed"

# All of them, though a page has less.
names = [sandbox["sandbox"] for sandbox in worker.sandboxes()]
assert names == sorted(names) and len(names) == 3, names
page = worker.list(limit=2)
fits(page, "SandboxList")
assert [sandbox["sandbox"] for sandbox in page["sandboxes"]] == names[:2] and page["next"] == names[1], page
assert worker.health()["healthy"] is True
assert "guestmeter_calls_total" in worker.show_metrics()
print("a life led by the client")
