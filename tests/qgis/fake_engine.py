"""A scripted engine: speaks the real protocol in plain Python and misbehaves as FAKE_ENGINE tells it to.

Modes (several with commas): ok, slow, silent, crash, crash-once, garbage, half, wrong, disk-full, huge, mute, flood,
exit, deaf (does not cancel), stubborn (ignores the end of its input), bad-shapes. FAKE_MARKER names a file for what
must happen once; FAKE_RESULT is the JSON that `ask` answers with; FAKE_SECONDS is how long an `ask` takes.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

MODES = set(os.environ.get("FAKE_ENGINE", "ok").split(","))
MARKER = os.environ.get("FAKE_MARKER", "")
SECONDS = float(os.environ.get("FAKE_SECONDS", "0.05"))
LOCK = threading.Lock()
JOBS: "queue.Queue" = queue.Queue()
CANCELLED: set = set()


def say(id_, kind, **fields):
    raw(json.dumps({"v": 1, "id": id_, "type": kind, **fields}) + "\n")


def raw(text):
    with LOCK:
        sys.stdout.write(text)
        sys.stdout.flush()


def ask(id_, args):
    if "flood" in MODES:
        for _ in range(30):
            sys.stderr.write("a library complains at length\n" * 20_000)
        sys.stderr.flush()
    if "garbage" in MODES:
        raw("Downloading model: 100%\n\x00\xff{not json\n[1, 2]\n" + "[" * 100_000 + '\n{"v":1}\n')
    if "huge" in MODES:
        raw(f'{{"v":1,"id":{id_},"type":"result","result":{{"x":"' + "x" * 20_000_000 + '"}}\n')
        return
    if "bad-shapes" in MODES:
        say(id_, "progress", stage=None, done="x", total=[], eta_s={})
        say(id_, "partial", result=7)
        say("x", "result", result={})
        say(id_, "result", result=[1])
        return
    sys.stderr.write("step one\nstep two\n")
    sys.stderr.flush()
    steps = 5
    for step in range(steps):
        say(id_, "progress", stage="embedding", done=step, total=steps, eta_s=steps - step)
        if step == 2:
            fail_on_purpose(id_)
        end = time.monotonic() + SECONDS / steps
        while time.monotonic() < end:
            time.sleep(0.01)
            if id_ in CANCELLED and "deaf" not in MODES:
                say(id_, "error", code="cancelled", message="Cancelled.", remedy="", details="", retryable=True)
                return
    say(id_, "note", text="a note")
    result = json.loads(os.environ.get("FAKE_RESULT", "{}"))
    say(id_, "partial", result=result)
    say(id_, "result", result={"query": args.get("query"), "pid": os.getpid(), "args": args, **result})


def fail_on_purpose(id_):
    if "disk-full" in MODES:
        say(id_, "error", code="disk_full", message="The disk is full.", remedy="Free some space.", retryable=True)
    if "crash" in MODES or ("crash-once" in MODES and once()):
        sys.stderr.write("Fatal: the sky is falling\n")
        sys.stderr.flush()
        os.abort()
    if "half" in MODES:
        raw(f'{{"v":1,"id":{id_},"type":"resu')
        os.kill(os.getpid(), signal.SIGKILL)


def once():
    marker = Path(MARKER)
    if marker.exists():
        return False
    marker.touch()
    return True


def work():
    while True:
        id_, op, args = JOBS.get()
        done = threading.Event()
        if "silent" not in MODES:
            threading.Thread(target=beat, args=(id_, done), daemon=True).start()
        if op in ("ask", "index"):
            ask(id_, args)
        elif op == "status":
            devices = [{"name": "cpu", "title": "CPU"}, {"name": "cuda:0", "title": "NVIDIA Fake"}]
            say(id_, "result", result={"engine": "0.1.0", "devices": devices, "packages": {"torch": "2.0"}})
        else:
            say(id_, "result", result={"op": op, "args": args, "pid": os.getpid(), "environ": dict(os.environ)})
        done.set()


def beat(id_, done):
    start = time.monotonic()
    while not done.wait(2):
        say(id_, "heartbeat", seconds=time.monotonic() - start)


def main():
    if "exit" in MODES:
        sys.stderr.write("ImportError: libnothing.so is missing\n")
        sys.exit(3)
    if "mute" not in MODES:
        protocol = [2, 3] if "wrong" in MODES else [1, 1]
        say(0, "hello", protocol=protocol, engine="0.1.0", python="3.11", pid=os.getpid(), models=[], limits={})
    threading.Thread(target=work, daemon=True).start()
    for line in sys.stdin:
        message = json.loads(line)
        id_, op, args = message["id"], message["op"], message["args"]
        if op == "cancel":
            CANCELLED.add(args["target"])
            say(id_, "result", result={"cancelled": True})
        elif op == "ping":
            say(id_, "result", result={})
        elif op == "shutdown":
            say(id_, "result", result={})
            return
        else:
            JOBS.put((id_, op, args))
    if "stubborn" in MODES:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)


if __name__ == "__main__":
    main()
    os._exit(0)
