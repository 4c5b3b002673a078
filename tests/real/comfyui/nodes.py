"""Starts real ComfyUI servers without a GPU, each with folders and a model of its own.

usage: nodes.py COUNT [VERSION OF THE FRONT END]: starts them, prints their URLs, and ends them on Ctrl-C.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from report import Unavailable
from server import Server

SCRATCH = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[3] / "target")).absolute() / "real"
# The name that ComfyUI's example scripts expect; every node has it.
CHECKPOINT = "v1-5-pruned-emaonly.safetensors"
# ComfyUI's own nodes for tests (a sleep that costs nothing, errors), and the one that answers through the socket.
EXTRAS = ("tests/execution/testing_nodes/testing-pack", "custom_nodes/websocket_image_save.py")
# One core each: three of them share a small machine, and the same seed gives the same image. And without the chance in
# Python's sets, the same one of two outputs comes first.
ALIKE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


class ComfyUI(NamedTuple):
    """A checkout of ComfyUI, a Python that runs it, and the checkpoint made with them."""

    folder: Path
    python: str
    checkpoint: Path


class Node(NamedTuple):
    url: str
    folder: Path
    models: list
    process: subprocess.Popen

    @property
    def server(self):
        return Server(self.url)


def find():
    """The ComfyUI that COMFYUI_DIR names. Raises `Unavailable` where there is none, or nothing that runs it."""
    given = os.environ.get("COMFYUI_DIR")
    if not given:
        raise Unavailable("COMFYUI_DIR does not say where a checkout of ComfyUI is")
    folder = Path(given).absolute()
    for needed in ("main.py", "script_examples", *EXTRAS):
        if not (folder / needed).exists():
            raise Unavailable(f"COMFYUI_DIR={folder} is no checkout of ComfyUI: it has no {needed}")
    own = [folder / name / "bin" / "python" for name in (".venv", "venv")]
    python = os.environ.get("COMFYUI_PYTHON") or next((str(path) for path in own if path.exists()), "python3")
    tried = run([python, "-c", "import torch, torchsde, transformers, aiohttp, av"], folder)
    if tried.returncode:
        why = tried.stdout.strip().splitlines()[-1:] or ["it says nothing"]
        raise Unavailable(
            f"{python} cannot run ComfyUI ({why[0]}); let COMFYUI_PYTHON name one with its requirements.txt"
        )
    return ComfyUI(folder, python, checkpoint(folder, python))


def checkpoint(folder, python):
    """Made once, and kept."""
    path = SCRATCH / "tiny.safetensors"
    if not path.exists():
        SCRATCH.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        made = run([python, str(Path(__file__).with_name("checkpoint.py")), str(part)], folder)
        if made.returncode:
            raise Unavailable(f"the checkpoint could not be made with this ComfyUI:\n{made.stdout[-2000:]}")
        part.rename(path)
    return path


def run(command, folder):
    return subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def front_end(version):
    """The files of one version of the front end, from its wheel; fetched once, and kept."""
    folder = SCRATCH / f"front-end-{version}"
    files = folder / "comfyui_frontend_package" / "static"
    if not (files / "index.html").exists():
        shutil.rmtree(folder, ignore_errors=True)
        wheel = f"comfyui-frontend-package=={version}"
        got = run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), wheel], SCRATCH)
        if got.returncode:
            raise Unavailable(f"{wheel} cannot be had: {got.stdout.strip().splitlines()[-1:]}")
    return files


@contextmanager
def started(comfyui, files, count, port=None):
    """`count` nodes that are ready, the first of them on a given port; they have ended when this is left."""
    scratch = Path(tempfile.mkdtemp(prefix="comfyui-"))
    nodes = []
    try:
        for i in range(count):
            at = port if port and not nodes else free_port()
            nodes.append(start(comfyui, files, scratch / f"node-{i}", at, f"only-on-{i}"))
        for node in nodes:
            until_ready(node)
        yield nodes
    finally:
        end([node.process for node in nodes])
        shutil.rmtree(scratch, ignore_errors=True)


def start(comfyui, files, folder, port, own_model):
    for name in ("models/checkpoints", "custom_nodes", "input", "output", "temp", "user"):
        (folder / name).mkdir(parents=True)
    models = [CHECKPOINT, f"{own_model}.safetensors"]
    for model in models:
        (folder / "models/checkpoints" / model).symlink_to(comfyui.checkpoint)
    example = comfyui.folder / "input/example.png"
    if example.exists():
        shutil.copy(example, folder / "input")
    for extra in EXTRAS:
        (folder / "custom_nodes" / Path(extra).name).symlink_to(comfyui.folder / extra)
    command = [comfyui.python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(folder), "--database-url", f"sqlite:///{folder}/comfyui.db"]
    command += ["--disable-api-nodes", "--disable-all-custom-nodes"]
    command += ["--whitelist-custom-nodes", *(Path(extra).name for extra in EXTRAS)]
    command += ["--preview-method", "latent2rgb", "--front-end-root", str(files)]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=comfyui.folder,
            env={**os.environ, **ALIKE},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return Node(f"http://127.0.0.1:{port}", folder, models, process)


def until_ready(node, seconds=400):
    end = time.monotonic() + seconds
    while time.monotonic() < end and node.process.poll() is None:
        try:
            node.server.json("/system_stats")
            return
        except (OSError, AssertionError):
            time.sleep(0.2)
    words = (node.folder / "log").read_text(errors="replace")[-3000:]
    raise RuntimeError(f"ComfyUI at {node.url} did not become ready within {seconds} s; its last words:\n{words}")


def end(processes):
    """Ends them all, by asking first."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port():
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def port_if_free(port):
    """This port, or any where somebody has it."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return free_port()
    return port


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    version = sys.argv[2] if len(sys.argv) > 2 else "1.27.10"
    try:
        with started(find(), front_end(version), int(sys.argv[1])) as nodes:
            for node in nodes:
                print(node.url, *node.models, flush=True)
            signal.pause()
    except Unavailable as why:
        sys.exit(f"{why}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
