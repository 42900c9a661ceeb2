#!/usr/bin/env python3
"""adit beside qemu-nbd and nbdkit as servers, in one run: `cargo xtask bench nbd`.

fio is the client of all of them; the servers take turns, so only the ratios of one run count. The
disk is made here: text that repeats, noise and holes, all of it in the page cache.

options: --rounds N, --json, --size MIB, --seconds N, --only TEXT
needs: fio with the nbd engine, qemu-utils, nbdkit
"""
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

import beside
from beside import ADIT, RESULTS, SCRATCH, sh


def option(name, default):
    return type(default)(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


SIZE, SECONDS, ONLY = option("--size", 1024), option("--seconds", 2), option("--only", "")
ROUNDS = option("--rounds", 3)
MIB = 1 << 20
SOCKET = os.path.join(SCRATCH, "s")
QEMU = f"qemu-nbd -t -e 16 -k {SOCKET}"
SEQ = ("sequential, 1 MiB x 4, 4 connections", ["--rw=read", "--bs=1M", "--iodepth=4", "--numjobs=4",
                                               "--offset_increment=25%", "--size=25%"])
RANDOM = ("random, 4 KiB x 16, 4 connections", ["--rw=randread", "--bs=4k", "--iodepth=16", "--numjobs=4"])
ONE = ("random, 4 KiB x 16, 1 connection", ["--rw=randread", "--bs=4k", "--iodepth=16"])
LONE = ("random, 4 KiB x 1", ["--rw=randread", "--bs=4k", "--iodepth=1"])
WRITE = ("random writes, 4 KiB x 16", ["--rw=randwrite", "--bs=4k", "--iodepth=16"])
FILL = ("sequential writes, 1 MiB x 16", ["--rw=write", "--bs=1M", "--iodepth=16"])


def at(name):
    return os.path.join(SCRATCH, name)


def source():
    """Quarters: text that compresses, noise, text, holes."""
    import random
    chance = random.Random(17)
    words = [bytes(chance.randrange(97, 123) for _ in range(chance.randrange(3, 11))) for _ in range(4000)]
    texts = [(b" ".join(chance.choice(words) for _ in range(MIB // 6)) + bytes(MIB))[:MIB] for _ in range(16)]
    with open(at("base.raw"), "wb") as file:
        for piece in range(SIZE):
            if piece % 4 == 3:
                file.seek(MIB, os.SEEK_CUR)
            else:
                file.write(chance.randbytes(MIB) if piece % 4 == 1 else texts[chance.randrange(16)])
        file.truncate(SIZE * MIB)
    sh(f"qemu-img convert -f raw -O qcow2 {at('base.raw')} {at('base.qcow2')}")
    sh(f"qemu-img convert -f raw -O qcow2 -c -m 4 -W {at('base.raw')} {at('zlib.qcow2')}")
    sh(f"qemu-img create -q -f qcow2 -F raw -b base.raw {at('empty.qcow2')}")
    sh(f"cat {at('base.raw')} {at('base.qcow2')} {at('zlib.qcow2')} > /dev/null")


class Running:
    """A server while it is measured."""

    def __init__(self, command, before):
        for name in (SOCKET,):
            if os.path.exists(name):
                os.unlink(name)
        if before:
            sh(before)
        self.process = subprocess.Popen(command.split(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        begun = time.monotonic()
        while not os.path.exists(SOCKET):
            if self.process.poll() is not None or time.monotonic() - begun > 30:
                sys.exit(f"it does not listen: {command}")
            time.sleep(0.01)
        time.sleep(0.05)

    def processor_s(self):
        """Processor time so far: what load from elsewhere does not blur."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGINT if "adit" in self.process.args[0] else signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def fio(job):
    """Requests and MiB a second."""
    size = [] if any("--size" in word for word in job) else [f"--size={SIZE}M"]
    command = ["fio", "--name=j", "--output-format=json", f"--runtime={SECONDS}", "--time_based", "--randseed=11",
               "--norandommap=1", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={SOCKET}", *job, *size]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRATCH, check=False)
    if done.returncode or "{" not in done.stdout:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-400:]}{done.stderr[-400:]}")
    jobs = json.loads(done.stdout[done.stdout.index("{"):])["jobs"]
    sides = [job[side] for job in jobs for side in ("read", "write")]
    return sum(side["iops"] for side in sides), sum(side["bw_bytes"] for side in sides) / MIB


def compare(title, servers, jobs, goal, before=None):
    """Each server in turn, each job, some rounds; ratios are of medians. Of each server the table
    tells how fast, with the range of the rounds, and its own processor time for a request."""
    if ONLY and ONLY not in title:
        return
    got, spent, peaks = {}, {}, {}
    for _ in range(ROUNDS):
        for name, command in servers.items():
            # What is written needs a fresh start for every job.
            running = None if before else Running(command, None)
            for job_name, job in jobs:
                if before:
                    running = Running(command, before)
                begun = running.processor_s()
                requests, mib = fio(job)
                work = max(1, requests * SECONDS)
                spent.setdefault((name, job_name), []).append((running.processor_s() - begun) / work * 1e6)
                got.setdefault((name, job_name), []).append(mib if "sequential" in job_name else requests)
                if before:
                    peaks[name] = max(peaks.get(name, 0), running.peak_mib())
                    running.stop()
            if not before:
                peaks[name] = max(peaks.get(name, 0), running.peak_mib())
                running.stop()
    print(f"\n{title}\n  goal: {goal}")
    for job_name, _ in jobs:
        unit = "MiB/s" if "sequential" in job_name else "IOPS"
        middle = {name: statistics.median(got[name, job_name]) for name in servers}
        cost = {name: statistics.median(spent[name, job_name]) for name in servers}
        print(f"  {job_name}")
        for name, value in middle.items():
            low, high = min(got[name, job_name]), max(got[name, job_name])
            ratio = "" if name == "adit" else f"  adit is {middle['adit'] / value:5.2f}x as fast"
            print(f"    {name:22} {value:9.0f} {unit} ({low:.0f}-{high:.0f}), {cost[name]:7.1f} us, peak {peaks[name]:5.1f} MiB{ratio}", flush=True)
        RESULTS.append({"case": title, "job": job_name, "unit": unit, "goal": goal, "median": middle,
                        "processor_us": cost, "peak_mib": peaks})


def main():
    missing = [tool for tool in ("fio", "qemu-nbd", "qemu-img", "nbdkit") if not shutil.which(tool)]
    if missing or "nbd" not in sh("fio --enghelp").decode():
        sys.exit(f"needed and not here: {missing or 'the nbd engine of fio'}")
    versions = [sh(f"{tool} --version").decode().split("\n")[0] for tool in (ADIT, "fio", "qemu-nbd", "nbdkit")]
    print("; ".join(versions), f"; {os.cpu_count()} processors; {ROUNDS} rounds of {SECONDS} s; {SIZE} MiB")
    source()
    ours = f"{ADIT} serve nbd -q --socket {SOCKET}"
    raw, qcow, zlib = at("base.raw"), at("base.qcow2"), at("zlib.qcow2")

    def qemu(path, fmt="qcow2", how=""):
        return f"{QEMU} -f {fmt} {how} {path}"

    compare("qcow2", {"adit": f"{ours} {qcow}", "qemu-nbd": qemu(qcow, how="-r"),
                      "qemu-nbd io_uring": qemu(qcow, how="-r --aio=io_uring")}, [SEQ, RANDOM, ONE, LONE],
            ">= 2.5x sequential, >= 1.5x in requests over 4 connections")
    compare("qcow2, zlib", {"adit": f"{ours} {zlib}", "qemu-nbd": qemu(zlib, how="-r"),
                            "qemu-nbd io_uring": qemu(zlib, how="-r --aio=io_uring")}, [SEQ, ONE], ">= 3x")
    compare("raw", {"adit": f"{ours} {raw}", "nbdkit file": f"nbdkit -f -r -U {SOCKET} file {raw}"},
            [SEQ, RANDOM, ONE, LONE], ">= 0.9x")
    compare("an empty overlay over raw", {"adit": f"{ours} --overlay {at('empty.qcow2')} {raw}", "adit without": f"{ours} {raw}"},
            [SEQ, RANDOM, ONE, LONE], ">= 0.95x")
    over = at("over.qcow2")
    compare("first writes over a base",
            {"adit": f"{ours} --overlay {over} {raw}",
             "adit :temp:": f"{ours} --overlay :temp: {raw}",
             "qemu-nbd": qemu(at("theirs.qcow2"), how="--cache=writeback"),
             "nbdkit cow": f"nbdkit -f -U {SOCKET} --filter=cow file {raw}"},
            [WRITE, FILL], ">= 3x qemu-nbd at 4 KiB",
            before=f"rm -f {over}; qemu-img create -q -f qcow2 -F raw -b {raw} {at('theirs.qcow2')}")
    image = at("image.qcow2")
    compare("writes into a new qcow2",
            {"adit": f"{ours} --writable {image}", "qemu-nbd": qemu(image, how="--cache=writeback")},
            [WRITE, FILL], ">= 1.5x", before=f"rm -f {image}; qemu-img create -q -f qcow2 {image} {SIZE}M")


try:
    main()
    if "--json" in sys.argv:
        print(json.dumps(RESULTS, indent=1))
finally:
    subprocess.run(["rm", "-rf", SCRATCH], check=False)
