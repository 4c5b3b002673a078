"""Sends frames to the gateway of conf/examples/render as jobs, waits, fetches them and looks at every pixel.

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
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import png

WIDTH, HEIGHT, SAMPLES = 320, 180, 4
OVER = {"succeeded", "failed", "canceled", "expired", "dead"}


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

    def submit(self, frame):
        """Sends a frame; returns its job's document."""
        body = {"frame": frame, "width": WIDTH, "height": HEIGHT, "samples": SAMPLES}
        kind = {"Content_Type": "application/json"}
        status, text = self.ask("/render", "POST", body, Prefer="respond-async", **kind)
        expect(status == 202, f"frame {frame} was answered {status}: {text[:500]}")
        return json.loads(text)

    def job(self, path, **headers):
        """How a job stands."""
        status, text = self.ask(path, **headers)
        expect(status == 200, f"{path} was answered {status}: {text[:500]}")
        return json.loads(text)

    def wait(self, path):
        """Waits for a job's end: each question stays open until something changes."""
        while (job := self.job(path, Prefer="wait=30"))["state"] not in OVER:
            pass
        return job

    def lose(self, node, group, paths):
        """Kills a node, once a third of the jobs are done and it has just begun another."""
        while True:
            jobs = [self.job(path) for path in paths]
            done = sum(job["state"] in OVER for job in jobs)
            expect(done < len(jobs), f"all frames were done before {node} could be killed")
            begun = [job for job in jobs if job["state"] == "running" and began(job["attempts"][-1], node)]
            if done * 3 >= len(jobs) and begun:
                os.killpg(group, signal.SIGKILL)
                return
            time.sleep(0.05)


def began(attempt, node):
    """Whether this is an attempt on a node that began just now."""
    age = time.time() - moment(attempt["started"]).timestamp()
    return node_of(attempt) == node and age < 0.5


def node_of(attempt):
    return attempt["node"].split("/")[0]


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def seconds(attempt):
    return (moment(attempt["ended"]) - moment(attempt["started"])).total_seconds()


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

    start = time.monotonic()
    frames = range(1, args.frames + 1)
    paths = [farm.submit(frame)["links"]["self"] for frame in frames]
    print(f"{len(paths)} frames of {WIDTH} x {HEIGHT} sent in {time.monotonic() - start:.1f} s")
    if args.lose:
        farm.lose(args.lose[0], int(args.lose[1]), paths)
        print(f"{args.lose[0]} was killed while it rendered")
    jobs = [farm.wait(path) for path in paths]
    took = time.monotonic() - start

    images = []
    for frame, job in zip(frames, jobs):
        said = [f"{node_of(a)} {seconds(a):.1f} s" + f" ({a['outcome']})" * (a["outcome"] != "succeeded") for a in job["attempts"]]
        print(f"  frame {frame:04}: {', then '.join(said)}")
        status, image = farm.ask(job["links"]["result"])
        expect(job["state"] == "succeeded" and status == 200, f"frame {frame} ended {job['state']}: {job.get('error')}")
        (args.out / f"{frame:04}.png").write_bytes(image)
        images.append(png.read(image))
    work = sum(seconds(job["attempts"][-1]) for job in jobs)
    print(f"{len(jobs)} frames in {took:.1f} s; one after the other, their renders add up to {work:.1f} s")

    for frame, image in zip(frames, images):
        expect((image.width, image.height) == (WIDTH, HEIGHT), f"frame {frame} is {image.width} x {image.height}")
    expect(len({image.pixels for image in images}) == len(images), "two frames show the same")
    nodes = {node_of(attempt) for job in jobs for attempt in job["attempts"]}
    expect(len(nodes) == 3, f"only {', '.join(sorted(nodes))} rendered")
    if args.lose:
        lost = [a for job in jobs for a in job["attempts"][:-1] if node_of(a) == args.lose[0]]
        expect(lost, f"no frame was lost with {args.lose[0]}")
    sheet = args.out / "contact-sheet.png"
    sheet.write_bytes(png.write(png.contact_sheet(images, columns=4)))
    print(f"contact sheet: {sheet}")


main()
