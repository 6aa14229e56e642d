"""`python -m infra.stack up|down|status`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from infra.stack.parts import Layout
from infra.stack.stack import Sight, down, status, up
from lnln.errors import RefusedError


def main(arguments: list[str] | None = None) -> int:
    """0 done; 1 refused, with one line that says why, or for `status` where a part does not work; 130 interrupted."""
    given = _parser().parse_args(arguments)
    try:
        if given.action == "up":
            _welcome(up(given.folder, cpus_per_node=given.cpus_per_node, deploy=given.deploy))
        elif given.action == "down":
            down(given.folder)
        else:
            return _show(status(given.folder), as_json=given.json)
    except RefusedError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stack: interrupted; nothing that was being started runs on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.stack", description="The whole cluster on this machine.")
    actions = parser.add_subparsers(dest="action", required=True)
    for name, does in (
        ("up", "start what does not work, and deploy prefect.yaml"),
        ("down", "end what was started"),
        ("status", "say what works"),
    ):
        action = actions.add_parser(name, help=does, description=does)
        action.add_argument("--folder", type=Path, default=Path(".stack"), help="of logs and data (default: .stack)")
        if name == "up":
            action.add_argument("--cpus-per-node", type=int, help="of Ray's two nodes (default: half the cores)")
            action.add_argument("--no-deploy", dest="deploy", action="store_false", help="leave out prefect.yaml")
        if name == "status":
            action.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _welcome(layout: Layout) -> None:
    print(f"source {layout.folder / 'stack.env'}")
    print(f"Prefect  {layout.url('prefect')}")
    print(f"Ray      {layout.url('ray-dashboard')}")
    print(f"logs     {layout.folder / 'log'}")


def _show(sights: list[Sight], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([{**vars(sight), "log": str(sight.log)} for sight in sights]))
    elif not sights:
        print("no stack here; `up` makes one")
    else:
        for sight in sights:
            pid = "" if sight.pid is None else f"process {sight.pid}, "
            ports = ", ".join(f"{name} {port}" for name, port in sight.ports.items())
            print(f"{sight.name:15} {sight.state:15} {pid}{ports}  {sight.log}")
    return 0 if sights and all(sight.state == "works" for sight in sights) else 1


if __name__ == "__main__":
    sys.exit(main())
