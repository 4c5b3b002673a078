"""seeded.py SCRIPT SEED OUT: runs an example script of ComfyUI's as it is, and keeps the images it got (OUT.0) and
what it heard on its socket (OUT-heard).

The scripts all ask for one seed. Here each asks for its own, put in as the request leaves: so its images are its own.
"""

import json
import runpy
import sys
import urllib.request
from pathlib import Path

import websocket

script, seed, out = sys.argv[1:]


class Request(urllib.request.Request):
    def __init__(self, url, data=None, *args, **named):
        if url.endswith("/prompt") and data:
            asked = json.loads(data)
            asked["prompt"]["3"]["inputs"]["seed"] = int(seed)
            data = json.dumps(asked).encode()
        super().__init__(url, data, *args, **named)


class WebSocket(websocket.WebSocket):
    def recv(self):
        said = super().recv()
        heard.write(f"{said if isinstance(said, str) else f'{len(said)} bytes, {said[:8].hex()}'}\n")
        heard.flush()
        return said


urllib.request.Request = Request
websocket.WebSocket = WebSocket
heard = open(f"{out}-heard", "w")
left = runpy.run_path(script)
# What it holds in the end: node → images.
for images in left.get("images", {}).values():
    for i, image in enumerate(images):
        Path(f"{out}.{i}").write_bytes(image)
