"""ComfyUI's three example scripts, 20 copies at once, unedited: each gets its own images.

They speak to 127.0.0.1:8188, whatever is there: a node, or a gateway.
usage: scripts.py (with COMFYUI_DIR)
"""

import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageChops

import nodes
import report
from server import Server, wait

PORT = 8188
COPIES = 20
SECONDS = 400
SERVER = Server(f"http://127.0.0.1:{PORT}")
SEEDS = range(1, COPIES + 1)
UNHEARD = range(1001, 1001 + COPIES)  # of the script that does not wait for its images


def check(comfyui):
    """All promises about the scripts of this ComfyUI."""
    scripts = comfyui.folder / "script_examples"
    queue, images, socket = (scripts / f"{name}.py" for name in NAMES)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        report.check(
            f"{COPIES} copies of each of ComfyUI's example scripts, all at once and as they are, end well",
            lambda: all_end_well([[str(script)] for script in (queue, images, socket) for _ in SEEDS]),
        )
        report.check(
            f"{COPIES} copies of {images.name} get the images of their own prompts from /history and /view",
            lambda: own_images(images, scratch),
        )
        report.check(
            f"{COPIES} copies of {socket.name} get the images of their own prompts from the socket",
            lambda: same_from_the_socket(socket, scratch),
        )
        report.check(
            f"{COPIES} copies of {queue.name} leave {COPIES} prompts in the history, each with its own image",
            lambda: each_in_the_history(queue, scratch),
        )


NAMES = ("basic_api_example", "websockets_api_example", "websockets_api_example_ws_images")


def all_end_well(commands):
    copies = [
        subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    try:
        for copy in copies:
            said, _ = copy.communicate(timeout=SECONDS)
            assert copy.returncode == 0, f"a copy of {copy.args[1]} ended with {copy.returncode}:\n{said[-1500:]}"
    finally:
        nodes.end([copy for copy in copies if copy.poll() is None])


def seeded(script, scratch, seeds):
    """Runs a copy for each seed, all at once. The images that each got, by seed."""
    shim = str(Path(__file__).with_name("seeded.py"))
    places = {seed: scratch / f"{script.stem}-{seed}" for seed in seeds}
    all_end_well([[shim, str(script), str(seed), str(place)] for seed, place in places.items()])
    return {
        seed: [file.read_bytes() for file in sorted(scratch.glob(f"{place.name}.*"))] for seed, place in places.items()
    }


def own_images(script, scratch):
    got = seeded(script, scratch, SEEDS)
    for seed, images in got.items():
        assert len(images) == 1, f"the copy with seed {seed} got {len(images)} images; {heard(scratch, script, seed)}"
        assert seed_of(images[0]) == seed, f"the copy with seed {seed} got the image of seed {seed_of(images[0])}"
    assert len({pixels(images[0]).tobytes() for images in got.values()}) == COPIES, "two seeds gave one image"


def same_from_the_socket(script, scratch):
    """What comes through the socket says no prompt; its pixels are those that /view gave for the same seed."""
    expected = {seed: pixels((scratch / f"{NAMES[1]}-{seed}.0").read_bytes()) for seed in SEEDS}
    for seed, images in seeded(script, scratch, SEEDS).items():
        assert len(images) == 1, f"the copy with seed {seed} got {len(images)} images; {heard(scratch, script, seed)}"
        got = pixels(images[0])
        nearest = min(SEEDS, key=lambda other: difference(got, expected[other]))
        assert nearest == seed, f"the copy with seed {seed} got the image of seed {nearest}"
        assert difference(got, expected[seed]) < 1, f"the image of seed {seed} is not what /view gave for it"


def heard(scratch, script, seed):
    """The last that a copy heard on its socket, without what is said on the way."""
    lines = (scratch / f"{script.stem}-{seed}-heard").read_text().splitlines()
    told = [line[:300] for line in lines if '"progress' not in line]
    return "its socket said, in the end:\n" + "\n".join(told[-14:])


def each_in_the_history(script, scratch):
    seeded(script, scratch, UNHEARD)

    def ended():
        by_seed = {job["prompt"][2]["3"]["inputs"]["seed"]: job for job in sampled(SERVER.json("/history"))}
        return by_seed if all(seed in by_seed for seed in UNHEARD) else None

    by_seed = wait("all prompts are in the history", ended, SECONDS, lambda _: time.sleep(0.5))
    for seed in UNHEARD:
        (place,) = by_seed[seed]["outputs"]["9"]["images"]
        assert seed_of(SERVER.image(place)) == seed, f"{place}, which the prompt with seed {seed} names, is another's"


def sampled(history):
    return [job for job in history.values() if "seed" in job["prompt"][2].get("3", {}).get("inputs", {})]


def seed_of(png):
    """ComfyUI writes the prompt into each image that it saves."""
    return json.loads(Image.open(io.BytesIO(png)).text["prompt"])["3"]["inputs"]["seed"]


def pixels(png):
    return Image.open(io.BytesIO(png)).convert("RGB")


def difference(one, other):
    """The mean of how far the pixels are apart, 0 to 255."""
    histogram = ImageChops.difference(one, other).convert("L").histogram()
    return sum(value * count for value, count in enumerate(histogram)) / sum(histogram)


if __name__ == "__main__":
    check(nodes.find())
    sys.exit(report.close())
