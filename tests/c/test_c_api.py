"""Models served from C: the bits of Python, refusals, and damaged files."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import c_models
import numpy as np
import pytest
from emulation import emulator

import cylstm

ROOT = Path(__file__).parents[2]
EXAMPLE, FUZZ = ROOT / "examples" / "c" / "serve.c", ROOT / "tests" / "c" / "fuzz_model.c"
HEADER = Path(cylstm.get_include(), "cylstm", "model.h")
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-std=gnu99", "-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MODELS = list(c_models.models())

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.process,
    pytest.mark.skipif(not EXAMPLE.exists(), reason="needs the source tree, which holds the examples"),
    pytest.mark.skipif(cylstm._engine.isa.path() != "packed", reason="C has the packed path only"),
]


def build(program, name, source, *flags):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    command = [path, *flags, *WARNINGS, f"-I{cylstm.get_include()}", str(source), "-o", str(program), "-lm"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


def flags_of_the_example():
    """Those that its head, and the documentation, tell people to use."""
    return re.search(r"cc (-std=c99 .*?) -I", EXAMPLE.read_text(encoding="utf-8"))[1].split()


def written(folder, **environment):
    """A folder of models, inputs and outputs of a Python with these variables set."""
    folder.mkdir()
    command = [sys.executable, c_models.__file__, str(folder)]
    path = os.pathsep.join(
        [str(Path(cylstm.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path} | environment)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return written(tmp_path_factory.mktemp("models") / "best")


# The C++ build has the kernels of the baseline only, and is compared with a Python that is told to use those.
BUILDS = {
    "gcc": ("gcc", [], {}),
    "g++": ("g++", ["-x", "c++", "-std=c++17", "-DCYL_BASELINE_ONLY"], {"CYLSTM_ISA": "scalar"}),
    "clang": ("clang", [], None),
    "aarch64": ("aarch64-linux-gnu-gcc", ["-O1"], None),
}


@pytest.fixture(scope="module", params=BUILDS)
def served(request, tmp_path_factory):
    """The example as built by a compiler, the models for it, and whether bits are to be the same."""
    name, more, environment = BUILDS[request.param]
    emulated = emulator("aarch64") if request.param == "aarch64" else []
    folder = tmp_path_factory.mktemp("built")
    flags = [flag for flag in flags_of_the_example() if not (more and flag == "-std=c99")]
    program = build(folder / "serve", name, EXAMPLE, *flags, *more)
    return [*emulated, program], written(folder / "models", **(environment or {})), environment is not None


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["whole"]])
def test_c_serves_the_bits_of_python(served, mode):
    program, folder, same_compiler = served
    for name in MODELS:
        x, y = ((folder / f"{name}.{end}").read_bytes() for end in "xy")
        result = subprocess.run(
            [*program, folder / f"{name}.safetensors", *mode], input=x, capture_output=True
        )
        assert result.returncode == 0, (name, result.stderr)
        dtype = c_models.models()[name].dtype
        got, expected = np.frombuffer(result.stdout, dtype), np.frombuffer(y, dtype)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=name)
        assert result.stdout == y or not same_compiler, name


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    return build(folder / "fuzz", "gcc", FUZZ, "-DCYL_BASELINE_ONLY", *SANITIZERS)


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_damaged_files_neither_crash_nor_hang_the_reader(fuzz, models):
    files = sorted(models.glob("*.safetensors"))
    result = run(fuzz, 20000, 1, *files)
    assert result.returncode == 0, result.stderr
    opened, errors = re.fullmatch(r"(\d+) of 20000 opened; errors (.*)\n", result.stdout).groups()
    counts = list(map(int, errors.split()))
    assert int(opened) == counts[0] > 1000  # damage to weights is not seen, and much else was really run
    assert sum(count > 0 for count in counts) > 8  # hardly an error of files that is not among them


def test_unsigned_char_platform_reads_damaged_files_alike(fuzz, models, tmp_path):
    emulated = emulator("aarch64")
    program = build(tmp_path / "fuzz", "aarch64-linux-gnu-gcc", FUZZ, "-std=gnu99", "-O1")
    arguments = [500, 1, *sorted(models.glob("*.safetensors"))]
    result = run(*emulated, program, *arguments)
    assert (result.returncode, result.stdout) == (0, run(fuzz, *arguments).stdout), result.stderr


def test_sanitizers_see_a_planted_overrun(fuzz, models):
    result = run(fuzz, "overrun", models / "lstm.safetensors")
    assert result.returncode != 0
    assert "AddressSanitizer" in result.stderr


def error_codes():
    names = re.search(
        r"typedef enum \{\s*CYL_OK = 0,(.*?)\} cyl_error", HEADER.read_text(encoding="utf-8"), re.DOTALL
    )
    return ["CYL_OK", *re.findall(r"CYL_\w+", names[1])]


def with_model(path, change, rewritten=lambda text: text, indent=None):
    """The bytes of a file whose architecture was changed, then the text of its header."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["cylstm"])
    change(description, header)
    header["__metadata__"]["cylstm"] = json.dumps(description, indent=indent)
    text = rewritten(json.dumps(header, indent=indent)).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def layer(description):
    return description["model"]["layers"][1]


