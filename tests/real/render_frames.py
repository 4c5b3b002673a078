"""Sends frames to the gateway of conf/examples/render as one array, waits, fetches them and looks at every pixel.

    python3 render_frames.py http://127.0.0.1:8080 OUT [--frames 12] [--lose NODE PID]

`--lose` ends the process group PID with SIGKILL, half-way, when NODE has just begun a frame.
"""

import argparse
import json
import os
import signal
import sys
import time
from datetime import datetime
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import Request, urlopen
from zipfile import ZipFile

import png

WIDTH, HEIGHT, SAMPLES = 320, 180, 4


class Farm:
    """The gateway, by the one address that clients know."""

    def __init__(self, gateway):
        self.gateway = gateway

    def ask(self, path, method="GET", body=None, **headers):
        """Asks; returns status and body."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        request = Request(urljoin(self.gateway, path), data, headers, method=method)
        try:
            with urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    def submit(self, frames):
        """Sends frames, all in one request; returns the document of their array."""
        body = {"frame": "{frame}", "width": WIDTH, "height": HEIGHT, "samples": SAMPLES}
        array = {"service": "render", "path": "/render", "body": body, "frames": frames}
        status, text = self.ask("/_tabane/arrays", "POST", array, Content_Type="application/json")
        expect(status == 202, f"the array was answered {status}: {text[:500]}")
        return json.loads(text)

    def get(self, path, **headers):
        """What stands under a path, as JSON."""
        status, text = self.ask(path, **headers)
        expect(status == 200, f"{path} was answered {status}: {text[:500]}")
        return json.loads(text)

    def jobs(self, array):
        """The jobs of an array by their frames, with their attempts."""
        listed = self.get(array["links"]["jobs"])["jobs"]
        return {frame_of(job): self.get(job["links"]["self"]) for job in listed}

    def wait(self, array):
        """Waits until all is over: each question stays open until something changes."""
        while array["done"] < array["total"]:
            array = self.get(array["links"]["self"], Prefer="wait=30")
        return array

    def results(self, array):
        """Its files by their names."""
        status, packed = self.ask(array["links"]["results"])
        expect(status == 200, f"the results were answered {status}: {packed[:500]}")
        with ZipFile(BytesIO(packed)) as results:
            return {name: results.read(name) for name in results.namelist()}

    def lose(self, node, group, array):
        """Kills a node, once a third of the frames are done and it has just begun another."""
        while True:
            array = self.get(array["links"]["self"])
            expect(array["done"] < array["total"], f"all frames were done before {node} could be killed")
            begun = [job["attempts"][-1] for job in self.jobs(array).values() if job["state"] == "starting"]
            if array["done"] * 3 >= array["total"] and node in map(node_of, begun):
                os.killpg(group, signal.SIGKILL)
                return
            time.sleep(0.1)


def frame_of(job):
    (frame,) = (int(tag.removeprefix("frame=")) for tag in job["tags"] if tag.startswith("frame="))
    return frame


def node_of(attempt):
    return attempt["node"].split("/")[0]


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def seconds(attempt):
    return (moment(attempt["ended"]) - moment(attempt["started"])).total_seconds()


def attempt_in_words(attempt):
    lost = "" if attempt["outcome"] == "succeeded" else f" ({attempt['outcome']})"
    return f"{node_of(attempt)} {seconds(attempt):.1f} s{lost}"


def expect(holds, why):
    if not holds:
        sys.exit(why)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gateway")
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--lose", nargs=2, metavar=("NODE", "PID"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    farm = Farm(args.gateway)
    lost_node = args.lose and args.lose[0]

    start = time.monotonic()
    array = farm.submit(f"1-{args.frames}")
    print(f"{array['total']} frames of {WIDTH} x {HEIGHT} sent in one request")
    if args.lose:
        farm.lose(lost_node, int(args.lose[1]), array)
        print(f"{lost_node} was killed while it rendered")
    array = farm.wait(array)
    took = time.monotonic() - start

    jobs = dict(sorted(farm.jobs(array).items()))
    for frame, job in jobs.items():
        print(f"  frame {frame:04}: {', then '.join(map(attempt_in_words, job['attempts']))}")
    for frame, job in jobs.items():
        if job["state"] != "succeeded":
            _, why = farm.ask(job["links"]["result"])
            sys.exit(f"frame {frame} ended {job['state']}: {job.get('error')}: {why.decode(errors='replace')[-500:]}")
    work = sum(seconds(job["attempts"][-1]) for job in jobs.values())
    print(f"{len(jobs)} frames in {took:.1f} s; one after the other, their renders add up to {work:.1f} s")

    files = farm.results(array)
    expect(sorted(files) == [f"{frame:04}.png" for frame in jobs], f"the zip has {', '.join(files)}")
    images = []
    for name, image in sorted(files.items()):
        (args.out / name).write_bytes(image)
        images.append(png.read(image))
        expect(images[-1][:2] == (WIDTH, HEIGHT), f"{name} is {images[-1].width} x {images[-1].height}")
    expect(len({image.pixels for image in images}) == args.frames, "two frames show the same")
    attempts = [attempt for job in jobs.values() for attempt in job["attempts"]]
    nodes = sorted(set(map(node_of, attempts)))
    expect(len(nodes) == 3, f"only {', '.join(nodes)} rendered")
    lost = [node_of(attempt) for attempt in attempts if attempt["outcome"] != "succeeded"]
    expect(lost_node in lost if args.lose else not lost, f"attempts that came to nothing: {', '.join(lost) or 'none'}")
    sheet = args.out / "contact-sheet.png"
    sheet.write_bytes(png.write(png.contact_sheet(images, columns=4)))
    print(f"contact sheet: {sheet}")


main()
