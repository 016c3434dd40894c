#!/usr/bin/env python3
"""Decodes guestmeter's protocol, version 1, by its book alone: src/wire/book.md.

Usage: wire.py BOOK VECTOR.hex...     prints what each vector decodes to
       wire.py BOOK --check DIRECTORY holds each v1/NAME.hex in it against v1-decoded/NAME.json, byte for byte

The structs are the book's own tables, read from it: so a book that does not say all, or says it wrongly, fails.
"""

import json
import pathlib
import re
import sys
import zlib

HEADER, PAYLOAD_MAX = 16, 16384
BITS = {"u16": 16, "u32": 32, "u64": 64, "u128": 128}


class Refused(Exception):
    """A frame that is no message; says how it is answered."""


class Book:
    """The tables of the book: messages by kind, structs and enums by name."""

    def __init__(self, text):
        self.messages, self.structs, self.enums = {}, {}, {}
        for block in re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in filter(None, block.splitlines()):
                what, name, rest = (line.split(None, 2) + [""])[:3]
                if what == "message":
                    name, _, rest = rest.strip().partition(" ")
                    self.messages[int(line.split()[1], 16)] = (name, self.fields(rest))
                elif what == "struct":
                    self.structs[name] = self.fields(rest)
                elif what == "enum":
                    self.enums[name] = re.split(r",\s*", rest.strip())
                else:
                    raise SystemExit(f"the book has a line that is none: {line}")

    @staticmethod
    def fields(text):
        text = text.strip()
        return [tuple(field.split(" ")) for field in re.split(r",\s*", text)] if text else []


class Payload:
    """A payload and how far it is read."""

    def __init__(self, book, data):
        self.book, self.data, self.at = book, data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise Refused("Malformed")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, bits):
        value = shift = 0
        while True:
            if shift >= bits:
                raise Refused("Malformed")
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if value >> bits:
            raise Refused("Malformed")
        return value

    def flag(self):
        byte = self.take(1)[0]
        if byte > 1:
            raise Refused("Malformed")
        return byte == 1

    def value(self, kind):
        """A value of a type as the book spells it: the last sign says the outermost."""
        if kind.endswith("?"):
            return self.value(kind[:-1]) if self.flag() else None
        if found := re.fullmatch(r"(.+)\[\](?:<(\d+))?", kind):
            count = self.number(32)
            self.within(count, found[2])
            return [self.value(found[1]) for _ in range(count)]
        if found := re.fullmatch(r"string(?:<(\d+))?", kind):
            length = self.number(32)
            self.within(length, found[1])
            try:
                return self.take(length).decode()
            except UnicodeDecodeError:
                raise Refused("Malformed") from None
        if kind in BITS:
            return self.number(BITS[kind])
        if kind == "bool":
            return self.flag()
        if kind == "id":
            return self.take(16).hex()
        if kind in self.book.enums:
            names, number = self.book.enums[kind], self.number(32)
            if number >= len(names):
                raise Refused("Malformed")
            return names[number]
        return self.fields(self.book.structs[kind])

    def within(self, count, limit):
        if limit is not None and count > int(limit) or count > len(self.data):
            raise Refused("Malformed")

    def fields(self, fields):
        read = {}
        for name, kind in fields:
            if name == "tail" and self.at == len(self.data):
                read[name] = {inner: self.default(of) for inner, of in self.book.structs[kind]}
            else:
                read[name] = self.value(kind)
        return read

    @staticmethod
    def default(kind):
        if kind.endswith("?"):
            return None
        if "[]" in kind:
            return []
        return False if kind == "bool" else 0


def frames(data, found_garbage):
    """Every frame whose checksum is right: format, kind, flags, payload."""
    at = 0
    while len(data) - at >= HEADER:
        length = int.from_bytes(data[at + 8 : at + 12], "little")
        end = at + HEADER + length
        whole = data[at : at + 12] + data[at + HEADER : end]
        crc = int.from_bytes(data[at + 12 : at + 16], "little")
        if data[at : at + 4] != b"GMTR" or length > PAYLOAD_MAX or end > len(data) or zlib.crc32(whole) != crc:
            found_garbage(1)
            at += 1
            continue
        yield data[at + 4], data[at + 5], int.from_bytes(data[at + 6 : at + 8], "little"), data[at + HEADER : end]
        at = end
    found_garbage(len(data) - at)


def message(book, form, kind, flags, payload):
    if form != 1 or flags != 0:
        raise Refused("Malformed")
    if kind not in book.messages:
        raise Refused("Unsupported")
    name, fields = book.messages[kind]
    return {"kind": kind, "message": name, "body": Payload(book, payload).fields(fields)}


def decoded(book, data):
    """What the book's last chapter but one asks for."""
    lines, garbage = [], []
    for form, kind, flags, payload in frames(data, garbage.append):
        try:
            lines.append(message(book, form, kind, flags, payload))
        except Refused as refused:
            lines.append({"kind": kind, "refused": str(refused)})
    lines.append({"garbage": sum(garbage)})
    return "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines)


def vector(path):
    return bytes.fromhex("".join(line.partition("#")[0] for line in path.read_text().splitlines()))


def check(book, directory):
    """Every vector, and nothing but vectors."""
    wrong, seen = [], set()
    for path in sorted((directory / "v1").glob("*.hex")):
        seen.add(path.stem)
        expected = directory / "v1-decoded" / f"{path.stem}.json"
        if not expected.exists() or decoded(book, vector(path)) != expected.read_text():
            wrong.append(path.stem)
    wrong += sorted({path.stem for path in (directory / "v1-decoded").iterdir()} - seen)
    if wrong or not seen:
        raise SystemExit(f"{len(seen)} vectors; wrong: {', '.join(wrong) or 'there are none'}")
    print(f"{len(seen)} vectors decoded by the book alone, each to the byte")


def main(arguments):
    if len(arguments) < 2:
        raise SystemExit(__doc__)
    book = Book(pathlib.Path(arguments[0]).read_text())
    if arguments[1] == "--check":
        check(book, pathlib.Path(arguments[2]))
        return
    for name in arguments[1:]:
        sys.stdout.write(decoded(book, vector(pathlib.Path(name))))


if __name__ == "__main__":
    main(sys.argv[1:])
