"""What was recorded of two servers, made comparable: ids and times are named by their order, figures by their type."""

import hashlib
import io
import json
import re

from PIL import Image

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")
TEMPORARY = re.compile(r"ComfyUI_temp_[a-z]{5}_\d+_")
# A node's own: its folder, its model.
FOLDER = re.compile(r"/[^\s\"']*/comfyui-\w{8}/node-\d+")
OWN_MODEL = re.compile(r"only-on-\d+\.safetensors")
# Of an answer's headers, those that a client acts on.
HEADERS = (
    "content-type",
    "content-length",
    "content-range",
    "content-disposition",
    "accept-ranges",
    "cache-control",
    "allow",
)
# Of these, whether there is one.
THERE = ("etag", "last-modified")


class Recording:
    """Step → what was seen at it."""

    def __init__(self, server):
        self.server = server
        self.steps = {}
        self.ids = {}

    def note(self, step, seen):
        assert step not in self.steps, f"two steps are named {step}"
        self.steps[step] = self.plain(seen)

    def answer(self, step, answer, keep=lambda body: body):
        """Notes an answer; `keep` takes of its parsed body what can be compared."""
        headers = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
        headers.update({name: "<there>" for name in THERE if name in answer.headers})
        seen = {"status": answer.status, "headers": headers}
        if answer.headers.get("content-type", "").startswith("application/json"):
            # Its length is that of ids and figures.
            headers.pop("content-length", None)
            seen["body"] = keep(answer.json()) if answer.status == 200 else answer.json()
        elif answer.headers.get("content-type", "").startswith("text/"):
            seen["body"] = answer.body.decode(errors="replace")
        else:
            seen["body"] = f"{len(answer.body)} bytes, {digest(answer.body)}"
        self.note(step, seen)

    def events(self, step, events):
        """Notes what a socket said, in order. Apart from that: how many are left, and what is said on the way, some of
        which a server may leave out."""
        counts, story = [], []
        progress, previews, state = {}, {}, None
        for event in events:
            if isinstance(event, bytes):
                kind, data = binary(event)
            else:
                kind, data = event["type"], event["data"]
            if kind == "status":
                left = data["status"]["exec_info"]["queue_remaining"]
                if counts[-1:] != [left]:
                    counts.append(left)
            elif kind == "progress":
                progress[(data["node"], data["prompt_id"], *sorted(data))] = None
            elif kind == "preview":
                previews[json.dumps(data)] = None
            elif kind == "progress_state":
                # Without how far each is.
                far = ("value", "max")
                nodes = {node: {k: v for k, v in of.items() if k not in far} for node, of in data["nodes"].items()}
                state = {**data, "nodes": nodes}
            else:
                story.append([kind, data])
        on_the_way = {"progress": [*progress], "previews": [*previews], "last state": state}
        self.note(step, {"queue_remaining": counts, "events": story, "on the way": on_the_way})

    def image(self, step, answer):
        """Notes an image that may be encoded in several ways: what it shows."""
        seen = {"status": answer.status, "type": answer.headers.get("content-type")}
        image = Image.open(io.BytesIO(answer.body))
        self.note(
            step,
            {
                **seen,
                "format": image.format,
                "size": image.size,
                "colour": [round(value / 16) for value in image.convert("RGBA").getpixel((5, 5))],
            },
        )

    def plain(self, tree, key=None):
        if isinstance(tree, dict):
            return {self.text(name): self.plain(value, name) for name, value in tree.items()}
        if key == "dependent_outputs":
            return sorted(tree)
        if isinstance(tree, (list, tuple)):
            return [self.plain(value) for value in tree]
        if key in ("timestamp", "create_time"):
            return f"<{type(tree).__name__}>"
        if key == "number":
            return place(tree)
        return self.text(tree) if isinstance(tree, str) else tree

    def text(self, words):
        words = ID.sub(lambda found: self.ids.setdefault(found[0], f"<id {len(self.ids) + 1}>"), words)
        words = words.replace(self.server.authority, "<server>")
        words = FOLDER.sub("<folder>", words)
        words = OWN_MODEL.sub("only-on-<one>.safetensors", words)
        return TEMPORARY.sub("ComfyUI_temp_<chance>_<number>_", words)

    def item(self, item):
        """An item of the queue: number, id, prompt, extra data, outputs (a set)."""
        return [place(item[0]), *item[1:4], sorted(item[4])]

    def history(self, history):
        return {job: {**entry, "prompt": self.item(entry["prompt"])} for job, entry in history.items()}

    def queue(self, queue):
        """The pending ones as they would run; a server may list them as its heap has them."""
        return {
            "queue_running": [self.item(item) for item in queue["queue_running"]],
            "queue_pending": [self.item(item) for item in sorted(queue["queue_pending"], key=lambda item: item[0])],
        }


def place(number):
    """A job's number in the queue, which says its place among others; in front of the others it is below zero."""
    return "<number>" if number >= 0 else "<number in front>"


def shape(tree):
    """The names and types of a tree of figures."""
    if isinstance(tree, dict):
        return {name: shape(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [shape(value) for value in tree[:1]]
    return type(tree).__name__


def binary(frame):
    """A binary frame: a preview, or a result (a PNG), with what stands before the image."""
    kind = int.from_bytes(frame[:4], "big")
    if kind == 4:
        length = int.from_bytes(frame[4:8], "big")
        told, image = json.loads(frame[8 : 8 + length]), frame[8 + length :]
    else:
        told, image = {"format": int.from_bytes(frame[4:8], "big")}, frame[8:]
    if image.startswith(b"\x89PNG"):
        return "image", {"kind": kind, "told": told, "bytes": digest(image)}
    return "preview", {"kind": kind, "told": told}


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def differences(one, other, place=""):
    """Where two trees differ, as lines: place: one → other."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys([*one, *other]):
            if name not in one:
                yield f"{place}/{name}: only the second has it: {str(other[name])[:200]}"
            elif name not in other:
                yield f"{place}/{name}: only the first has it: {str(one[name])[:200]}"
            else:
                yield from differences(one[name], other[name], f"{place}/{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, pair in enumerate(zip(one, other)):
            yield from differences(*pair, f"{place}/{at}")
    elif one != other:
        yield f"{place}: {str(one)[:700]} → {str(other)[:700]}"
