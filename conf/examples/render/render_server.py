#!/usr/bin/env python3
"""Renders frames over HTTP with Blender (Cycles, on the CPU) or POV-Ray: one node of a farm.

    python3 render_server.py --port 9001
    curl -o 0001.png -d '{"frame": 1, "width": 640, "height": 360, "samples": 16}' http://127.0.0.1:9001/render

    POST   /render   200 and the PNG, once it is rendered; 503 while another frame is being rendered
    DELETE /render   204, and the render is stopped; 404 when there is none
    GET    /health   200 and {"busy": 0}, or {"busy": 1} while it renders

It knows nothing of queues: whoever comes while it renders is turned away. Waiting, choosing among nodes and trying
again is what the gateway in front of it does. Nor does it notice that a client left: the frame is rendered to its
end, and the node is busy that long, unless somebody says DELETE.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent

# What a request may say: the least, the most, and what holds when nothing is said.
FIELDS = {
    "frame": (0, 1_000_000, 1),
    "width": (1, 8192, 640),
    "height": (1, 8192, 360),
    "samples": (1, 4096, 16),
}
LARGEST_BODY = 64 * 1024


def blender(image, frame, width, height, samples, threads):
    """The command that renders spheres.py. Cycles needs no display, which Eevee and Workbench do."""
    command = ["blender", "--background", "--factory-startup", "--threads", threads]
    command += ["--python-exit-code", 1, "--python", HERE / "spheres.py"]
    return command + ["--", image, frame, width, height, samples]


def povray(image, frame, width, height, samples, threads):
    """The command that renders spheres.pov, whose `clock` is the frame."""
    # POV-Ray takes a square of rays for each pixel, at most 9 x 9; without jitter, a frame is always the same.
    side = min(9, round(samples**0.5))
    rays = ["-A"] if side < 2 else ["+A0.0", "+AM1", f"+R{side}", "-J"]
    command = ["povray", f"+I{HERE / 'spheres.pov'}", f"+O{image}", "+FN8", "-D", f"+K{frame}"]
    return command + [f"+W{width}", f"+H{height}"] + rays + ([f"+WT{threads}"] if threads else [])


class Busy(Exception):
    """Another frame is being rendered."""


class Failed(Exception):
    """The renderer made no image; says why."""


class Renderer:
    """Renders one frame at a time: the machine is made for that."""

    def __init__(self, command, threads):
        self.command = command
        self.threads = threads
        self.lock = threading.Lock()
        self.process = None  # What renders now.

    def render(self, frame):
        """Renders a frame; returns its PNG."""
        with tempfile.TemporaryDirectory(prefix="render-") as folder:
            image = Path(folder, "frame.png")
            command = [str(word) for word in self.command(image, **frame, threads=self.threads)]
            with self.lock:
                if self.process:
                    raise Busy
                process = self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
            try:
                log, _ = process.communicate()
            finally:
                self.process = None
            if process.returncode < 0:
                raise Failed(f"{command[0]} was ended by {signal.Signals(-process.returncode).name}")
            if process.returncode > 0 or not image.exists():
                raise Failed(f"{command[0]} made no image: {log.decode(errors='replace')[-2000:]}")
            return image.read_bytes()

    def stop(self):
        """Ends the render, if there is one; says whether there was."""
        with self.lock:
            process = self.process
        if process:
            process.kill()
            process.wait()
        return process is not None


class Handler(BaseHTTPRequestHandler):
    """Answers one request, in a thread of its own."""

    renderer = None

    def do_GET(self):
        if self.path != "/health":
            return self.error(404, "there are /render and /health")
        self.json(200, {"busy": int(self.renderer.process is not None)})

    def do_POST(self):
        if self.path != "/render":
            return self.error(404, "there are /render and /health")
        try:
            self.answer(200, "image/png", self.renderer.render(self.read_frame()))
        except ValueError as error:
            self.error(400, str(error))
        except Busy:
            self.error(503, "another frame is being rendered")
        except Failed as error:
            self.log_error("%s", error)
            self.error(500, str(error))

    def do_DELETE(self):
        if self.path == "/render" and self.renderer.stop():
            return self.answer(204, "application/json", b"")
        self.error(404, "nothing is being rendered")

    def read_frame(self):
        """What the request says of its frame. Raises ValueError where it makes no sense."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            raise ValueError(f"say how long the body is in Content-Length; at most {LARGEST_BODY} bytes are read")
        said = json.loads(self.rfile.read(int(length)))
        if not isinstance(said, dict) or not said.keys() <= FIELDS.keys():
            raise ValueError(f"send a JSON object with some of {', '.join(FIELDS)}")
        frame = {}
        for name, (least, most, default) in FIELDS.items():
            frame[name] = said.get(name, default)
            if type(frame[name]) is not int or not least <= frame[name] <= most:
                raise ValueError(f"`{name}` is a whole number from {least} to {most}")
        return frame

    def log_request(self, code="-", size="-"):
        # The gateway asks how it is every other second.
        if self.path != "/health":
            super().log_request(code, size)

    def error(self, status, why):
        self.json(status, {"error": why})

    def json(self, status, value):
        self.answer(status, "application/json", json.dumps(value).encode())

    def answer(self, status, content_type, body):
        try:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.log_message("nobody is there to take the answer %d", status)


def main():
    parser = argparse.ArgumentParser(description="Renders frames over HTTP, one at a time.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; there is no password")
    parser.add_argument("--port", type=int, default=9001)
    parser.add_argument("--renderer", choices=["blender", "povray"], help="Blender where it is installed, unless said")
    parser.add_argument("--threads", type=int, default=0, help="how many threads a render takes; 0: one for each core")
    args = parser.parse_args()
    chosen = args.renderer or ("blender" if shutil.which("blender") else "povray")
    if not shutil.which(chosen):
        sys.exit(f"{chosen} is not installed; `apt-get install {chosen}` brings it")
    Handler.renderer = Renderer({"blender": blender, "povray": povray}[chosen], args.threads)
    # So that what renders ends with this program, also when it is told to end by SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with ThreadingHTTPServer((args.host, args.port), Handler) as server:
            print(f"rendering with {chosen} at http://{args.host}:{server.server_port}", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        Handler.renderer.stop()


if __name__ == "__main__":
    main()
