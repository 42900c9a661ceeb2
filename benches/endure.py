"""Endurance: a server killed again and again under write load, and snapshots and commits under load.

    cargo xtask bench endure [--kills N] [--snapshots N] [--seed N] [--folder DIRECTORY]

Both parts write stamped blocks and fail at the first that is lost, misplaced or torn.
"""
import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from stamps import BLOCK, FUA, Client, Gone, Ledger, Server, stamped

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(os.path.dirname(HERE), "target"))
ADIT = os.path.join(TARGET, "release", "adit")
BLOCKS = 2048
OVERLAY = ["--overlay", "top.qcow2", "base.raw"]


def base(folder):
    with open(os.path.join(folder, "base.raw"), "wb") as out:
        out.write(b"".join(stamped(block, 1) for block in range(BLOCKS)))


def digest(path):
    with open(path, "rb") as data:
        return hashlib.sha256(data.read()).hexdigest()


def qemu_check(folder, names):
    """Leaks are the price of a power cut; anything else is damage."""
    for name in names:
        done = subprocess.run(["qemu-img", "check", "-q", name], cwd=folder, capture_output=True, check=False)
        if done.returncode not in (0, 3):
            raise AssertionError(f"qemu-img check {name}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")


def overlays(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".qcow2"))


def load(path, share, shares, seed, ledger, counts):
    """Writes, zeroes and flushes its share of blocks until the connection breaks."""
    chance = random.Random(seed)
    try:
        client = Client(path)
        while True:
            block = chance.randrange(BLOCKS // shares) * shares + share
            what = chance.randrange(40)
            if what < 2:
                answered = ledger.before_flush()
                client.flush()
                ledger.flushed(answered)
                counts["flushes"] += 1
                continue
            zeros = what < 5
            flags = FUA if what == 5 else 0
            stamp = ledger.next(block, zeros)
            if zeros:
                client.zero(block * BLOCK, BLOCK, flags)
            else:
                client.write(block * BLOCK, stamped(block, stamp), flags)
            ledger.done(block, stamp, bool(flags))
            counts["writes"] += 1
    except (Gone, ConnectionError):
        pass


def meddle(server, chance, stop, counts):
    """Takes snapshots and merges them, not waiting for the end, while the server lives."""
    while not stop.is_set():
        listed = server.tell(cmd="list")
        if not listed:
            return
        depth = len(listed["exports"][0]["layers"])
        down = depth > 6 or depth > 2 and chance.randrange(2)
        answer = server.tell(cmd="commit" if down else "snapshot")
        if answer and answer["ok"]:
            counts["commits" if down else "snapshots"] += 1


def kills(folder, rounds, seed):
    """Kills a server at random moments; whatever was flushed must be there each time."""
    base(folder)
    original = digest(os.path.join(folder, "base.raw"))
    chance = random.Random(seed)
    ledger = Ledger(BLOCKS)
    counts = dict.fromkeys(("writes", "flushes", "snapshots", "commits"), 0)
    begun = time.monotonic()
    for number in range(rounds):
        server = Server(ADIT, folder, OVERLAY)
        ledger.check(Client(server.socket).read(0, BLOCKS * BLOCK), f"round {number}")
        stop = threading.Event()
        threads = [threading.Thread(target=load, args=(server.socket, share, 2, chance.random(), ledger, counts)) for share in range(2)]
        if number % 3:
            threads.append(threading.Thread(target=meddle, args=(server, random.Random(chance.random()), stop, counts)))
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.001, 0.15))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        qemu_check(folder, ["top.qcow2"])
        if number % 100 == 99:
            print(f"  {number + 1} kills, {counts}, {time.monotonic() - begun:.0f} s", flush=True)
    server = Server(ADIT, folder, OVERLAY)
    ledger.check(Client(server.socket).read(0, BLOCKS * BLOCK), "the end")
    server.stop()
    qemu_check(folder, overlays(folder))
    assert digest(os.path.join(folder, "base.raw")) == original, "the original was written"
    print(f"kills: {rounds} rounds, no flushed write lost, every overlay checks clean; {counts}")


