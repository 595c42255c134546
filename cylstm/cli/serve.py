"""Model server: serve."""

import argparse
from typing import Any

from cylstm.cli._common import print_json
from cylstm.cli._screen import flush, show
from cylstm.cli.kinds import as_command
from cylstm.files import ModelFileError


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command, with the common options."""
    command = commands.add_parser(
        "serve", parents=[common], help="serve a model over HTTP and WebSocket",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Serve a model file: POST /predict (JSON, or raw float32), WebSocket /stream,\n"
        "GET /healthz, GET /metrics for Prometheus; with a classifier POST /classify. SIGTERM, SIGHUP or\n"
        "Ctrl-C stops it after all accepted requests are answered. It has neither authentication nor TLS:\n"
        "run it behind a proxy that does.",
        epilog="examples:\n"
        "  cylstm serve model.safetensors --port 8000\n"
        "  curl localhost:8000/predict -H 'Content-Type: application/json' -d '{\"x\": [[0.1, 0.2]]}'\n"
        "  cylstm serve model.safetensors --host 0.0.0.0 --workers 4 --threads 1 --max-steps 500",
    )  # fmt: skip
    command.add_argument("model", metavar="MODEL", help="file of any model except a forecaster")
    command.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    command.add_argument("--port", type=int, default=8000, help="0: a free port (default: %(default)s)")
    command.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    for name, kind, words in [
        ("--max-body", int, "bytes of a request (default: 4 MiB)"),
        ("--max-steps", int, "time steps of a sequence (default: 10000)"),
        (
            "--max-queue",
            int,
            "queued and running requests per process; others get 503 (default: 256)",
        ),
        ("--max-streams", int, "open streams per process (default: 1000)"),
        (
            "--timeout",
            float,
            "seconds to receive a request, to compute, and to send the response (default: 30)",
        ),
        ("--idle-timeout", float, "seconds after which an idle stream is closed (default: 300)"),
    ]:
        command.add_argument(name, type=kind, metavar="N", help=words)
    command.add_argument(
        "--origin", action="append", dest="origins", metavar="URL",
        help="origin whose pages may open streams, such as https://example.com; may be repeated "
        "(default: the server's own host)",
    )  # fmt: skip
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    try:
        from cylstm.serve import Limits, server
        from cylstm.serve.service import NotServed
    except ModuleNotFoundError as error:
        raise ValueError(f'{error.name} is not installed; run pip install "cylstm[serve]"') from None
    names = ("max_body", "max_steps", "max_queue", "max_streams", "timeout", "idle_timeout", "origins")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    try:
        limits = Limits(**given)
    except ValueError as error:
        raise ValueError("--" + str(error).replace("_", "-", 1).replace("origins:", "origin:", 1)) from None

    def started(url: str, scaled: bool) -> None:
        if options.json:
            print_json({"model": options.model, "url": url})
            return
        units = "; /predict: x and y in the network's units, its scalers are not applied" if scaled else ""
        show(f"Serving {options.model} at {url}{units}; Ctrl-C stops")
        flush()

    try:
        server.run(
            options.model, options.host, options.port, limits,
            workers=options.workers, threads=options.threads, started=started,
        )  # fmt: skip
    except NotServed:
        raise ValueError(
            f"{options.model}: holds a forecaster, which cannot be served; `cylstm predict` forecasts"
        ) from None
    except ModelFileError as error:
        raise as_command(options.model, error) from None
