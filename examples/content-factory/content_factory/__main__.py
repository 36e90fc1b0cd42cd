"""`python -m content_factory` creates the tables; `python -m content_factory run` starts all processes, with failures to look at."""

import argparse
import sys

from content_factory.database import Base, engine
from content_factory.failures import FAILURES


def arguments() -> argparse.Namespace:
    """What was asked for."""
    listed = "\n".join(f"  {name:<30}{what}" for name, what in FAILURES.items())
    parser = argparse.ArgumentParser(prog="python -m content_factory", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("tables", help="create the tables, once; so does no command at all")
    run = commands.add_parser(
        "run",
        help="start the web processes, a worker and some traffic",
        description="Starts the web processes, a Celery worker and a little traffic, until it is interrupted.",
        epilog=f"failures:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--fail", action="append", default=[], choices=list(FAILURES), metavar="NAME", help="see below; may be repeated")
    run.add_argument("--bind", default="127.0.0.1:8000", metavar="ADDRESS", help="where gunicorn listens (%(default)s)")
    run.add_argument("--through", default="http://127.0.0.1:18000", metavar="URL", help="where the traffic goes: the sidecar (%(default)s)")
    run.add_argument("--sidecar", default="", metavar="URL", help="whom to tell of publications, such as http://127.0.0.1:18090")
    run.add_argument("--egress", default="", metavar="URL", help="where to ask for scripts, such as http://127.0.0.1:18001; without it nobody is asked")
    run.add_argument("--ai", default="127.0.0.1:8001", metavar="ADDRESS", help="where a stand-in for the AI service listens then (%(default)s)")
    return parser.parse_args()


def main() -> int:
    """Does it; the exit code."""
    asked = arguments()
    if asked.command == "run":
        # only here: who creates tables needs no Celery
        from content_factory.run import Factory

        return Factory(asked.bind, asked.through, asked.sidecar, asked.fail).with_ai(asked.egress, asked.ai).run()
    Base.metadata.create_all(engine)
    return 0


sys.exit(main())