REFUSED = {
    "CYL_OTHER_FORMAT": lambda d, h: d.update(format=3),
    "CYL_UNKNOWN_LAYER": lambda d, h: layer(d).update(type="MultiHeadAttention"),
    "CYL_UNKNOWN_OPTION": lambda d, h: layer(d).update(proj_size_of_a_newer_version=2),
    "CYL_BAD_OPTION": lambda d, h: layer(d).update(hidden_size=2**60),
    "CYL_BAD_LAYERS": lambda d, h: d["model"]["layers"].pop(1),
    "CYL_TOO_MANY_LAYERS": lambda d, h: layer(d).update(num_layers=300),
    "CYL_BAD_TENSORS": lambda d, h: d["model"]["layers"][2].update(out_features=51),
    "CYL_MISALIGNED": lambda d, h: h["2.bias"].update(
        data_offsets=[x + 1 for x in h["2.bias"]["data_offsets"]]
    ),
    "CYL_DAMAGED": lambda d, h: h["2.bias"].update(data_offsets=[0, 2**62]),
    "CYL_NOT_A_MODEL": lambda d, h: h.update(__metadata__={"cylstm": "", "other": ""}),
}


def test_error_codes(fuzz, models, tmp_path):
    for expected, change in REFUSED.items():
        content = with_model(models / "embedding.safetensors", change)
        if expected == "CYL_NOT_A_MODEL":
            content = content.replace(b'"cylstm"', b'"cylsxm"')
        (tmp_path / "changed").write_bytes(content)
        result = run(fuzz, "read", tmp_path / "changed")
        assert error_codes()[int(result.stdout)] == expected, result.stderr


@pytest.mark.parametrize(("name", "expected"), [("last", "CYL_OK"), ("mean", "CYL_BAD_OPTION")])
def test_pooling_of_both_ends_needs_two_halves(fuzz, models, tmp_path, name, expected):
    """Of 8 numbers there are, of 7 not."""
    content = with_model(models / f"{name}.safetensors", lambda d, h: layer(d).update(how="ends"))
    (tmp_path / "changed").write_bytes(content)
    assert error_codes()[int(run(fuzz, "read", tmp_path / "changed").stdout)] == expected


def test_a_file_written_otherwise_is_read(fuzz, models, tmp_path):
    """Blanks, another order of keys, escaped letters."""

    def change(description, header):
        description["model"] = dict(reversed(description["model"].items()))
        metadata = header.pop("__metadata__")
        header["__metadata__"] = metadata  # behind the tensors

    def rewritten(text):  # escaped in the header's string, and in the string in that string
        return text.replace("Embedding", r"\u0045mbedding").replace("LSTM", r"L\\u0053TM")

    content = with_model(models / "embedding.safetensors", change, rewritten, indent=3)
    (tmp_path / "other").write_bytes(content)
    assert run(fuzz, "read", tmp_path / "other").stdout == "0\n"
    assert cylstm.load(tmp_path / "other").output_size == c_models.V


@pytest.mark.slow
def test_the_program_in_the_documentation(models, tmp_path):
    """As it stands there, with the model of the documentation."""
    text = (ROOT / "docs" / "c-api.md").read_text(encoding="utf-8")
    (tmp_path / "program.c").write_text(re.search(r"```c\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    flags = ["-std=c11", "-O1", "-DCYL_BASELINE_ONLY"]
    program = build(tmp_path / "program", "gcc", tmp_path / "program.c", *flags)
    model = cylstm.Sequential(cylstm.LSTM(3, 32, seed=0), cylstm.Linear(32, 1, seed=1))
    cylstm.save(model, tmp_path / "model.safetensors")
    result = subprocess.run([program], cwd=tmp_path, capture_output=True, text=True)
    expected = model(np.tile([0.1, 0.2, 0.3], (10, 1)))[0][:, 0]
    np.testing.assert_allclose(list(map(float, result.stdout.split())), expected, rtol=1e-5)


def test_indices_beyond_the_embedding_are_refused(tmp_path, models, served):
    program, folder, _ = served
    x = np.array([0, c_models.V], np.int64).tobytes()
    result = subprocess.run(
        [*program, folder / "embedding.safetensors", "whole"], input=x, capture_output=True
    )
    assert result.returncode == 1
    assert b"expected indices" in result.stderr


MEMORY = """
#include "cylstm/cylstm.h"
#include <stdio.h>
int main(int count, char **names) {
    static _Alignas(8) unsigned char bytes[1 << 20];
    FILE *file = fopen(names[count - 1], "rb");
    size_t size = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    cyl_model model;
    int error = cyl_model_open(&model, bytes, size);
    if (file) fclose(file);
    printf("%d", error);
    for (ptrdiff_t T = 1; !error && T <= (ptrdiff_t)1 << 40; T <<= 20)
        printf(" %zu", cyl_model_memory(&model, T, 1));
    return 0;
}
"""


@pytest.mark.slow
def test_memory_demand_of_small_file_is_known_in_advance(tmp_path):
    """The reader itself allocates nothing; a size beyond size_t is 0, not what is left of it."""
    import bombs_models

    (tmp_path / "memory.c").write_text(MEMORY)
    program = build(tmp_path / "memory", "gcc", tmp_path / "memory.c", "-DCYL_BASELINE_ONLY", "-std=gnu11")
    bombs_models.model(tmp_path / "bomb", 30_000, 0)
    error, one, million, more = map(int, run(program, tmp_path / "bomb").stdout.split())
    step = 4 * 30_000 * bombs_models.WIDTH
    assert (error, more) == (0, 0)
    assert step <= one < 3 * step
    assert 2**20 * step <= million < 3 * 2**20 * step
