"""The description in a model file, read and rewritten."""

import json
import struct


def with_metadata(path, description):
    """Rewrite the file's architecture."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = {
        "cylstm": description if isinstance(description, str) else json.dumps(description)
    }
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])


def description_of(path):
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["cylstm"])
