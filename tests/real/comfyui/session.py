"""A fixed session of calls and sockets, recorded at a node and at a gateway with that one node, and compared.

usage: session.py URL OUT.json: records it.  session.py --compare ONE.json OTHER.json: prints where they differ.
"""

import io
import json
import re
import sys
import uuid
from pathlib import Path

from PIL import Image

import report
from nodes import CHECKPOINT
from recording import Recording, differences, shape
from server import Server, is_end, wait

WENT = "the part {} went through"
# Where a gateway differs, and why it should.
ON_PURPOSE = {
    "/the events of one who came back within a job/events/0/1/(display_node|prompt_id):": "several jobs may be meant",
    "/(the events of [^/]*|the history[^/]*)/.*filename:": "each job has files of its own",
    "/the events of all that/queue_remaining:": "each that is taken out is told",
    "/an image, bytes it has not/headers/content-length:": "an answer without a body says so",
    "/(bare|/api): it is there/headers/content-disposition:": "what users keep is saved, not run as a page",
    "/(bare|/api): its folder, in full/body/0/modified:": "newer servers say it in milliseconds",
}
METADATA = {"supports_preview_metadata": True}


# === workflows ===


def picture(colour, seconds=0.0, prefix="session"):
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": colour}},
        "2": {"class_type": "TestSleep", "inputs": {"value": ["1", 0], "seconds": seconds}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
        "4": saving("2", prefix),
    }


def sampling(seed, last):
    text = lambda words: {"class_type": "CLIPTextEncode", "inputs": {"text": words, "clip": ["4", 1]}}  # noqa: E731
    sampler = {
        "seed": seed,
        "steps": 20,
        "cfg": 4.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        "model": ["4", 0],
        "positive": ["6", 0],
        "negative": ["7", 0],
        "latent_image": ["5", 0],
    }
    return {
        "3": {"class_type": "KSampler", "inputs": sampler},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
        "6": text("a teapot"),
        "7": text("a cup"),
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": last,
    }


