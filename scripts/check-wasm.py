"""Checks that a canister module imports only ic0 and carries its interface as public metadata.

Usage: check-wasm.py MODULE.wasm INTERFACE.did
"""

import sys

CUSTOM_SECTION, IMPORT_SECTION = 0, 2
CANDID_SECTION = b"icp:public candid:service"
# Kind of an imported function.
FUNCTION = 0


class Bytes:
    """A cursor over the module."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) != count:
            sys.exit("check-wasm: the module ends too early")
        self.at += count
        return taken

    def number(self) -> int:
        """An unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def name(self) -> bytes:
        return self.take(self.number())


def sections(module: bytes):
    """Pairs of section id and contents."""
    cursor = Bytes(module)
    if cursor.take(8) != b"\0asm\1\0\0\0":
        sys.exit("check-wasm: not a WebAssembly module of version 1")
    while cursor.at < len(module):
        yield cursor.take(1)[0], cursor.take(cursor.number())


def imports(contents: bytes):
    """Pairs of module and field of every import."""
    cursor = Bytes(contents)
    for _ in range(cursor.number()):
        module, field, kind = cursor.name().decode(), cursor.name().decode(), cursor.take(1)[0]
        if kind != FUNCTION:
            sys.exit(f"check-wasm: the module imports {module}.{field}, which is not a function")
        cursor.number()
        yield module, field


def main(path: str, interface_path: str) -> None:
    module = open(path, "rb").read()
    interface = open(interface_path, "rb").read()
    found, foreign, embedded = [], [], []
    for section, contents in sections(module):
        if section == IMPORT_SECTION:
            found += imports(contents)
            foreign += [f"{name}.{field}" for name, field in found if name != "ic0"]
        if section == CUSTOM_SECTION:
            cursor = Bytes(contents)
            if cursor.name() == CANDID_SECTION:
                embedded.append(contents[cursor.at :])
    if foreign:
        sys.exit(f"check-wasm: only ic0 may be imported, found {', '.join(foreign)}")
    if embedded != [interface]:
        sys.exit(f"check-wasm: the module does not carry {interface_path} as `{CANDID_SECTION.decode()}`")
    print(f"check-wasm: {len(found)} imports, all of ic0: {' '.join(field for _, field in found)}")


if len(sys.argv) != 3:
    sys.exit(__doc__)
main(*sys.argv[1:])
