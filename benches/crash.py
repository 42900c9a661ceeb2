#!/usr/bin/env python3
"""Power cuts: what adit makes of a journal in memory, beside what the kernel recovers.

usage: crash.py [ext4|xfs|NAME…] [--points N] [--seconds S] [--seed N] [--keep DIR]

A workload runs on a kernel mount whose disk remembers every write and flush (recorder.py). Then
the disk is put together as a power cut could have left it, at N points: all writes up to a point,
or all up to the last flush and some of those after it, torn at sectors. The kernel mounts one copy and so
recovers it; adit reads the other. Trees, metadata, attributes and contents must be equal, and the
copy adit read must be unchanged. Exit code 1 on any difference. Needs root.
"""
import ctypes
import fcntl
import multiprocessing
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import recorder
import trees
from trees import run

# name: file system, size, mkfs, mount options of the workload, and of the judge
CASES = {
    "ext4": ("ext4", "96M", "mkfs.ext4 -q -F", "commit=1", ""),
    "ext4-1k": ("ext4", "96M", "mkfs.ext4 -q -F -b 1024", "commit=1", ""),
    "ext4-data-journal": ("ext4", "128M", "mkfs.ext4 -q -F -J size=16", "commit=1,data=journal", ""),
    "ext4-fast-commit": ("ext4", "96M", "mkfs.ext4 -q -F -O fast_commit", "commit=1", ""),
    "ext4-csum-v1": ("ext4", "96M", "mkfs.ext4 -q -F -O ^metadata_csum", "commit=1,journal_checksum", ""),
    "ext4-no-csum": ("ext4", "96M", "mkfs.ext4 -q -F -O ^metadata_csum,^64bit", "commit=1", ""),
    # No inline_data: with it jbd2 of Linux 6.18 can wait for itself for ever under such a load.
    "ext4-orphan-file": ("ext4", "96M", "mkfs.ext4 -q -F -O orphan_file,ea_inode -I 512", "commit=1", ""),
    "ext4-async": ("ext4", "96M", "mkfs.ext4 -q -F", "commit=1,data=writeback,journal_async_commit", ""),
    "ext3": ("ext3", "96M", "mkfs.ext3 -q -F -b 1024", "commit=1", ""),
    "xfs": ("xfs", "320M", "mkfs.xfs -q -f", "noatime", "nouuid"),
    "xfs-log-small": ("xfs", "320M", "env TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1 mkfs.xfs -q -f -l size=16m -m rmapbt=1", "noatime", "nouuid"),
    "xfs-log-unit": ("xfs", "320M", "env TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1 mkfs.xfs -q -f -l su=64k,size=16m", "noatime,logbsize=256k", "nouuid"),
    "xfs-1k": ("xfs", "320M", "mkfs.xfs -q -f -b size=1024 -n size=8192 -l version=2", "noatime,logbsize=32k", "nouuid"),
    "xfs-sector-4k": ("xfs", "320M", "mkfs.xfs -q -f -s size=4096", "noatime", "nouuid"),
    "xfs-inode-2k": ("xfs", "320M", "mkfs.xfs -q -f -i size=2048 -m finobt=0,reflink=0 -i sparse=0", "noatime", "nouuid"),
}


