"""Chromium, and tabs in which the front end of ComfyUI runs."""

import json
import os
import re
import shutil
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Error, sync_playwright

from report import Unavailable

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
# The front end would look at other sites, too; what it finds there is no matter of ours.
NOBODY_ELSE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
# It is loaded when its graph is there and the nodes of the server are known to it.
LOADED = """window.app?.vueAppReady && window.app.graph && window.app.api?.clientId
    && Object.keys(window.LiteGraph?.registered_node_types ?? {}).includes('SaveImage')"""
SECONDS = 60


@contextmanager
def chromium():
    """Debian's or Chrome, named by CHROMIUM or found; else Playwright's own."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, NOBODY_ELSE])
        except Error as why:
            said = str(why).splitlines()[0]
            raise Unavailable(f"no Chromium runs here; install it, or let CHROMIUM name it ({said})") from None
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """One tab with the front end of a server in it. Keeps what came through its sockets and what it complained of."""

    def __init__(self, context, server):
        self.server = server
        self.page = context.new_page()
        self.frames = []  # events parsed, binary frames as bytes; of all its sockets, in order
        self.complaints = []
        self.asks_for_jobs = False
        self.page.on("websocket", lambda socket: socket.on("framereceived", self.receive))
        self.page.on("request", self.look)
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.complain(f"page error: {error}"))
        begun = time.monotonic()
        self.page.goto(server.url + "/", timeout=SECONDS * 1000)
        self.until_loaded()
        self.took = time.monotonic() - begun

    def until_loaded(self):
        self.until(LOADED)
        # It restores what it had open last, after that.
        self.page.wait_for_load_state("networkidle", timeout=SECONDS * 1000)

    def reload(self):
        self.page.reload(timeout=SECONDS * 1000)
        self.until_loaded()

    def receive(self, payload):
        self.frames.append(payload if isinstance(payload, bytes) else json.loads(payload))

    def look(self, request):
        self.asks_for_jobs = self.asks_for_jobs or urlsplit(request.url).path == "/api/jobs"

    def hear(self, message):
        place = message.location.get("url", "")
        # What it wanted from other sites was not to be had.
        if message.type == "error" and place.startswith(self.server.url):
            self.complain(f"console: {message.text} ({place})")

    def complain(self, words):
        self.complaints.append(without_chance(words.splitlines()[0], self.server))

    def run(self, script, argument=None):
        return self.page.evaluate(script, argument)

    def until(self, condition, argument=None, seconds=SECONDS):
        self.page.wait_for_function(condition, arg=argument, timeout=seconds * 1000)

    def pause(self, seconds):
        """Lets the browser's events arrive meanwhile, which a plain sleep would not."""
        self.page.wait_for_timeout(seconds * 1000)

    def events(self, kind, job=None, since=0):
        """The data of the events of one type, of one job or of any."""
        seen = [frame["data"] for frame in self.frames[since:] if isinstance(frame, dict) and frame["type"] == kind]
        return [data for data in seen if job is None or data.get("prompt_id") == job]

    def load(self, graph):
        self.run("graph => app.loadGraphData(graph)", graph)

    def set(self, node, widget, value):
        self.run(
            """([node, widget, value]) => {
                app.graph.getNodeById(node).widgets.find(one => one.name == widget).value = value
            }""",
            [node, widget, value],
        )

    def queue(self):
        """Presses Run. Returns the id of the job."""
        button = self.page.locator("button[data-testid=queue-button], [data-testid=queue-button] button").first
        is_prompt = lambda answer: answer.url.endswith("/prompt") and answer.request.method == "POST"  # noqa: E731
        with self.page.expect_response(is_prompt, timeout=SECONDS * 1000) as answered:
            try:
                button.click(timeout=10_000)
            except Error:
                said = self.page.locator("[role=dialog]").all_inner_texts()
                raise AssertionError(f"Run could not be pressed; dialogs say: {said}") from None
        assert answered.value.status == 200, f"/prompt: {answered.value.status} {answered.value.text()}"
        return answered.value.json()["prompt_id"]

    def queue_size(self):
        """What the front end shows to be waiting or at work. Its old, hidden menu is the same in all versions."""
        return int(self.run("app.ui.queueSize.textContent.match(/\\d+/)[0]"))

    def badge(self):
        """What its visible button says, in either version; 0 where it says nothing."""
        return self.run(
            """() => {
                const place = document.querySelector('.queue-tab-button .p-badge, [data-testid=queue-overlay-toggle]')
                return Number(place?.innerText.match(/\\d+/)?.[0] ?? 0)
            }"""
        )

    def outputs(self):
        """Node of the graph → the images that the front end has for it."""
        return self.run(
            "Object.fromEntries(Object.entries(app.nodeOutputs).map(([node, output]) => [node, output?.images ?? []]))"
        )

    def images_shown(self, node):
        """The sources of the images at a node that are loaded."""
        return self.run(
            """node => (app.graph.getNodeById(node).imgs ?? []).filter(one => one.complete && one.naturalWidth)
                .map(one => one.src)""",
            node,
        )


def without_chance(words, server):
    """A complaint without what differs from run to run: the address, ids, chance numbers."""
    words = words.replace(server.authority, "SERVER")
    words = re.sub(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", "ID", words)
    words = re.sub(r"rand=[0-9.]+", "rand=N", words)
    return re.sub(r"ComfyUI_temp_[a-z]{5}_", "ComfyUI_temp_X_", words)
