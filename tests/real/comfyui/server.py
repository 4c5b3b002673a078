"""Asks a server that speaks ComfyUI's API: the bytes as given, nothing followed, nothing mended."""

import http.client
import json
import time
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import websocket


class Answer(NamedTuple):
    status: int
    headers: dict  # by lower-case name
    body: bytes

    def json(self):
        return json.loads(self.body)


class Server:
    def __init__(self, url):
        self.url = url.rstrip("/")
        self.authority = urlsplit(self.url).netloc

    def ask(self, method, path, body=None, headers=None):
        """One request on a connection of its own. A body that is no bytes is sent as JSON."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(self.authority, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def json(self, path):
        answer = self.ask("GET", path)
        assert answer.status == 200, f"GET {path}: {answer.status} {answer.body[:200]}"
        return answer.json()

    def image(self, place):
        """The bytes of an image that an output names."""
        answer = self.ask("GET", "/view?" + urlencode(place))
        assert answer.status == 200, f"/view of {place}: {answer.status} {answer.body[:200]}"
        return answer.body

    def upload(self, name, data, route="/upload/image", **fields):
        """A multipart upload, as the front end sends it."""
        edge = "----tabane"
        parts = [
            f'--{edge}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        ]
        if data is not None:
            head = f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            parts.append(f"{head}Content-Type: image/png\r\n\r\n".encode() + data + b"\r\n")
        body = b"".join(parts) + f"--{edge}--\r\n".encode()
        return self.ask("POST", route, body, {"Content-Type": f"multipart/form-data; boundary={edge}"})

    def events(self, client=None, features=None):
        return Events(self, client, features)


class Events:
    """One socket to /ws, read from the beginning: what it said so far is in `seen`, JSON parsed, the rest bytes."""

    def __init__(self, server, client, features):
        path = "/ws" + (f"?clientId={client}" if client else "")
        self.socket = websocket.create_connection(f"ws://{server.authority}{path}", timeout=60)
        self.seen = []
        if features is not None:
            self.socket.send(json.dumps({"type": "feature_flags", "data": features}))

    def until(self, is_last, seconds=60):
        """Reads on to the first event that is asked for, and returns it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.socket.settimeout(max(end - time.monotonic(), 0.01))
            try:
                # With pings among them: else those would keep the wait going for ever.
                kind, frame = self.socket.recv_data_frame(control_frame=True)
            except websocket.WebSocketTimeoutException:
                break
            assert kind != websocket.ABNF.OPCODE_CLOSE, f"the socket was closed: {frame.data}"
            if kind not in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
                continue
            self.seen.append(json.loads(frame.data) if kind == websocket.ABNF.OPCODE_TEXT else frame.data)
            if is_last(self.seen[-1]):
                return self.seen[-1]
        raise AssertionError(f"not seen within {seconds} s; the last events: {str(self.seen[-5:])[-1500:]}")

    def until_end_of(self, job):
        """Reads to the mark at which the history of a job is complete."""
        return self.until(lambda said: is_end(said, job))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def is_end(said, job):
    if not isinstance(said, dict) or said["type"] != "executing":
        return False
    return said["data"]["node"] is None and said["data"].get("prompt_id") == job


def wait(what, is_so, seconds=60, pause=time.sleep):
    """Waits for a state. Returns what `is_so` gave; `pause` lets a browser go on meanwhile."""
    end = time.monotonic() + seconds
    while True:
        found = is_so()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not so within {seconds} s"
        pause(0.05)
