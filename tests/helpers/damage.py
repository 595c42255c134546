"""Damaged copies of good files: of their bytes, and of the JSON and the files inside them."""

import copy
import io
import json
import zipfile

ODD = [
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, 10**30, -(2**63), 0.5, -0.0, 1e-300, 1e300, "", "0",
    "3", "LSTM", "float64", "\udc80", "é" * 9, [], {}, [0], [[1.0]], {"": 0}, [[]] * 3,
    float("nan"), float("inf"),
]  # fmt: skip


def damaged(rng, content, words=()):
    """A copy with some bytes changed, cut out, doubled, set to extremes or to words of the format.

    rng is a `random.Random`.
    """
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
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
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = _places(value)
        if not places:
            break
        holder, key = rng.choice(places)
        other, other_key = rng.choice(places)
        kind = rng.randrange(6)
        if kind < 3:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif kind == 3:
            holder[key] = copy.deepcopy(other[other_key])
        elif kind == 4 and isinstance(holder, dict):
            holder[rng.choice(["surprise", "type", "x", "0", key + "_l1"])] = holder.pop(key)
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            del holder[key]
    return value


def _places(value):
    """(holder, key) of everything inside."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
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


def damaged_header(rng, content, key):
    """A file whose description under `key` of the metadata is damaged, or the places of its tensors."""
    header, data = tensors_and_metadata(content)
    metadata = header.pop("__metadata__")
    if rng.random() < 0.8:
        metadata[key] = json.dumps(damaged_json(rng, json.loads(metadata[key])))
    else:
        header = damaged_json(rng, header)
    return safetensors_file({"__metadata__": metadata, **header}, data)


def damaged_zip(rng, content, words=()):
    """An archive with one of its files damaged, the sums of whose bytes fit."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            inside = old.read(name)
            new.writestr(name, damaged(rng, inside, words) if name == chosen else inside)
    return made.getvalue()
