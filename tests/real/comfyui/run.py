"""Tries ComfyUI's real clients against one real node, and then against a gateway in front of several.

What one node gives is the measure: which answers a session of calls gets, what the browser complains of. Recordings,
complaints and the gateway's last log are left in target/real.
"""

import argparse
import json
import signal
import sys

import browser
import frontend
import gateway
import nodes
import report
import scripts
import session
from report import Unavailable

PARTS = ("scripts", "frontend", "session")
# The one that ComfyUI 0.3.64 asks for, and the newest.
FRONT_ENDS = ("1.27.10", "1.58.1")


class Run:
    def __init__(self, asked):
        self.asked = asked
        self.comfyui = nodes.find()

    def against_a_node(self):
        """Everything against one node: what holds for ComfyUI itself."""
        for version, parts in self.rounds():
            files = nodes.front_end(version)
            if {"scripts", "frontend"} & parts:
                with nodes.started(self.comfyui, files, 1, nodes.port_if_free(scripts.PORT)) as (node,):
                    self.try_scripts(node.server, parts)
                    self.try_front_end(node.server, parts, version, "one node", 1, node.models)
            if "session" in parts:
                with nodes.started(self.comfyui, files, 1) as (node,):
                    report.check("one node: a session is recorded", session.record, node.server, self.recorded("node"))

    def against_the_gateway(self):
        """The same, with nodes of which each has something of its own."""
        for version, parts in self.rounds():
            files = nodes.front_end(version)
            if {"scripts", "frontend"} & parts:
                with nodes.started(self.comfyui, files, self.asked.nodes) as many:
                    with gateway.started([node.url for node in many]) as server:
                        self.try_scripts(server, parts)
                        models = sorted({model for node in many for model in node.models})
                        self.try_front_end(server, parts, version, "gateway", len(many), models)
            if "session" in parts:
                with nodes.started(self.comfyui, files, 1) as (node,), gateway.started([node.url]) as server:
                    report.check("gateway: a session is the same as at a node", self.same_session, server)

    # === impl Run ===

    def rounds(self):
        """Front end → the parts that are tried with it: all with the first, with the others what a browser shows."""
        for at, version in enumerate(self.asked.front_ends):
            parts = set(self.asked.parts)
            yield version, parts if at == 0 else parts & {"frontend"}

    def try_scripts(self, server, parts):
        if "scripts" not in parts:
            return
        if server.url != scripts.SERVER.url:
            report.skip(f"the example scripts: they want port {scripts.PORT}, which is taken")
            return
        scripts.check(self.comfyui)

    def try_front_end(self, server, parts, version, what, at_once, models):
        if "frontend" not in parts:
            return
        whose = f"{what}: the front end {version}"
        try:
            with browser.chromium() as chromium:
                complaints = frontend.check(chromium, server, whose, at_once, models)
        except Unavailable as why:
            report.skip(f"{whose}: {why}")
            return
        self.complaints(version, what.split()[-1]).write_text(json.dumps(complaints, indent=1))
        if what == "gateway":
            report.check(
                f"{whose} complains of nothing that it does not complain of at one node", self.same_complaints, version
            )

    def same_complaints(self, version):
        measure = read(self.complaints(version, "node"))
        new = [words for words in read(self.complaints(version, "gateway")) if words not in measure]
        assert not new, f"{len(new)} new complaints:\n" + "\n".join(new)

    def same_session(self, server):
        session.same(read(self.recorded("node")), session.keep(server, self.recorded("gateway")))

    def complaints(self, version, what):
        return nodes.SCRATCH / f"complaints-{version}-{what}.json"

    def recorded(self, what):
        return nodes.SCRATCH / f"session-{what}.json"


def read(file):
    if not file.exists():
        raise Unavailable(f"{file.name} was not recorded; try it against a node first")
    return json.loads(file.read_text())


def arguments():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--against", choices=("node", "gateway", "both"), default="both")
    asked.add_argument("--nodes", type=int, default=3, help="behind the gateway")
    asked.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    asked.add_argument("--front-ends", nargs="+", default=FRONT_ENDS, metavar="VERSION")
    return asked.parse_args()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = arguments()
    try:
        run = Run(asked)
    except Unavailable as why:
        report.skip(f"ComfyUI's real clients: {why}")
        return report.close()
    for what, tried in (("node", run.against_a_node), ("gateway", run.against_the_gateway)):
        if asked.against in (what, "both"):
            try:
                tried()
            except Unavailable as why:
                report.skip(f"against a {what}: {why}")
            except (AssertionError, RuntimeError) as why:
                report.fail(f"against a {what}: {why}")
    return report.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
