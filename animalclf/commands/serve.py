"""`animalclf serve`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import Answer, add_command, call
from animalclf.utils.console import show_line

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 88
EXAMPLES = """\
  animalclf serve runs/a                                  (http://127.0.0.1:8000: a page, and POST /predict)
  animalclf serve runs/a --replicas 1:4 --port 9000       (up to four replicas of the model, as the load requires)
  animalclf serve runs/a --host 0.0.0.0 --token-file token.txt"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "serve",
        run,
        summary="Answer HTTP requests with a run's best model, by Ray Serve: a page on which images are dropped, and "
        "POST /predict. Ctrl-C ends it.",
        examples=EXAMPLES,
        api_function=api.serve,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder of a finished training")
    parser.add_argument("--host", help="the address to listen on; 0.0.0.0: of all networks (default: %(default)s)")
    parser.add_argument("--port", type=int, metavar="N", help="0: any free one (default: %(default)s)")
    parser.add_argument(
        "--replicas",
        metavar="N[:MAX]",
        help="replicas of the model, or 1:4 for a number that follows the load (default: %(default)s)",
    )
    parser.add_argument("--max-upload", metavar="SIZE", help="the largest request (default: %(default)s)")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="a file with the token that clients send (default: the environment variable ANIMALCLF_SERVE_TOKEN, or a "
        "new token that is printed)",
    )


def run(arguments: argparse.Namespace) -> Answer:
    with call(api.serve, arguments) as server:
        token = f"the token of {server.token_source}" if server.token_source else f"token {server.token}"
        show_line(f"serving {server.url}  {token}")
        show_line(
            f"open it in a browser, or: curl -H 'Authorization: Bearer TOKEN' -F image=@x.jpg {server.url}/predict"
        )
        server.wait()
    return Answer({"run": server.run, "url": server.url})
