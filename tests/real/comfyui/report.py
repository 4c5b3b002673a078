"""Says what passed, what failed and what was skipped, in the words of tests/real.sh."""

import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
passed = failed = skipped = 0


class Unavailable(Exception):
    """Something that a part needs cannot be had here; its words say what, and how to get it."""


def check(what, does, *args):
    """Tries one promise. Returns whether it held; a failure is told with the lines of the test that saw it."""
    global passed
    begun = time.monotonic()
    try:
        does(*args)
    except Unavailable as why:
        skip(f"{what}: {why}")
        return False
    except Exception as error:  # Whatever it is, the other promises are still to be tried.
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__)[1:] if Path(frame.filename).parent == HERE
        ]
        seen_by = [f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}" for frame in frames]
        fail(what, *seen_by, str(error) or repr(error))
        return False
    passed += 1
    print(f"ok: {what} ({time.monotonic() - begun:.1f} s)", flush=True)
    return True


def fail(what, *words):
    global failed
    failed += 1
    print(f"FAILED: {what}")
    for line in "\n".join(words).splitlines():
        print(f"    {line[:1000]}")
    sys.stdout.flush()


def skip(why):
    global skipped
    skipped += 1
    print(f"skipped: {why}", flush=True)


def close():
    """The last line; the exit status."""
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0
