#!/usr/bin/env bash
# Start a training run: ./launch.sh CONFIG.yaml… [section.key=value …] [--dry-run]; ./launch.sh --help says more.
# Uses the project's own .venv where there is one, else the python3 of the environment you are in.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$root/.venv/bin/python"
[[ -x "$python" ]] || python=python3
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"   # works from any folder, for the processes it starts as well
exec "$python" -m megatron_ext.cli.main launch "$@"
