"""Conversion from and to other libraries: convert."""

import argparse
import warnings
from typing import Any

from cylstm import convert, files
from cylstm._formats.file_kinds import HDF5, KERAS, ONNX, SAFETENSORS, TEXT, UNKNOWN, file_kind
from cylstm.cli._common import check_outputs, print_json
from cylstm.cli._screen import show
from cylstm.cli.kinds import LEFT_OUT
from cylstm.convert import keras, torch
from cylstm.convert._common import Conversion
from cylstm.convert.onnx import reader as onnx_reader
from cylstm.convert.onnx import writer as onnx_writer
from cylstm.data.scalers import ScalersWarning
from cylstm.data.text_files import read_text
from cylstm.layers.sequential import Sequential

KINDS = ("cylstm", "onnx", "torch")


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command, with the common options."""
    command = commands.add_parser(
        "convert", parents=[common], help="models from PyTorch, Keras and ONNX, and to ONNX and PyTorch",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Convert a model of cylstm, PyTorch, Keras or ONNX to cylstm, ONNX or PyTorch. Layers\n"
        "without an equivalent are an error that names them. Parts of a cylstm file that the output\n"
        "cannot hold (scaling, names of classes, a vocabulary) are listed.",
        epilog="examples:\n  cylstm convert speech.onnx speech.safetensors\n"
        "  cylstm convert speech.safetensors speech.onnx\n"
        "  cylstm convert weights.safetensors model.safetensors --batch-first --order lstm fc\n"
        "  cylstm convert model.safetensors weights.safetensors --to torch",
    )  # fmt: skip
    command.add_argument(
        "input", help=".onnx, .keras, .weights.h5, or .safetensors, of cylstm or with PyTorch's names"
    )
    command.add_argument("output", help=".onnx, or .safetensors")
    command.add_argument(
        "--to", choices=KINDS, help="what to write (default: onnx for .onnx, cylstm for .safetensors)"
    )
    command.add_argument("--config", metavar="FILE", help="the model's to_json(), for .weights.h5")
    command.add_argument("--batch-first", action="store_true", help="PyTorch's layers read (B, T, features)")
    command.add_argument("--order", nargs="+", metavar="LAYER", help="names of PyTorch's layers, in order")
    command.add_argument(
        "--nonlinearity", choices=("tanh", "relu"), help="of PyTorch's layers of kind RNN (default: tanh)"
    )
    command.add_argument("--lengths", action="store_true", help="the ONNX model takes lengths of sequences")
    command.add_argument("--states", action="store_true", help="the ONNX model takes and returns states")
    command.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> None:
    check_outputs([options.output], [options.input])
    to = options.to or ("onnx" if options.output.lower().endswith(".onnx") else "cylstm")
    if to != "onnx" and not options.output.lower().endswith(".safetensors"):
        raise ValueError(f"{options.output}: expected a name that ends in .onnx or .safetensors")
    source = _source(options.input)
    _check_options(options, source, to)
    left_out: list[str] = []
    try:
        (model, sources), extra = _read(options, source)
        if extra is not None:
            if to == "cylstm":
                raise ValueError(f"{options.input}: already a model file of cylstm; copy it")
            left_out = _left_out(model, extra, to)
        if to == "onnx":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ScalersWarning)  # listed below
                convert.to_onnx(model, options.output, lengths=options.lengths, states=options.states)
        elif to == "torch":
            model.scalers.clear()  # the report lists them
            convert.to_safetensors(model, options.output)
        else:
            files.save(model, options.output)
    except ImportError as error:
        raise ValueError(str(error)) from None
    layers = [{"from": name, "to": repr(layer)} for name, layer in zip(sources, model.layers, strict=True)]
    if options.json:
        report = {"layers": layers, "kind": to, "not_in_the_file": left_out, "model": options.output}
        print_json(report)
        return
    for layer in layers:
        show(layer["from"])
        show(f"  {layer['to']}")
    if left_out:
        show(f"Not in the file: {'; '.join(left_out)}")
    show(f"Saved {options.output}")


def _left_out(model: Sequential, extra: dict[str, Any], to: str) -> list[str]:
    """Parts of a cylstm file that the output does not hold, in words."""
    written = onnx_writer.scalers_written(model) if to == "onnx" else ()
    scalers = [
        f"the scaling of {name} ({type(scaler).__name__}, {len(scaler.config['offset'])} features)"
        for name, scaler in model.scalers.items()
        if name not in written
    ]
    return scalers + [LEFT_OUT.get(name, f"the extra {name!r}") for name in extra]


def _read(options: argparse.Namespace, source: str) -> tuple[Conversion, dict[str, Any] | None]:
    """Read the input; returns the model, and the extra of a cylstm file."""
    path = options.input
    if source == "onnx":
        return onnx_reader.read(path), None
    if source == "keras":
        text = None if options.config is None else read_text(options.config)
        return keras.read(path, config=text), None
    if source == "torch":
        given = {"order": options.order, "nonlinearity": options.nonlinearity}
        return torch.read(path, batch_first=options.batch_first or None, **given), None
    loaded, extra = files.load_with_extra(path)
    if isinstance(loaded, Sequential):
        model = loaded
    else:
        model = Sequential(loaded)
        model.scalers, loaded.scalers = loaded.scalers, {}  # they belong to the whole model
    sources = [f"{type(layer).__name__} {i}" for i, layer in enumerate(model.layers)]
    return Conversion(model, sources), extra


def _source(path: str) -> str:
    """The library that a model file belongs to, by its content, or else by its name."""
    name, kind = path.lower(), file_kind(path)
    if kind is ONNX or name.endswith(".onnx"):
        return "onnx"
    if kind in (KERAS, HDF5) or name.endswith((".keras", ".h5")):
        return "keras"
    if kind is SAFETENSORS or name.endswith(".safetensors"):
        return "cylstm" if files.is_model(path) else "torch"
    if kind in (UNKNOWN, TEXT):
        raise ValueError(f"{path}: expected a name that ends in .onnx, .keras, .weights.h5 or .safetensors")
    expected = "a model of ONNX or Keras, or weights in a safetensors file"
    raise ValueError(f"{path}: expected {expected}, got {kind.words}{kind.advice}")


def _check_options(options: argparse.Namespace, source: str, to: str) -> None:
    """Reject options that do not apply to this input or output."""
    weights = "weights with PyTorch's names"
    for flag, value, belongs, whom in (
        ("--config", options.config, source == "keras", "files of Keras"),
        ("--order", options.order, source == "torch", weights),
        ("--batch-first", options.batch_first, source == "torch", weights),
        ("--nonlinearity", options.nonlinearity, source == "torch", weights),
        ("--lengths", options.lengths, to == "onnx", "ONNX as output"),
        ("--states", options.states, to == "onnx", "ONNX as output"),
    ):
        if value not in (None, False) and not belongs:
            raise ValueError(f"{flag}: only for {whom}; leave it out")
