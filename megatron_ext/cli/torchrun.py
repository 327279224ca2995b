"""torchrun that passes on its workers' exit code: wrong input ends with exit code 2 and the worker's message.

torchrun itself answers every failure with exit code 1 and a traceback of its own.
"""

import logging
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from megatron_ext.errors import MegatronExtError

AGENT_LOGGER = "torch.distributed.elastic.multiprocessing.api"  # reports what ChildFailedError holds as well


def main(argv: Sequence[str]) -> int:
    """Run torchrun with its usual arguments and return the exit code of the job."""
    logging.getLogger(AGENT_LOGGER).setLevel(logging.CRITICAL)
    try:
        run(parse_args(list(argv)))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        if MegatronExtError.exit_code in codes:  # the worker has said what is wrong
            return MegatronExtError.exit_code
        sys.stderr.write(f"{error}\n")
        return 1
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