def option(name, usual, kind=int):
    return kind(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else usual


def workload(root, seed, seconds):
    """What a busy machine does to a file system, for a while."""
    r = random.Random(seed)
    libc = ctypes.CDLL(None)
    base = f"{root}/w{seed}"
    os.makedirs(base, exist_ok=True)
    folders, files, held, count = [base], [], [], 0
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in [
        (1, 7, 0xffffffff), (2, 5, 1234), (4, 5, 0xffffffff), (16, 7, 0xffffffff), (32, 0, 0xffffffff)])

    def name():
        nonlocal count
        count += 1
        return r.choice(["f", "file-", "x" * r.randint(1, 200), "a-longer-name-than-most-"]) + str(count)

    def any_file():
        return r.choice(files)

    def create(d):
        path = f"{d}/{name()}"
        with open(path, "wb") as file:
            file.write(r.randbytes(r.choice([0, 10, 130, 500, 3000, 9000, 40000])))
            if r.random() < 0.15:
                file.flush()
                os.fsync(file.fileno())
        files.append(path)

    def directory(d):
        path = f"{d}/{name()}"
        os.mkdir(path)
        folders.append(path)
        if r.random() < 0.4:
            os.mkdir(f"{path}/e")

    def link(d):
        path = f"{d}/{name()}"
        os.link(any_file(), path)
        files.append(path)

    def symlink(d):
        os.symlink("t" * r.choice([5, 59, 60, 100, 900]), f"{d}/{name()}")

    def node(d):
        r.choice([lambda p: os.mkfifo(p), lambda p: os.mknod(p, 0o20600, os.makedev(1, 3))])(f"{d}/{name()}")

    def rename(d):
        at, path = r.randrange(len(files)), f"{d}/{name()}"
        os.rename(files[at], path)
        files[at] = path

    def replace(_):
        a = any_file()
        b = any_file()
        if not os.path.samefile(a, b):
            os.rename(a, b)
            files.remove(a)

    def unlink(_):
        os.unlink(files.pop(r.randrange(len(files))))

    def rmdir(_):
        if len(folders) > 3:
            at = r.randrange(1, len(folders))
            os.rmdir(folders[at])
            folders.pop(at)

    def setxattr(_):
        key = r.choice(["user.", "trusted.", "security."]) + f"a{r.randint(0, 9)}"
        os.setxattr(any_file(), key, r.randbytes(r.choice([3, 60, 400, 1500])))

    def removexattr(_):
        path = any_file()
        names = os.listxattr(path)
        if names:
            os.removexattr(path, r.choice(names))

    def setacl(_):
        os.setxattr(any_file(), "system.posix_acl_access", acl)

    def write(_):
        descriptor = os.open(any_file(), os.O_RDWR)
        for _ in range(r.randint(1, 20)):
            os.pwrite(descriptor, r.randbytes(r.choice([100, 5000])), r.randrange(0, 1 << 22) // 4096 * 4096)
        if r.random() < 0.3:
            os.fsync(descriptor)
        os.close(descriptor)

    def append(_):
        with open(any_file(), "ab") as file:
            file.write(r.randbytes(r.choice([10, 4000, 20000])))
            file.flush()
            os.fsync(file.fileno())

    def allocate(_):
        descriptor = os.open(any_file(), os.O_RDWR)
        libc.fallocate(descriptor, r.choice([0, 1, 3, 16]), ctypes.c_long(r.randrange(0, 1 << 21) // 4096 * 4096),
                       ctypes.c_long(r.randint(1, 100) * 4096))
        os.close(descriptor)

    def truncate(_):
        os.truncate(any_file(), r.choice([0, 100, 5000, 1 << 18]))

    def clone(d):
        path = f"{d}/{name()}"
        with open(any_file(), "rb") as a, open(path, "w+b") as b:
            files.append(path)
            fcntl.ioctl(b, 0x40049409, a.fileno())
            if r.random() < 0.5:
                b.seek(4096)
                b.write(b"c" * 6000)

    def hold(_):
        path = files.pop()
        held.append(os.open(path, os.O_RDWR))
        os.unlink(path)
        os.write(held[-1], b"orphan" * 1000)
        if len(held) > 20:
            os.close(held.pop(0))

    def burst(d):
        for _ in range(r.randint(20, 200)):
            path = f"{d}/{name()}"
            open(path, "wb").close()
            files.append(path)

    def attributes(_):
        path = any_file()
        os.chmod(path, r.randrange(0o7777))
        os.chown(path, r.randrange(1 << 17), r.randrange(1 << 17))
        os.utime(path, (r.randrange(1 << 32), r.randrange(1 << 32)))

    def sync(_):
        # This file system alone: a host that is busy elsewhere is none of its business.
        descriptor = os.open(base, os.O_RDONLY)
        libc.syncfs(descriptor)
        os.close(descriptor)

    def fsync(_):
        descriptor = os.open(r.choice(files + folders), os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    steps = [(create, 28), (directory, 6), (link, 5), (symlink, 4), (node, 1), (rename, 8), (replace, 2), (unlink, 12),
             (rmdir, 2), (setxattr, 7), (removexattr, 3), (setacl, 2), (write, 6), (append, 4), (allocate, 4),
             (truncate, 3), (clone, 3), (hold, 1), (burst, 1), (attributes, 3), (sync, 0.5), (fsync, 4)]
    end = time.time() + seconds
    while time.time() < end:
        step = r.choices([s for s, _ in steps], [w for _, w in steps])[0]
        try:
            step(r.choice(folders))
        except (IndexError, ValueError):       # no file yet
            create(base)
        except OSError as error:
            if error.errno == 28:
                for _ in range(min(150, len(files))):
                    try:
                        os.unlink(files.pop())
                    except OSError:
                        pass
        if len(files) > 500:
            for _ in range(200):
                try:
                    os.unlink(files.pop(r.randrange(len(files))))
                except OSError:
                    pass
        time.sleep(0.001)


def record(case, folder, seed, seconds):
    """Runs a workload on a recorded disk: the image before, and the log."""
    kind, size, mkfs, options, _ = CASES[case]
    before, live, log = f"{folder}/before", f"{folder}/live", f"{folder}/log"
    run("truncate", "-s", size, before)
    run(*mkfs.split(), before)
    shutil.copyfile(before, live)
    at, disk = f"{folder}/mnt", f"{folder}/fuse"
    os.makedirs(at)
    os.makedirs(disk)
    ready = multiprocessing.Event()

    def serve():
        serving = recorder.Recorder(live, log, disk)
        ready.set()
        serving.serve()

    server = multiprocessing.Process(target=serve, daemon=True)
    server.start()
    if not ready.wait(20):
        sys.exit("the recorder did not start")
    loop = run("losetup", "--show", "-f", f"{disk}/disk").stdout.decode().strip()
    try:
        run("mount", "-t", kind, "-o", options, loop, at)
        busy = [multiprocessing.Process(target=workload, args=(at, seed * 10 + n, seconds)) for n in range(3)]
        for process in busy:
            process.start()
        for process in busy:
            process.join()
        run("umount", at)
    finally:
        run("umount", at, check=False)
        run("losetup", "-d", loop)
        time.sleep(0.3)
        run("umount", disk, check=False)
        server.join(20)
    return before, log


class Replay:
    """The disk at rising points of the log."""

    def __init__(self, before, log, folder):
        self.log = open(log, "rb")
        self.events = recorder.events(log)
        self.state = f"{folder}/state"
        shutil.copyfile(before, self.state)
        self.disk = os.open(self.state, os.O_RDWR)
        self.done = 0                            # events that are in `state`: all before a flush
        self.flushed = [n + 1 for n, event in enumerate(self.events) if event[0] == recorder.FLUSH]

    def data(self, event):
        self.log.seek(event[3])
        return self.log.read(event[2])

    def apply(self, disk, event):
        what, offset, length, _ = event
        if what == recorder.WRITE:
            os.pwrite(disk, self.data(event), offset)
        elif what == recorder.ZERO:
            recorder.zero(disk, offset, length)

    def cut(self, point, path, chance):
        """The disk as it may be when the power goes before event `point`. With `chance` (a
        Random), what no flush made durable is there in part."""
        durable = max((flush for flush in self.flushed if flush <= point), default=0)
        for event in self.events[self.done:durable]:
            self.apply(self.disk, event)
        self.done = max(self.done, durable)
        run("cp", "--sparse=always", self.state, path)
        disk = os.open(path, os.O_RDWR)
        for event in self.events[durable:point]:
            if chance is None:
                self.apply(disk, event)
            elif chance.random() < 0.6:
                what, offset, length, _ = event
                if what == recorder.WRITE and chance.random() < 0.2:
                    kept = chance.randrange(0, length // 512 + 1) * 512
                    os.pwrite(disk, self.data(event)[:kept], offset)
                else:
                    self.apply(disk, event)
        os.close(disk)


def judge(case, image, copy):
    """What differs between the kernel's recovery of `copy` and what adit sees in `image`."""
    kind, *_, options = CASES[case]
    before, started = trees.file_hash(image), time.time_ns() - 10**7
    try:
        with trees.mounted(copy, kind, options) as at:
            want = trees.kernel(at)
    except RuntimeError:
        return unjudged(image, before)
    try:
        got, notes, failed = trees.adit(image)
    except (trees.AditFailed, subprocess.TimeoutExpired) as error:
        return "failed", [str(error)], []
    if trees.file_hash(image) != before:
        return "changed", ["the source is not what it was"], notes
    replay_marks(want, got, copy, kind, started)
    different = trees.differences(want, got)
    if different and failed:
        different.append(f"adit said: {failed[:300]}")
    return ("different" if different else "same"), different, notes


def unjudged(image, before):
    """The kernel could not recover it, and so cannot judge: adit must end well all the same."""
    try:
        _, notes, _ = trees.adit(image)
    except trees.AditFailed as error:
        ended = any(f"exit code {code}:" in str(error) for code in (1, 2, 3, 4))
        return "unjudged" if ended else "failed", [str(error)], []
    except subprocess.TimeoutExpired as error:
        return "failed", [str(error)], []
    return "unjudged" if trees.file_hash(image) == before else "changed", [], notes


def replay_marks(want, got, copy, kind, started):
    """What recovery stamps with its own moment is not compared: Linux replays fast commits and
    cuts orphans as if the work were done now. After a fast commit it also gives a new directory a
    count of one link, until e2fsck mends that: such links may be as e2fsck leaves them."""
    for name, fact in want.items():
        for key in ("modified", "changed"):
            if name in got and fact[key] >= started:
                fact[key] = got[name][key]
    off = any(name in got and fact["links"] != got[name]["links"] for name, fact in want.items())
    if off and kind == "ext4":
        run("e2fsck", "-fy", copy, check=False)
        with trees.mounted(copy, kind, "ro") as at:
            mended = trees.kernel(at)
        for name, fact in want.items():
            if name in mended and mended[name]["links"] == got.get(name, {}).get("links"):
                fact["links"] = mended[name]["links"]


def one(case, points, seconds, seed, keep):
    folder = tempfile.mkdtemp(prefix=f"{case}-", dir=trees.SCRATCH)
    before, log = record(case, folder, seed, seconds)
    replay = Replay(before, log, folder)
    chance = random.Random(seed)
    count = len(replay.events)
    places = sorted(chance.randrange(1, count + 1) for _ in range(points))
    tally, applied = {}, 0
    image, copy = f"{folder}/cut", f"{folder}/copy"
    for number, point in enumerate(places):
        torn = number % 2 == 1
        replay.cut(point, image, random.Random(seed * 1000003 + number) if torn else None)
        run("cp", "--sparse=always", image, copy)
        verdict, lines, notes = judge(case, image, copy)
        tally[verdict] = tally.get(verdict, 0) + 1
        applied += any(note["code"] in ("ext-journal", "xfs-log-applied") for note in notes)
        if verdict not in ("same", "unjudged"):
            print(f"  {case} point {number} (event {point} of {count}{', torn' if torn else ''}): {verdict}")
            for line in lines[:6]:
                print(f"    {line}")
            for note in notes:
                print(f"    note: {note['code']}: {note['text'][:200]}")
            if keep:
                run("cp", "--sparse=always", image, f"{keep}/{case}-{number}.img")
            sys.stdout.flush()
    shutil.rmtree(folder)
    same, unjudged_count = tally.pop("same", 0), tally.pop("unjudged", 0)
    judged = points - unjudged_count
    more = f", {unjudged_count} more the kernel cannot mount" if unjudged_count else ""
    rest = "".join(f", {what} {n}" for what, n in sorted(tally.items()))
    print(f"{case:18} {count:6} writes and flushes: {same:4} of {judged} same{rest}{more}; journal applied at {applied}", flush=True)
    return same == judged


def main():
    trees.need_root()
    values = {sys.argv[n + 1] for n, word in enumerate(sys.argv) if word.startswith("--") and n + 1 < len(sys.argv)}
    asked = [word for word in sys.argv[1:] if not word.startswith("--") and word not in values]
    cases = [case for case in CASES if not asked or any(case == word or (word in ("ext4", "xfs") and case.startswith(word)) for word in asked)]
    if not cases:
        sys.exit(f"no such case; there are {', '.join(CASES)}")
    keep = option("--keep", None, str)
    good = True
    try:
        for case in cases:
            good &= one(case, option("--points", 100), option("--seconds", 8.0, float), option("--seed", 1), keep)
    finally:
        shutil.rmtree(trees.SCRATCH, ignore_errors=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
