"""Runs the examples of JOBS.md as they stand there: Python's with `requests`, JavaScript's in Node or in Chromium.

usage: jobs_clients.py python|node|chromium URL
"""

import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

ADDRESS = "https://gpu.studio.example"
SCENE = {"teapot": True}


def example(language):
    text = (Path(__file__).parents[2] / "JOBS.md").read_text()
    return re.search(rf"```{language}\n(.*?)```", text, re.S).group(1)


def python(url):
    names = {"url": url, "scene": SCENE}
    exec(example("python"), names)
    answer = json.loads(names["frame"])
    assert answer["method"] == "POST" and answer["path"] == "/render", answer


def script(url):
    """The example, and what it has to come to; says `fine` by `tell`."""
    code = example("js").replace(ADDRESS, url)
    return f"""(async () => {{
        const scene = {json.dumps(SCENE)};
        {code}
        const answer = JSON.parse(await frame.text());
        tell(answer.path === "/render" ? "fine" : JSON.stringify(answer));
    }})().catch(error => tell(String(error)));"""


def node(url):
    code = "const tell = text => console.log(text);\n" + script(url)
    said = subprocess.run(["node", "-e", code], capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == "fine", said


def chromium(url):
    """In a page of another origin: the browser asks first whether it may, and shows only what it may."""
    page = f"<title>waiting</title><script>const tell = text => document.title = text;\n{script(url)}</script>"

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    # `localhost` may call for a random id: pages get `crypto.randomUUID` only where they are secure.
    address = f"http://localhost:{server.server_port}/"
    said = subprocess.run(command + [address], capture_output=True, text=True, timeout=90)
    title = re.search(r"<title>(.*?)</title>", said.stdout)
    assert title and title.group(1) == "fine", said


{"python": python, "node": node, "chromium": chromium}[sys.argv[1]](sys.argv[2])
