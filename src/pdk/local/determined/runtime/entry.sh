#!/bin/sh
# What runs as a trial: the engine's own entry points, in the order in which a Determined agent runs them.
# Arguments: the module to run last and its arguments.
set -e
cd /run/determined/workdir
python3 -m determined.exec.prep_container --download_context_directory --resources --proxy
if [ -f startup-hook.sh ]; then
    # Trials with the same hook share an environment: one hook at a time installs into it. The lock is given back by name, not by
    # closing it: what a hook leaves running in the background would keep it.
    pdk_lock="$(dirname "$(command -v python3)")/../lock"
    if [ -w "$pdk_lock" ]; then
        exec 9>>"$pdk_lock"
        python3 -I -S -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    fi
    . ./startup-hook.sh
    if [ -w "$pdk_lock" ]; then
        python3 -I -S -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_UN)'
        exec 9>&-
    fi
fi
python3 -m determined.exec.prep_container --rendezvous
exec python3 -m "$@"
