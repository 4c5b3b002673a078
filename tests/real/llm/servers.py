"""Engines and a gateway on free ports; all have ended when they are left."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug"
SCRATCH = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "real"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(url, path, body=None):
    request = urllib.request.Request(url + path, None if body is None else json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def wait(what, so, seconds=60):
    until = time.monotonic() + seconds
    while True:
        try:
            if so():
                return
        except OSError:
            pass
        if time.monotonic() > until:
            raise RuntimeError(f"{what} did not come about within {seconds} s")
        time.sleep(0.1)


@contextmanager
def process(command, log):
    with open(log, "wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def llama_cpp():
    """A real llama.cpp server; its URL, and the name of its model."""
    import tiny_model

    SCRATCH.mkdir(parents=True, exist_ok=True)
    model = SCRATCH / "tiny.gguf"
    if not model.exists():
        tiny_model.write(model)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process([sys.executable, str(HERE / "llama_cpp.py"), str(port), str(model)], SCRATCH / "llama_cpp.log"):
        wait("llama.cpp is ready", lambda: ask(url, "/health")["status"] == "ok")
        yield url, ask(url, "/v1/models")["data"][0]["id"]


@contextmanager
def simulated(engine, model, *more):
    """A simulated engine; its URL."""
    port = free_port()
    command = [str(BIN / "tabane-sim"), "llm", engine, "--listen", f"127.0.0.1:{port}", "--model", f"{model}=4000"]
    with process([*command, *more], SCRATCH / f"{engine}.log"):
        path = "/api/version" if engine == "ollama" else "/v1/models"
        wait(f"the simulated {engine} is ready", lambda: ask(f"http://127.0.0.1:{port}", path))
        yield f"http://127.0.0.1:{port}"


@contextmanager
def gateway(nodes, kind):
    """The gateway in front of these (name → URL), with this block of its kind; its URL."""
    folder = Path(tempfile.mkdtemp(prefix="tabane-"))
    port, admin = free_port(), free_port()
    lines = [f"listen: [\"127.0.0.1:{port}\"]", f"admin: 127.0.0.1:{admin}", "data_dir: data", "nodes:"]
    lines += [f"  {name}: {{endpoints: {{llm: {{url: \"{url}\"}}}}}}" for name, url in nodes.items()]
    pool = ", ".join(f"{name}/llm" for name in nodes)
    lines += ["services:", "  chat:", f"    kind: {{llm: {json.dumps(kind)}}}", f"    pool: [{pool}]", "    routes: [/]"]
    lines += ["    health: {interval: 300ms, rise: 1}"]
    file = folder / "tabane.yaml"
    file.write_text("\n".join(lines) + "\n")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, True)
        log = SCRATCH / "llm-gateway.log"
        stack.enter_context(process([str(BIN / "tabane"), "run", "-c", str(file)], log))

        def all_up():
            nodes_of = ask(f"http://127.0.0.1:{admin}", "/api/v1/nodes")
            return all(e["state"] == "up" for node in nodes_of for e in node["endpoints"])

        wait("the gateway is ready", all_up)
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