def write_and_verify(path, share, shares, seed, stop, answer):
    """Writes its share and reads it back, and tells in the end what it wrote."""
    chance = random.Random(seed)
    client = Client(path)
    holds = {block: 1 for block in range(share, BLOCKS, shares)}
    stamp, done = 1, 0
    while not stop.is_set():
        block = chance.randrange(BLOCKS // shares) * shares + share
        what = chance.randrange(12)
        if what == 0:
            client.zero(block * BLOCK, BLOCK)
            holds[block] = 0
        elif what == 1:
            client.flush()
        elif what < 5:
            now = client.read(block * BLOCK, BLOCK)
            assert now == content(block, holds[block]), f"block {block} is not what was acknowledged"
        else:
            stamp += 1
            client.write(block * BLOCK, stamped(block, stamp))
            holds[block] = stamp
        done += 1
    answer.send((holds, done))


def content(block, stamp):
    return stamped(block, stamp) if stamp else bytes(BLOCK)


def snapshots(folder, rounds, seed):
    """Snapshots and commits while three clients write; no acknowledged write may be missing."""
    base(folder)
    original = digest(os.path.join(folder, "base.raw"))
    server = Server(ADIT, folder, OVERLAY)
    chance = random.Random(seed)
    stop = multiprocessing.Event()
    writers = []
    for share in range(3):
        ours, theirs = multiprocessing.Pipe()
        arguments = (server.socket, share, 3, chance.random(), stop, theirs)
        process = multiprocessing.Process(target=write_and_verify, args=arguments)
        process.start()
        writers.append((process, ours))
    depth, begun = 1, time.monotonic()
    counts = {"snapshot": 0, "commit": 0}
    for number in range(rounds):
        command = "snapshot" if depth == 1 or depth < 6 and chance.randrange(2) else "commit"
        told = server.tell(cmd=command, wait=True)
        assert told and told["ok"] and told.get("state", "done") == "done", told
        assert all(process.is_alive() for process, _ in writers), "a client saw an error or a lost write"
        depth += 1 if command == "snapshot" else -1
        counts[command] += 1
        if number % 1000 == 999:
            print(f"  {number + 1} live, {counts}, {time.monotonic() - begun:.0f} s", flush=True)
    stop.set()
    holds, done = {}, 0
    for process, answer in writers:
        theirs, count = answer.recv()
        process.join()
        holds.update(theirs)
        done += count
    expected = b"".join(content(block, holds[block]) for block in range(BLOCKS))
    assert Client(server.socket).read(0, BLOCKS * BLOCK) == expected, "a write is lost"
    server.stop()
    qemu_check(folder, overlays(folder))
    subprocess.run(["qemu-img", "convert", "-O", "raw", "top.qcow2", "out.raw"], cwd=folder, check=True)
    with open(os.path.join(folder, "out.raw"), "rb") as out:
        assert out.read() == expected, "qemu reads something else"
    assert digest(os.path.join(folder, "base.raw")) == original, "the original was written"
    print(f"live: {counts} under {done} requests of three clients, no write lost, qemu reads the same")


def main():
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--kills", type=int, default=1000)
    ask.add_argument("--snapshots", type=int, default=10000)
    ask.add_argument("--seed", type=int, default=20)
    ask.add_argument("--folder", help="where the disks lie while it runs")
    given = ask.parse_args()
    if not shutil.which("qemu-img"):
        sys.exit("qemu-img is needed to check the overlays")
    print(f"seed {given.seed}")
    for part, rounds in ((kills, given.kills), (snapshots, given.snapshots)):
        if not rounds:
            continue
        folder = tempfile.mkdtemp(prefix="adit-endure-", dir=given.folder)
        try:
            part(folder, rounds, given.seed)
        except BaseException:
            print(f"the files are left in {folder}", file=sys.stderr)
            raise
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
