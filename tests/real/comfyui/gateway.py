"""Starts tabane in front of ComfyUI nodes, with a file made for it.

usage: gateway.py NODE_URL…: starts it, on port 8188 if that is free, and ends it on Ctrl-C.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from nodes import SCRATCH, end, free_port, port_if_free
from report import Unavailable
from server import Server, wait

TABANE = os.environ.get("TABANE") or str(SCRATCH.parent / "debug" / "tabane")
# `http` stands for "any service": enough to try these tests with where there is one node.
KIND = os.environ.get("TABANE_KIND", "comfyui")


def config(nodes, port, admin):
    pool = "".join(f"\n      - {{url: {url}}}" for url in nodes)
    return f"""\
listen:
  - {{address: 127.0.0.1:{port}, service: image}}
admin: {{address: 127.0.0.1:{admin}}}
data_dir: data
services:
  image:
    kind: {{{KIND}: {{}}}}
    pool:{pool}
"""


@contextmanager
def started(nodes):
    """The server that a gateway in front of these URLs is; it has ended when this is left.

    Raises `Unavailable` where this tabane does not know the kind.
    """
    if not Path(TABANE).exists():
        raise Unavailable(f"{TABANE} is not built")
    folder = Path(tempfile.mkdtemp(prefix="tabane-"))
    port = port_if_free(8188)
    admin = f"127.0.0.1:{free_port()}"
    file = folder / "tabane.yaml"
    file.write_text(config(nodes, port, admin.rsplit(":", 1)[1]))
    checked = subprocess.run(
        [TABANE, "check", "-c", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    process = None
    try:
        if checked.returncode:
            if f"there is no kind `{KIND}`" in checked.stdout:
                raise Unavailable(f"this tabane does not know the kind {KIND}")
            raise RuntimeError(f"the file for the gateway has problems:\n{checked.stdout}")
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [TABANE, "run", "-c", str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        wait("the gateway is ready, and all its nodes up", lambda: is_up(process, admin, len(nodes), folder / "log"))
        yield Server(f"http://127.0.0.1:{port}")
        assert process.poll() is None, f"the gateway ended by itself:\n{words(folder / 'log')}"
    finally:
        if process:
            end([process])
        keep(folder / "log")
        shutil.rmtree(folder, ignore_errors=True)


def is_up(process, admin, count, log):
    if process.poll() is not None:
        raise RuntimeError(f"the gateway ended at its start:\n{words(log)}")
    try:
        if Server(f"http://{admin}").ask("GET", "/readyz").status != 200:
            return False
    except OSError:
        return False
    listed = subprocess.run([TABANE, "nodes", "--admin", admin], stdout=subprocess.PIPE, text=True)
    return len(re.findall(r" up ", listed.stdout)) == count


def words(log):
    return log.read_text(errors="replace")[-3000:]


def keep(log):
    """The gateway's last log, for whoever looks for why."""
    if log.exists():
        SCRATCH.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, SCRATCH / "gateway.log")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with started(sys.argv[1:]) as server:
            print(server.url, flush=True)
            signal.pause()
    except Unavailable as why:
        sys.exit(f"{why}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
