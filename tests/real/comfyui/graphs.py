"""Workflows that the tests load, as the front end saves them and as /prompt takes them."""

from nodes import CHECKPOINT

# In the graphs of `picture` and `uploaded`.
COLOUR, SLEEP, PREVIEW, SAVE, LOAD, SCALE = 1, 2, 3, 4, 5, 6
# In that of `sampling`.
LOADER, SAMPLER = 4, 3


def picture(colour=0, seconds=2.0):
    """A plain picture of one colour (0xRRGGBB), which takes so many seconds, shown by one node and saved by another."""
    return graph(
        [
            node(COLOUR, "EmptyImage", [64, 64, 1, colour], outputs={"IMAGE": [1]}),
            node(SLEEP, "TestSleep", [seconds], inputs={"value": ("*", 1)}, outputs={"*": [2, 3]}),
            node(PREVIEW, "PreviewImage", [], inputs={"images": ("IMAGE", 2)}),
            node(SAVE, "SaveImage", ["picture"], inputs={"images": ("IMAGE", 3)}),
        ],
        [[1, COLOUR, 0, SLEEP, 0, "*"], [2, SLEEP, 0, PREVIEW, 0, "IMAGE"], [3, SLEEP, 0, SAVE, 0, "IMAGE"]],
    )


def uploaded(seconds):
    """A picture that has been uploaded, made smaller, and saved after so many seconds."""
    return graph(
        [
            node(LOAD, "LoadImage", ["example.png", "image"], outputs={"IMAGE": [1], "MASK": []}),
            node(
                SCALE,
                "ImageScale",
                ["nearest-exact", 32, 32, "disabled"],
                inputs={"image": ("IMAGE", 1)},
                outputs={"IMAGE": [2]},
            ),
            node(SLEEP, "TestSleep", [seconds], inputs={"value": ("*", 2)}, outputs={"*": [3]}),
            node(SAVE, "SaveImage", ["uploaded"], inputs={"images": ("IMAGE", 3)}),
        ],
        [[1, LOAD, 0, SCALE, 0, "IMAGE"], [2, SCALE, 0, SLEEP, 0, "*"], [3, SLEEP, 0, SAVE, 0, "IMAGE"]],
    )


def sampling(seed=1, steps=60):
    """A real sampler that shows what it has so far."""
    return graph(
        [
            node(LOADER, "CheckpointLoaderSimple", [CHECKPOINT], outputs={"MODEL": [1], "CLIP": [2, 3], "VAE": [4]}),
            node(5, "EmptyLatentImage", [256, 256, 1], outputs={"LATENT": [5]}),
            node(6, "CLIPTextEncode", ["a teapot"], inputs={"clip": ("CLIP", 2)}, outputs={"CONDITIONING": [6]}),
            node(7, "CLIPTextEncode", ["a cup"], inputs={"clip": ("CLIP", 3)}, outputs={"CONDITIONING": [7]}),
            node(
                SAMPLER,
                "KSampler",
                [seed, "fixed", steps, 4.5, "euler", "normal", 1.0],
                inputs={
                    "model": ("MODEL", 1),
                    "positive": ("CONDITIONING", 6),
                    "negative": ("CONDITIONING", 7),
                    "latent_image": ("LATENT", 5),
                },
                outputs={"LATENT": [8]},
            ),
            node(8, "VAEDecode", [], inputs={"samples": ("LATENT", 8), "vae": ("VAE", 4)}, outputs={"IMAGE": [9]}),
            node(9, "SaveImage", ["sampled"], inputs={"images": ("IMAGE", 9)}),
        ],
        [
            [1, LOADER, 0, SAMPLER, 0, "MODEL"],
            [2, LOADER, 1, 6, 0, "CLIP"],
            [3, LOADER, 1, 7, 0, "CLIP"],
            [4, LOADER, 2, 8, 1, "VAE"],
            [5, 5, 0, SAMPLER, 3, "LATENT"],
            [6, 6, 0, SAMPLER, 1, "CONDITIONING"],
            [7, 7, 0, SAMPLER, 2, "CONDITIONING"],
            [8, SAMPLER, 0, 8, 0, "LATENT"],
            [9, 8, 0, 9, 0, "IMAGE"],
        ],
    )


def graph(nodes, links):
    for place, each in enumerate(nodes):
        each.update(pos=[50 + 330 * (place % 4), 120 + 330 * (place // 4)], order=place)
    return {
        "last_node_id": max(each["id"] for each in nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def node(number, kind, widgets, inputs=None, outputs=None):
    """One node of a saved graph: its inputs are name → (type, link), its outputs name → links."""
    return {
        "id": number,
        "type": kind,
        "size": [300, 280],
        "flags": {},
        "mode": 0,
        "inputs": [{"name": name, "type": of, "link": link} for name, (of, link) in (inputs or {}).items()],
        "outputs": [{"name": name, "type": name, "links": links} for name, links in (outputs or {}).items()],
        "properties": {"Node name for S&R": kind},
        "widgets_values": widgets,
    }
