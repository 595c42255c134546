"""Damaged copies of good files: of their bytes, of JSON inside them, and of model files that are signed again."""

import hashlib
import io
import json
import zipfile

ODD = [
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, 10**30, -(2**63), 0.5, -0.0, 1e-300, 1e300, "", "0", "3",
    "LSTM", "float64", "\udc80", "é" * 9, [], {}, [0], [[1.0]], {"": 0}, [[]] * 3, float("nan"), float("inf"),
]  # fmt: skip


def damaged(rng, content, words=()):
    """A copy with some bytes changed, cut out, doubled, set to extremes or to words of the format.

    rng is a `random.Random`.
    """
    data = bytearray(content)
    for _ in range(rng.randrange(1, 6)):
        if not data:
            break
        place, size = rng.randrange(len(data)), rng.randrange(1, 9)
        kind = rng.randrange(8 if words else 6)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place : place + size] = rng.randbytes(len(data[place : place + size]))
        elif kind == 2:
            data[place : place + size] = bytes([rng.choice([0, 0x7F, 0x80, 0xFF])]) * size
        elif kind == 3:
            del data[place : place + size * 8]
        elif kind == 4:
            data[place:place] = data[place : place + size * 4]
        elif kind == 5 and rng.random() < 0.3:
            del data[place:]
        elif words:
            word = rng.choice(words)
            data[place : place + rng.choice([0, len(word)])] = word
    return bytes(data)


def damaged_json(rng, value):
    """A copy of JSON values with one to three of them odd, left out, doubled or exchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randrange(1, 4)):
        places = _places(value)
        if not places:
            break
        holder, key = rng.choice(places)
        other, other_key = rng.choice(places)
        kind = rng.randrange(6)
        if kind < 3:
            holder[key] = rng.choice(ODD)
        elif kind == 3:
            holder[key] = json.loads(json.dumps(other[other_key]))
        elif kind == 4 and isinstance(holder, dict):
            holder[rng.choice(["surprise", "type", "x", "0", key + "_l1"])] = holder.pop(key)
        elif isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        else:
            del holder[key]
    return value


def _places(value):
    """(holder, key) of everything inside."""
    if isinstance(value, dict):
        keys = list(value)
    else:
        keys = range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def tensors_and_metadata(content):
    """The header of a safetensors file, and the bytes behind it."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def safetensors_file(header, data):
    """The other way round, with the right length of the header."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def signed_again(rng, content, key, digest):
    """A file whose description under `key` of the metadata is damaged, and whose digest fits it.

    digest(header, data) signs it, after the change.
    """
    header, data = tensors_and_metadata(content)
    metadata = header["__metadata__"]
    metadata[key] = json.dumps(damaged_json(rng, json.loads(metadata[key])))
    if rng.random() < 0.2:
        header |= {"__metadata__": metadata} | damaged_json(
            rng, {n: v for n, v in header.items() if n != "__metadata__"}
        )
    digest(header, data)
    return safetensors_file(header, data)


def tensors_of(header, data):
    """The bytes of each tensor, in order of the names; the header may be damaged."""
    found = {}
    for name in sorted(set(header) - {"__metadata__"}):
        begin, end = header[name]["data_offsets"]
        found[name] = data[begin:end]
    return found


def damaged_zip(rng, content, words=()):
    """An archive with one of its files damaged, the sums of whose bytes fit."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            inside = old.read(name)
            new.writestr(name, damaged(rng, inside, words) if name == chosen else inside)
    return made.getvalue()
