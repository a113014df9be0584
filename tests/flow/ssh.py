"""An SSH server of this user, for private git repositories."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from conftest import program, wait_until
from pdk.kit import web


@contextlib.contextmanager
def ssh_server(address: str):
    """An SSH server for this user; its port, and the folder with the keys ``host``, ``client`` and ``stranger``, which it does not know."""
    sshd = program("sshd", "/usr/sbin/sshd")
    home = Path("/var/tmp") / f"pdk-ssh-{os.getpid()}"  # sshd wants folders that only their owner writes
    home.mkdir(mode=0o700)
    for name in ("host", "client", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)], check=True)
    shutil.copy(home / "client.pub", home / "authorized")
    [port] = web.free_ports(address, 1)
    (home / "config").write_text(
        f"Port {port}\nListenAddress {address}\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized\nPidFile {home}/pid\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (home / "log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(home / "config")], stderr=log)
    try:
        wait_until(lambda: "listening" in (home / "log").read_text(), 20, "sshd")
        yield port, home
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(home)
