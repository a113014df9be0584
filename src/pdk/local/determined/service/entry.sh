#!/bin/sh
# What runs as a trial: the engine's own entry points, in the order in which a Determined agent runs them.
# Arguments: the module to run last and its arguments.
set -e
cd /run/determined/workdir
python3 -m determined.exec.prep_container --download_context_directory --resources --proxy
if [ -f startup-hook.sh ]; then
    . ./startup-hook.sh
fi
python3 -m determined.exec.prep_container --rendezvous
exec python3 -m "$@"