def failing():
    return {
        "1": {"class_type": "StubImage", "inputs": {"content": "BLACK", "height": 64, "width": 64, "batch_size": 1}},
        "2": {"class_type": "TestSyncError", "inputs": {"value": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }


def loading(name):
    return {"1": {"class_type": "LoadImage", "inputs": {"image": name}}, "2": saving("1", "loaded")}


def saving(node, prefix="saved"):
    return {"class_type": "SaveImage", "inputs": {"images": [node, 0], "filename_prefix": prefix}}


# === the session ===


class Session:
    def __init__(self, server):
        self.server = server
        self.recording = Recording(server)
        self.note = self.recording.note
        self.answer = self.recording.answer

    def run(self):
        self.server.ask("POST", "/history", {"clear": True})
        for part in (self.describes, self.runs_a_job, self.refuses, self.files, self.users, self.queues, self.sockets):
            # Where one breaks off, the others are still to be compared.
            try:
                part()
                self.note(WENT.format(part.__name__), "yes")
            except Exception as error:
                self.note(WENT.format(part.__name__), f"{type(error).__name__}: {error}"[:1500])
                self.comes_to_rest()
        return self.recording.steps

    def get(self, step, path, keep=lambda body: body, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.server.ask("GET", path, headers=named)
        self.answer(step, answer, keep)
        return answer

    def post(self, step, path, body, keep=lambda body: body):
        answer = self.server.ask("POST", path, body)
        self.answer(step, answer, keep)
        return answer

    def submit(self, prompt, client=None, **more):
        """Queues a prompt without a note of it. Returns its id."""
        job = str(uuid.uuid4())
        client = {"client_id": client} if client else {}
        answer = self.server.ask("POST", "/prompt", {"prompt": prompt, "prompt_id": job, **client, **more})
        assert answer.status == 200, f"/prompt: {answer.status} {answer.body}"
        assert answer.json()["prompt_id"] == job, f"it has another id than was asked for: {answer.json()}"
        return job

    def until_in_history(self, job):
        wait(f"{job} is in the history", lambda: job in self.server.json(f"/history/{job}"))

    def describes(self):
        self.get("system stats, by shape", "/system_stats", shape)
        self.get("the same under /api", "/api/system_stats", shape)
        self.get("object info", "/object_info")
        self.get("object info under /api", "/api/object_info", sorted)
        self.get("object info of one class", "/object_info/CheckpointLoaderSimple")
        self.get("object info of an unknown class", "/object_info/NoSuchClass")
        for path in (
            "/features",
            "/extensions",
            "/models",
            "/models/checkpoints",
            "/models/nothing",
            "/embeddings",
            "/i18n",
        ):
            self.get(f"GET {path}", path)
        self.get("GET /prompt", "/prompt")
        self.get("GET /queue", "/queue", self.recording.queue)
        self.get("GET /history", "/history", self.recording.history)
        self.get("an unknown job in the history", f"/history/{uuid.uuid4()}")
        self.get("the page", "/")
        self.get("an unknown path", "/nowhere")
        self.answer("a method that is not there", self.server.ask("DELETE", "/prompt"))
        self.answer(
            "another site's page", self.server.ask("GET", "/queue", headers={"Origin": "http://elsewhere.example"})
        )

    def runs_a_job(self):
        client = str(uuid.uuid4())
        with self.server.events(client) as events:
            job = str(uuid.uuid4())
            asked = {"prompt": picture(0x336699), "prompt_id": job, "client_id": client, "extra_data": {"note": "kept"}}
            self.post("POST /prompt", "/prompt", asked)
            events.until_end_of(job)
            # Behind that mark it has to be there.
            self.get("its history at its end", f"/history/{job}", self.recording.history)
            self.recording.events("its events", events.seen)
            start = len(events.seen)
            again = self.submit(picture(0x336699), client)
            events.until_end_of(again)
            self.recording.events("the events of the same prompt again", events.seen[start:])
        self.get("its entry again under /api", f"/api/history/{job}", self.recording.history)
        self.get("the history, the last one", "/history?max_items=1", self.recording.history)
        self.get("the history, from the first one", "/history?max_items=1&offset=0", self.recording.history)
        unheard = self.submit(picture(0x996633))
        self.until_in_history(unheard)
        self.get("the history of a job without a client", f"/history/{unheard}", self.recording.history)
        outputs = self.server.json(f"/history/{job}")[job]["outputs"]
        place = "filename={filename}&subfolder={subfolder}&type={type}".format(**outputs["4"]["images"][0])
        self.views(place)
        self.get("its preview", "/view?filename={filename}&type={type}".format(**outputs["3"]["images"][0]))
        self.post("its history is deleted", "/history", {"delete": [job]})
        self.get("and gone", f"/history/{job}")
        self.get("its image is still there", f"/view?{place}")

    def views(self, place):
        whole = self.get("an image", f"/view?{place}")
        self.get("an image under /api", f"/api/view?{place}")
        self.answer("an image's head", self.server.ask("HEAD", f"/view?{place}"))
        for name, asked in (("its first bytes", "0-9"), ("its last bytes", "-5"), ("bytes it has not", "999999-")):
            self.get(f"an image, {name}", f"/view?{place}", Range=f"bytes={asked}")
        self.get("an image that has not changed", f"/view?{place}", If_None_Match=whole.headers.get("etag", '"none"'))
        for name, asked in (("smaller", "preview=webp;50"), ("without its alpha", "channel=rgb")):
            self.recording.image(f"an image, {name}", self.server.ask("GET", f"/view?{place}&{asked}"))
        self.get("an image that is not there", "/view?filename=none.png")
        self.get("an image outside", "/view?filename=..%2F..%2Fsecret.png")
        self.get("an image in a folder outside", "/view?filename=a.png&subfolder=..%2F..")
        self.get("an image of an unknown type", "/view?filename=a.png&type=other")
        self.get("an image without a name", "/view")

    def refuses(self):
        size = picture(1)
        size["1"]["inputs"]["width"] = -5
        missing = picture(1)
        del missing["1"]["inputs"]["height"]
        partly = {**picture(1, prefix="partly"), "5": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}
        unknown = {**picture(1), "9": {"class_type": "NoSuchClass", "inputs": {}}}
        endless = picture(1)
        endless["2"]["inputs"]["value"] = ["2", 0]
        without_model = sampling(1, saving("8"))
        without_model["4"]["inputs"]["ckpt_name"] = "none.safetensors"
        for name, prompt in (
            ("a width out of range", size),
            ("an input too few", missing),
            ("one output of three is bad", partly),
            ("an unknown class", unknown),
            ("a node that needs itself", endless),
            ("no output", {"1": size["1"]}),
            ("an input file that is not there", loading("nowhere.png")),
            ("a model that is not there", without_model),
            ("an empty prompt", {}),
        ):
            self.post(f"refused: {name}", "/prompt", {"prompt": prompt})
        self.post("refused: no prompt", "/prompt", {})
        self.answer("refused: no JSON", self.server.ask("POST", "/prompt", b"{", {"Content-Type": "application/json"}))
        wait("what was taken has ended", self.is_idle)

    def files(self):
        red, green = png((255, 0, 0, 255)), png((0, 255, 0, 255))
        self.answer("an upload", self.server.upload("session.png", red))
        self.answer("the same again", self.server.upload("session.png", red))
        self.answer("another image of that name", self.server.upload("session.png", green))
        self.answer("and again", self.server.upload("session.png", green, "/api/upload/image"))
        self.answer("another in its place", self.server.upload("session.png", green, overwrite="true"))
        self.get("what is there now", "/view?filename=session.png&type=input")
        self.answer(
            "an upload to a folder", self.server.upload("session.png", red, subfolder="of session", type="input")
        )
        self.get("what is there", "/view?filename=session.png&type=input&subfolder=of%20session")
        self.answer("an upload for a while", self.server.upload("session.png", red, type="temp"))
        self.answer("an upload outside", self.server.upload("session.png", red, subfolder="../.."))
        self.answer("an upload of nothing", self.server.upload("session.png", None))
        mask = json.dumps({"filename": "session.png", "subfolder": "of session", "type": "input"})
        self.answer("a mask", self.server.upload("mask.png", png((0, 0, 0, 128)), "/upload/mask", original_ref=mask))
        self.recording.image("what it made", self.server.ask("GET", "/view?filename=mask.png&type=input"))
        self.get("the input is offered", "/object_info/LoadImage")
        job = self.submit(loading("session (1).png"))
        self.until_in_history(job)
        entry = self.server.json(f"/history/{job}")[job]
        self.note("a job that loads it", {"outputs": entry["outputs"], "status": entry["status"]["status_str"]})
        (made,) = entry["outputs"]["2"]["images"]
        again = self.submit(loading(f"{made['filename']} [output]"))
        self.until_in_history(again)
        entry = self.server.json(f"/history/{again}")[again]
        self.note("a job that loads its output", {"outputs": entry["outputs"], "status": entry["status"]["status_str"]})

    def users(self):
        self.get("users", "/users")
        self.post("a setting", "/settings/Session.Test", {"a": 1})
        self.get("and its value", "/api/settings/Session.Test")
        self.get("a setting that is not there", "/settings/Session.None")
        place = "/userdata/session%2Fa%20b.json"
        for prefix in ("", "/api"):
            name = prefix or "bare"
            self.answer(f"{name}: a file is kept", self.server.ask("POST", prefix + place, b'{"kept": true}'))
            self.answer(f"{name}: not twice", self.server.ask("POST", f"{prefix}{place}?overwrite=false", b"{}"))
            self.get(f"{name}: it is there", prefix + place)
            self.get(f"{name}: its folder", f"{prefix}/userdata?dir=session&recurse=true")
            self.get(f"{name}: its folder, in full", f"{prefix}/userdata?dir=session&full_info=true", files_in_full)
            self.answer(f"{name}: moved", self.server.ask("POST", f"{prefix}{place}/move/session%2Fb.json"))
            self.get(f"{name}: no longer there", prefix + place)
            self.answer(f"{name}: deleted", self.server.ask("DELETE", f"{prefix}/userdata/session%2Fb.json"))
            self.answer(f"{name}: deleted again", self.server.ask("DELETE", f"{prefix}/userdata/session%2Fb.json"))
        self.get("a folder that is not there", "/userdata?dir=none")
        self.get("no folder", "/userdata")

    def queues(self):
        client = str(uuid.uuid4())
        with self.server.events(client) as events:
            first = self.submit(picture(0, 8.0), client)
            events.until(lambda said: is_on_its_way(said, first))
            second, third = (self.submit(picture(n, 4.0), client) for n in (1, 2))
            ahead = self.submit(picture(9), client, front=True)
            self.note("who waits", self.pending())
            self.get("a queue of four", "/queue", self.recording.queue)
            self.get("how many are left", "/prompt")
            self.post("a waiting one is taken out", "/queue", {"delete": [second]})
            self.note("who waits then", self.pending())
            self.post("another is interrupted", "/interrupt", {"prompt_id": third})
            self.note("who runs then", self.running())
            self.post("the running one is interrupted", "/interrupt", {"prompt_id": first})
            events.until_end_of(first)
            self.get("the history of one that was interrupted", f"/history/{first}", self.recording.history)
            self.get("the history of one that was taken out", f"/history/{second}")
            following = events.until(lambda said: is_start(said) and said["data"]["prompt_id"] != first)
            self.note("who runs next", {"ahead": following["data"]["prompt_id"] == ahead})
            events.until(lambda said: is_on_its_way(said, third))
            waiting = [self.submit(picture(10 + n, 2.0), client) for n in range(2)]
            self.post("all that wait are taken out", "/queue", {"clear": True})
            self.note("nobody waits", self.pending())
            self.post("whoever runs is interrupted", "/interrupt", {})
            events.until_end_of(third)
            self.recording.events("the events of all that", events.seen)
            assert not any(job in str(events.seen) for job in waiting), "one that was taken out was heard of"
        wait("nothing is left", self.is_idle)
        self.post("a failing job", "/prompt", {"prompt": failing()}, sorted)
        wait("it has failed", self.is_idle)
        (entry,) = self.server.json("/history?max_items=1").values()
        self.note("its history", {"outputs": entry["outputs"], "status": entry["status"]})
        self.post("the memory is freed", "/free", {"unload_models": True, "free_memory": True})

    def sockets(self):
        client = str(uuid.uuid4())
        with self.server.events() as unnamed:
            greeted = unnamed.until(lambda said: said["type"] == "status")
            sid = greeted["data"]["sid"]
            self.note("a greeting", {**greeted["data"], "sid": type(sid).__name__})
        with self.server.events(client, METADATA) as events, self.server.events(str(uuid.uuid4())) as other:
            flags = events.until(lambda said: isinstance(said, dict) and said["type"] == "feature_flags")
            self.note("what the server can", flags)
            job = self.submit(sampling(1, saving("8")), client)
            events.until_end_of(job)
            self.recording.events("a sampler's events, previews with their job", events.seen)
            other.until(lambda said: said["data"]["status"]["exec_info"]["queue_remaining"] == 0)
            self.note("another client hears", sorted({said["type"] for said in other.seen}))
        with self.server.events(client) as events:
            job = self.submit(sampling(2, {"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}}), client)
            events.until_end_of(job)
            self.recording.events("a sampler's events, previews and result as they were of old", events.seen)
        with self.server.events(client) as left:
            job = self.submit(picture(77, 3.0), client)
            left.until(lambda said: is_on_its_way(said, job))
        with self.server.events(client) as back:
            back.until(lambda said: is_end(said, job))
            self.recording.events("the events of one who came back within a job", back.seen)

    # === impl Session ===

    def comes_to_rest(self):
        """Nothing is left of a part that broke off."""
        self.server.ask("POST", "/queue", {"clear": True})
        self.server.ask("POST", "/interrupt", {})
        wait("nothing is left", self.is_idle)

    def running(self):
        return [item[1] for item in self.server.json("/queue")["queue_running"]]

    def pending(self):
        return [item[1] for item in sorted(self.server.json("/queue")["queue_pending"], key=lambda item: item[0])]

    def is_idle(self):
        return self.server.json("/prompt")["exec_info"]["queue_remaining"] == 0


def is_start(said):
    return isinstance(said, dict) and said["type"] == "execution_start"


def is_on_its_way(said, job):
    return isinstance(said, dict) and said["type"] == "progress" and said["data"]["prompt_id"] == job


def files_in_full(files):
    return [
        {**file, "modified": type(file["modified"]).__name__, **({"created": 0} if "created" in file else {})}
        for file in files
    ]


def png(colour):
    data = io.BytesIO()
    Image.new("RGBA", (16, 16), colour).save(data, "PNG")
    return data.getvalue()


def record(server, file):
    """Runs the session at a server and keeps what was seen. Returns it; fails if a part broke off."""
    steps = keep(server, file)
    broken = {step: seen for step, seen in steps.items() if step.startswith(WENT.split(" {}")[0]) and seen != "yes"}
    assert not broken, str(broken)
    return steps


def keep(server, file):
    steps = Session(server).run()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(steps, indent=1))
    return json.loads(file.read_text())


def same(one, other):
    """Fails with a list of all differences but those that are on purpose; names these."""
    found = []
    for line in differences(one, other):
        why = next((why for place, why in ON_PURPOSE.items() if re.match(place, line)), None)
        if why:
            print(f"    differs on purpose, for {why}: {line[:200]}")
        else:
            found.append(line)
    assert not found, f"{len(found)} differences:\n" + "\n".join(found)


def main():
    if sys.argv[1] == "--compare":
        one, other = (json.loads(Path(file).read_text()) for file in sys.argv[2:])
        report.check("the two recordings are the same", same, one, other)
    else:
        url, file = sys.argv[1:]
        report.check("the session went through", record, Server(url), Path(file))
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
