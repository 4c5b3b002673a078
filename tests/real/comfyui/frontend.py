"""The real front end in Chromium, against whatever speaks ComfyUI's API: a node, or a gateway in front of several.

usage: frontend.py URL [JOBS AT ONCE, 1] [MODEL…]
"""

import io
import json
import random
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from PIL import Image

import browser
import graphs
import report
from server import Server, wait

JOBS = 6
# So that no greeting covers the buttons.
SETTINGS = {"Comfy.TutorialCompleted": True}


class FrontEnd:
    """What one server is asked through the front end. Each method is a promise; they build on one tab."""

    def __init__(self, context, server, at_once, models):
        self.context, self.server, self.at_once, self.models = context, server, at_once, models
        # So many seconds that all jobs of a promise are queued before the first ends, also on a busy machine.
        self.long_enough = max(4.0, 2.5 * at_once)
        self.tab = None
        self.asked_for = []  # tabs

    def check(self, whose):
        """Tries all promises. Returns what the browser complained of meanwhile."""
        promises = [
            (f"loads, and offers the {len(self.models)} models of all nodes", self.loads),
            ("uploads an image, and a job of each node finds it", self.uploads),
            (
                f"queues {JOBS} jobs, {self.at_once} at once; its badge counts down to 0; each has its own image",
                self.queues,
            ),
            ("shows what a sampler has so far at the sampler", self.shows_previews),
            ("has a waiting job taken out, and it never runs", self.cancels_waiting),
            ("has a running job interrupted, and no other", self.interrupts),
            ("is reloaded within a job and sees its end", self.reloads),
            ("tells two tabs each of its own jobs, and both how many there are", self.second_tab),
        ]
        for words, promise in promises:
            if not report.check(f"{whose} {words}", promise):
                try:
                    self.start_over()
                except Exception as why:  # Whatever it is, there is nothing left to try.
                    report.skip(f"{whose}: all that is left, for it cannot be loaded ({str(why).splitlines()[0]})")
                    break
        return sorted({words for tab in self.asked_for for words in tab.complaints})

    def new_tab(self):
        tab = browser.Tab(self.context, self.server)
        self.asked_for.append(tab)
        return tab

    # === promises ===

    def loads(self):
        for name, value in SETTINGS.items():
            self.server.ask("POST", "/api/settings", {name: value})
        tab = self.new_tab()
        self.tab = tab
        tab.load(graphs.sampling())
        offered = tab.run("node => app.graph.getNodeById(node).widgets[0].options.values", graphs.LOADER)
        assert set(self.models) <= set(offered), f"offered are only {offered}, there are {self.models}"
        assert len(offered) == len(set(offered)), f"some are offered twice: {offered}"

    def uploads(self):
        tab = self.tab
        colours = [random.randrange(1 << 24) for _ in range(2)]
        tab.load(graphs.uploaded(seconds=2.0))
        names, jobs = [], {}
        for colour in colours:
            names.append(self.upload(colour))
            for width in range(self.at_once):
                # No node has done just this before.
                tab.set(graphs.SCALE, "width", 32 + width)
                jobs[tab.queue()] = colour
        assert len(set(names)) == len(names), f"two images were kept under one name: {names}"
        for job, colour in jobs.items():
            self.until_ended(job)
            (place,) = self.history(job)["outputs"][str(graphs.SAVE)]["images"]
            assert_colour(self.server.image(place), colour)

    def upload(self, colour):
        """Uploads a picture at the node that loads one, always under the same name. Returns under which it is kept."""
        tab = self.tab
        upload = f"app.graph.getNodeById({graphs.LOAD}).widgets.find(one => one.name == 'upload')"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "upload.png"
            Image.new("RGB", (48, 48), rgb(colour)).save(file)
            with tab.page.expect_file_chooser() as chooser:
                tab.run(f"setTimeout({upload}.callback, 0)")
            with tab.page.expect_response(lambda answer: "/upload/image" in answer.url) as answered:
                chooser.value.set_files(file)
            name = answered.value.json()["name"]
        tab.until("([node, name]) => app.graph.getNodeById(node).widgets[0].value == name", [graphs.LOAD, name])
        wait(
            "its node shows it",
            lambda: any(quote(name) in url.replace("+", "%20") for url in tab.images_shown(graphs.LOAD)),
            10,
            tab.pause,
        )
        return name

    def queues(self):
        tab = self.tab
        tab.load(graphs.picture(seconds=self.long_enough))
        since = len(tab.frames)
        colours = [random.randrange(1 << 24) for _ in range(JOBS)]
        jobs = []
        for colour in colours:
            tab.set(graphs.COLOUR, "color", colour)
            jobs.append(tab.queue())
        sizes, badges, running = [], [], 0

        def watch():
            nonlocal running
            sizes.append(tab.queue_size())
            badges.append(tab.badge())
            running = max(running, len(self.server.json("/queue")["queue_running"]))
            return sizes[-1] == 0 and all(tab.events("execution_success", job) for job in jobs)

        wait("all jobs have ended", watch, 90, tab.pause)
        assert max(sizes) == JOBS, f"the front end has shown at most {max(sizes)} jobs: {sizes}"
        from_most = sizes[sizes.index(JOBS) :]
        assert from_most == sorted(from_most, reverse=True), f"the size of the queue went up: {sizes}"
        assert running == self.at_once, f"{running} ran at once, not {self.at_once}"
        if self.lists_its_queue():
            wait("the badge is 0", lambda: tab.badge() == 0, 10, tab.pause)
            assert max(badges) == JOBS, f"the badge said {badges}"

        for colour, job in zip(colours, jobs):
            outputs = self.history(job)["outputs"]
            for node, kind in ((graphs.PREVIEW, "temp"), (graphs.SAVE, "output")):
                (place,) = outputs[str(node)]["images"]
                assert place["type"] == kind, f"{place} is not of node {node}"
                assert_colour(self.server.image(place), colour)
                (told,) = [event for event in tab.events("executed", job, since) if event["node"] == str(node)]
                assert told["output"]["images"] == [place], f"the socket said {told}, the history {place}"
        self.history_is_in_order(jobs)

        # The graph shows at each node what it made last. Of jobs that run at the same time, that may be another one's at another.
        made = tab.events("executed", since=since)
        last = {str(node): [event for event in made if event["node"] == str(node)][-1] for node in (graphs.PREVIEW, graphs.SAVE)}
        shown = wait("the graph has outputs", lambda: {n: i for n, i in tab.outputs().items() if i}, 10, tab.pause)
        assert shown == {node: event["output"]["images"] for node, event in last.items()}, (
            f"shown are {shown}, not those of {last}"
        )
        for node, event in last.items():
            (url,) = wait(f"node {node} shows its image", lambda node=node: tab.images_shown(int(node)), 10, tab.pause)
            opened = tab.page.request.get(url)
            assert opened.status == 200, f"{url}: {opened.status}"
            assert_colour(opened.body(), colours[jobs.index(event["prompt_id"])])

    def shows_previews(self):
        tab = self.tab
        tab.load(graphs.sampling())
        since = len(tab.frames)
        # Who had a preview at any time.
        tab.run(
            """() => {
                window.withPreview = new Set()
                window.watching = setInterval(() => Object.entries(app.nodePreviewImages ?? {})
                    .forEach(([node, images]) => images?.length && window.withPreview.add(node)), 10)
            }"""
        )
        jobs = []
        for _ in range(self.at_once):
            tab.set(graphs.SAMPLER, "seed", random.randrange(1 << 32))
            jobs.append(tab.queue())
        for job in jobs:
            self.until_ended(job)
        shown = tab.run("() => (clearInterval(window.watching), [...window.withPreview])")
        owners = []
        for preview in [frame for frame in tab.frames[since:] if isinstance(frame, bytes)]:
            kind = int.from_bytes(preview[:4], "big")
            assert kind == 4, f"the front end asked for previews that say whose they are, and got one of kind {kind}"
            length = int.from_bytes(preview[4:8], "big")
            told = json.loads(preview[8 : 8 + length])
            assert told["node_id"] == str(graphs.SAMPLER), f"a preview of {told}"
            Image.open(io.BytesIO(preview[8 + length :])).verify()
            owners.append(told["prompt_id"])
        counts = {job: owners.count(job) for job in jobs}
        assert sum(counts.values()) == len(owners) and min(counts.values()) >= 5, (
            f"{len(owners)} previews, by job: {counts}"
        )
        assert shown == [str(graphs.SAMPLER)], f"previews were shown at the nodes {shown}"

    def cancels_waiting(self):
        tab = self.tab
        jobs = self.one_waits()
        waiting = self.waiting_of(jobs)[-1]
        tab.run("id => app.api.deleteItem('queue', id)", waiting)
        wait("it has left the queue", lambda: waiting not in self.waiting_of(jobs), 10, tab.pause)
        for job in jobs:
            if job != waiting:
                self.until_ended(job)
        wait("the front end shows an empty queue", lambda: tab.queue_size() == 0, 10, tab.pause)
        assert not tab.events("execution_start", waiting), "it was begun all the same"
        entry = self.server.json(f"/history/{waiting}")
        assert not entry.get(waiting, {}).get("outputs"), f"it has outputs: {entry}"

    def interrupts(self):
        tab = self.tab
        jobs = self.one_waits()
        tab.page.get_by_label("Cancel current run").first.click()
        for job in jobs:
            self.until_ended(job)
        wait("the front end shows an empty queue", lambda: tab.queue_size() == 0, 10, tab.pause)
        hit = [job for job in jobs if tab.events("execution_interrupted", job)]
        assert len(hit) == 1, f"{len(hit)} were interrupted"
        for job in jobs:
            status = self.history(job)["status"]
            expected = ("error", False) if job in hit else ("success", True)
            assert (status["status_str"], status["completed"]) == expected, f"{job}, interrupted are {hit}: {status}"

    def reloads(self):
        tab = self.tab
        colour = random.randrange(1 << 24)
        # Longer than the page takes.
        tab.load(graphs.picture(colour, seconds=6.0 + 3 * tab.took))
        client = tab.run("app.api.clientId")
        job = tab.queue()
        wait("the job is at work", lambda: tab.events("executing", job), 10, tab.pause)
        before = len(tab.frames)
        tab.reload()
        assert tab.run("app.api.clientId") == client, "the reloaded page has another client id"
        assert not tab.events("execution_success", job), "the job ended before the page was there again"
        wait("the front end shows the job", lambda: tab.queue_size() == 1, 5, tab.pause)
        wait("the reloaded page hears of the end", lambda: tab.events("execution_success", job, before), 90, tab.pause)
        wait("the front end shows an empty queue", lambda: tab.queue_size() == 0, 10, tab.pause)
        (told,) = [event for event in tab.events("executed", job, before) if event["node"] == str(graphs.SAVE)]
        wait(
            "the graph shows it", lambda: tab.outputs().get(str(graphs.SAVE)) == told["output"]["images"], 10, tab.pause
        )
        assert_colour(self.server.image(told["output"]["images"][0]), colour)

    def second_tab(self):
        first, second = self.tab, self.new_tab()
        mine = [random.randrange(1 << 24) for _ in range(2)]
        jobs = []
        starts = [len(tab.frames) for tab in (first, second)]
        for tab, colour in zip((first, second), mine):
            tab.load(graphs.picture(colour, seconds=4.0))
            jobs.append(tab.queue())
        assert first.run("app.api.clientId") != second.run("app.api.clientId")
        wait("both show two jobs", lambda: first.queue_size() == second.queue_size() == 2, 5, first.pause)
        self.until_ended(jobs[0], first)
        self.until_ended(jobs[1], second)
        for tab in (first, second):
            wait("both show an empty queue", lambda: tab.queue_size() == 0, 10, tab.pause)
        for tab, start, job, other in zip((first, second), starts, jobs, reversed(jobs)):
            told = {event.get("prompt_id") for event in tab.events("executed", since=start)}
            assert told == {job}, f"a tab was told of the outputs of {told}, its job is {job}"
            heard = [frame for frame in tab.frames[start:] if isinstance(frame, dict) and other in json.dumps(frame)]
            assert not heard, f"a tab heard of a job that is not its own: {heard[0]}"
            outputs = self.history(job)["outputs"][str(graphs.SAVE)]["images"]
            wait("the graph shows its own", lambda: tab.outputs().get(str(graphs.SAVE)) == outputs, 10, tab.pause)
            assert_colour(self.server.image(outputs[0]), mine[jobs.index(job)])
        second.page.close()

    # === impl FrontEnd ===

    def start_over(self):
        """So that a promise which failed does not have the next ones fail: nothing queued, a fresh page."""
        self.server.ask("POST", "/queue", {"clear": True})
        for item in self.server.json("/queue")["queue_running"]:
            self.server.ask("POST", "/interrupt", {"prompt_id": item[1]})
        if self.tab:
            self.tab.page.close()
        self.tab = self.new_tab()

    def one_waits(self):
        """Queues so many jobs that all nodes work and one job waits."""
        self.tab.load(graphs.picture(seconds=self.long_enough))
        jobs = []
        for _ in range(self.at_once + 1):
            self.tab.set(graphs.COLOUR, "color", random.randrange(1 << 24))
            jobs.append(self.tab.queue())
        wait(
            "one waits and the others run",
            lambda: len(self.waiting_of(jobs)) == 1 and self.running(jobs),
            10,
            self.tab.pause,
        )
        # The front end knows of it, too.
        running = [job for job in jobs if job not in self.waiting_of(jobs)]
        wait(
            "the front end was told",
            lambda: all(self.tab.events("executing", job) for job in running),
            10,
            self.tab.pause,
        )
        return jobs

    def running(self, jobs):
        return [item[1] for item in self.server.json("/queue")["queue_running"] if item[1] in jobs]

    def waiting_of(self, jobs):
        """In the order in which they would run."""
        pending = sorted(self.server.json("/queue")["queue_pending"], key=lambda item: item[0])
        return [item[1] for item in pending if item[1] in jobs]

    def until_ended(self, job, tab=None):
        """Waits for the mark behind which the history has the job."""
        tab = tab or self.tab
        ended = lambda: any(event["node"] is None for event in tab.events("executing", job))  # noqa: E731
        wait(f"the job {job} has ended", ended, 60, tab.pause)

    def history(self, job):
        entry = self.server.json(f"/history/{job}")
        assert job in entry, f"the history does not know {job}"
        return entry[job]

    def history_is_in_order(self, jobs):
        history = self.server.json("/history")
        ends = [
            dict(history[job]["status"]["messages"])["execution_success"]["timestamp"] for job in history if job in jobs
        ]
        assert len(ends) == len(jobs), f"{len(ends)} of {len(jobs)} jobs are in the history"
        # Those of different nodes that end together may be noted either way.
        for place, end in enumerate(ends):
            assert end > max(ends[: place + 1]) - 250, f"the history is not in the order in which they ended: {ends}"
        numbers = [history[job]["prompt"][0] for job in jobs]
        assert numbers == sorted(set(numbers)), (
            f"their numbers do not say the order in which they were queued: {numbers}"
        )
        listed = self.tab.run("app.api.getHistory(64)")
        if isinstance(listed, dict):
            known = [item["prompt"][1] for item in listed["History"]]
        elif self.lists_its_queue():
            known = [item["id"] for item in listed]
        else:
            return
        assert set(jobs) <= set(known), f"the front end knows only {known} of its history"

    def lists_its_queue(self):
        """Newer front ends ask for /api/jobs, which older servers do not have: their lists stay empty there."""
        return not self.tab.asks_for_jobs or self.server.ask("GET", "/api/jobs?limit=1").status == 200


def rgb(colour):
    return (colour >> 16, colour >> 8 & 255, colour & 255)


def assert_colour(data, colour):
    got = Image.open(io.BytesIO(data)).convert("RGB").getpixel((5, 5))
    far = max(abs(one - other) for one, other in zip(got, rgb(colour)))
    assert far <= 1, f"the image has the colour {got}, not {rgb(colour)}: it is another's"


def check(chromium, server, whose, at_once, models):
    """All promises of a front end that `server` serves, in a fresh profile. Returns its complaints."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    try:
        return FrontEnd(context, server, at_once, models).check(whose)
    finally:
        context.close()


def main():
    url, *more = sys.argv[1:]
    with browser.chromium() as chromium:
        complaints = check(chromium, Server(url), "the front end", int(more[0]) if more else 1, more[1:])
    print(*complaints, sep="\n")
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
