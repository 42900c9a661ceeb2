#!/usr/bin/env python3
"""FUSE mounts of adit beside their peers, in one run: `cargo xtask bench fuse`.

- qcow2 exported by adit and by qemu-storage-daemon, read through O_DIRECT
- raw, flat VMDK and fixed VHD in a mount, beside the same file without one (page cache warm)
- a VMFS6 volume mounted by adit and by vmfs6-fuse: list it, read a file of it
- holes: `qemu-img convert` of an empty disk of 100 GiB, `cp` of a sparse file of 69 GiB
- 100 000 entries: inodes of readdir and stat, equal over a remount

Servers take turns, round after round, so that a busy machine slows all of them; ratios are of
medians. Beside the speed stands the processor time a server spends on a MiB or a request, which a
busy machine changes least. Needs root, fio, qemu-storage-daemon and vmfs6-fuse; says what it leaves out.

options: --rounds N, --json, --size MIB, --only WORD
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import beside
from beside import ADIT, IMAGES, RESULTS, SCRATCH, sh

ROUNDS = beside.ROUNDS if "--rounds" in sys.argv else 5
SIZE = int(sys.argv[sys.argv.index("--size") + 1]) if "--size" in sys.argv else 1024
ONLY = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
SECONDS = 2
MNT = os.path.join(SCRATCH, "mnt")
SEQUENTIAL = ("sequential 1 MiB, MiB/s", ["--rw=read", "--bs=1M", "--iodepth=1"], "bw")
RANDOM = ("random 4 KiB depth 1, IOPS", ["--rw=randread", "--bs=4k", "--iodepth=1"], "iops")
THREADS = ("random 4 KiB depth 16, IOPS", ["--rw=randread", "--bs=4k", "--iodepth=16"], "iops")


def at(name):
    return os.path.join(SCRATCH, name)


def fio(path, job, cached):
    engine = ["--ioengine=psync", "--direct=0", "--invalidate=0"] if cached else ["--ioengine=io_uring", "--direct=1"]
    done = subprocess.run(["fio", "--name=x", f"--filename={path}", "--readonly", "--output-format=json", "--time_based",
                           f"--runtime={SECONDS}", f"--size={SIZE}M"] + engine + job[1], capture_output=True)
    if done.returncode:
        sys.exit(f"fio on {path}: {done.stderr.decode(errors='replace')}")
    read = json.loads(done.stdout)["jobs"][0]["read"]
    return read["bw"] / 1024 if job[2] == "bw" else read["iops"]


class Server:
    """A program that serves a file until it is stopped; without one, the file is there anyway."""

    def __init__(self, name, path, command=None, ready=None):
        self.name, self.path, self.command, self.process = name, path, command, None
        self.ready = ready or (lambda: os.path.exists(path))

    def __enter__(self):
        if self.command:
            self.process = subprocess.Popen(self.command, shell=True, stderr=subprocess.PIPE)
            begun = time.time()
            while not self.ready():
                if self.process.poll() is not None or time.time() - begun > 20:
                    sys.exit(f"{self.command}: {self.process.stderr.read().decode(errors='replace')}")
                time.sleep(0.01)
        return self

    def processor_seconds(self):
        """Of the server so far; nothing where there is none."""
        if not self.process:
            return None
        with open(f"/proc/{self.process.pid}/stat") as file:
            return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def __exit__(self, *_):
        if self.process:
            for mounted in (self.path, MNT):
                subprocess.run(["umount", mounted], capture_output=True)
            self.process.terminate()
            self.process.wait()
            if os.path.isfile(at("mnt/disk")):
                os.unlink(at("mnt/disk"))


def mounted(source, inner, name="adit"):
    return Server(name, os.path.join(MNT, inner), f"exec {ADIT} -q mount --foreground {source} {MNT}")


def daemon(image, form):
    """qemu-storage-daemon mounts over a file."""
    target = os.path.join(MNT, "disk")
    chain = (f"--blockdev driver=file,node-name=f,filename={image},read-only=on "
             f"--blockdev driver={form},node-name=d,file=f,read-only=on "
             f"--export type=fuse,id=e,node-name=d,mountpoint={target},writable=off")
    return Server("qemu-storage-daemon", target, f": > {target}; exec qemu-storage-daemon {chain}", lambda: os.path.ismount(target))


def compare(title, servers, jobs, goals, cached):
    """The first server is ours; ratios are to each of the others."""
    if ONLY not in title:
        return
    got = {(server.name, job[0]): [] for server in servers for job in jobs}
    cost = {(server.name, job[0]): [] for server in servers for job in jobs}
    for _ in range(ROUNDS + 1):
        for server in servers:
            with server:
                for job in jobs:
                    before = server.processor_seconds()
                    speed = fio(server.path, job, cached)
                    got[server.name, job[0]].append(speed)
                    if before is not None:
                        spent = server.processor_seconds() - before
                        cost[server.name, job[0]].append(spent / (speed * SECONDS) * 1e6)
    print(f"\n{title}")
    row = {"case": title, "jobs": {}}
    for job, goal in zip(jobs, goals):
        # The first round only warmed up.
        median = {server.name: statistics.median(got[server.name, job[0]][1:]) for server in servers}
        ours = median[servers[0].name]
        text = "  ".join(f"{name} {value:.0f}" for name, value in median.items())
        ratios = "  ".join(f"{ours / median[s.name]:.2f}x {s.name}" for s in servers[1:])
        print(f"  {job[0]:28} {text}  =>  {ratios}  (goal {goal})")
        spent = {server.name: statistics.median(cost[server.name, job[0]][1:]) for server in servers if server.command}
        text = "  ".join(f"{name} {value:.1f}" for name, value in spent.items())
        ratios = "  ".join(f"{spent[name] / max(spent[servers[0].name], 1e-3):.2f}x {name}" for name in list(spent)[1:])
        print(f"    processor time of one, us    {text}" + (f"  =>  {ratios}" if ratios else ""))
        row["jobs"][job[0]] = {"speed": median, "processor_us": spent}
    RESULTS.append(row)


def base():
    """Noise and holes."""
    with open(at("base.raw"), "wb") as file:
        for piece in range(SIZE):
            if piece % 4 == 3:
                file.seek(1 << 20, os.SEEK_CUR)
            else:
                file.write(os.urandom(1 << 20))
        file.truncate(SIZE << 20)


def images():
    base()
    raw = at("base.raw")
    sh(f"qemu-img convert -f raw -O qcow2 {raw} {at('base.qcow2')}")
    sh(f"qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat {raw} {at('base.vmdk')}")
    sh(f"qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on {raw} {at('base.vhd')}")
    with mounted(at("base.qcow2"), "disk") as server:
        sh(f"cmp {server.path} {raw}")
    compare("qcow2 through O_DIRECT", [mounted(at("base.qcow2"), "disk"), daemon(at("base.qcow2"), "qcow2")],
            [SEQUENTIAL, RANDOM, THREADS], [">= 2.5x", ">= 2x", "-"], False)
    for name in ("base.raw", "base.vmdk", "base.vhd"):
        plain = at("base-flat.vmdk" if name == "base.vmdk" else name)
        sh(f"cat {plain} > /dev/null")
        compare(f"{name} in the page cache", [mounted(at(name), "disk"), Server("the file itself", plain)],
                [SEQUENTIAL, RANDOM], [">= 0.95x"] * 2, True)
    for name in ("base.raw", "base.qcow2", "base.vmdk", "base-flat.vmdk", "base.vhd"):
        os.unlink(at(name))


def timed(title, commands, goal, after):
    """Whole commands in turn, from start to exit."""
    if ONLY not in title:
        return
    times = {name: [] for name in commands}
    for _ in range(ROUNDS + 1):
        for name, command in commands.items():
            times[name].append(beside.timed(command))
            subprocess.run(after, shell=True, capture_output=True)
    median = {name: statistics.median(took[1:]) for name, took in times.items()}
    ours = median["adit"]
    print(f"\n{title}\n  " + "  ".join(f"{name} {took * 1e3:.0f} ms" for name, took in median.items())
          + "  =>  " + "  ".join(f"{took / ours:.2f}x {name}" for name, took in median.items() if name != "adit")
          + f"  (goal {goal})")
    RESULTS.append({"case": title, "medians_s": median})


def datastore():
    image = os.path.join(IMAGES, "vmfs_vmfs6.bin")
    if not os.path.exists(image):
        return print(f"\nleft out: there is no {image}")
    away = f"umount {MNT} || umount -l {MNT}"
    ours = f"{ADIT} -q mount {image} {MNT}"
    peers = {"vmfs6-fuse": f"vmfs6-fuse {image} {MNT}"} if shutil.which("vmfs6-fuse") else {}
    for title, inner in (("VMFS6: mount, ls -l, unmount", f"ls -l {MNT}"),
                         ("VMFS6: mount, read 128 MiB, unmount", f"cat {MNT}/bigger > /dev/null")):
        commands = {name: f"{command} && {inner} && umount {MNT}" for name, command in {"adit": ours, **peers}.items()}
        timed(title, commands, ">= 4x", away)
    if peers and ONLY in "VMFS6: read in the middle of 69 GiB":
        part = f"dd if={MNT}/normal-flat.vmdk of=/dev/null bs=1M skip=35000 count=256 status=none"
        commands = {name: f"{command} && {part} && umount {MNT}" for name, command in {"adit": ours, **peers}.items()}
        timed("VMFS6: read in the middle of 69 GiB", commands, ">= 4x", away)
    out = at("out")
    commands = {"adit": f"{ours} && cp --sparse=auto {MNT}/normal-flat.vmdk {out} && umount {MNT}",
                "truncate": f"truncate -s 69G {out}"}
    timed("cp of the 69 GiB sparse file out of the mount", commands, "<= 500 ms", f"rm -f {out}; {away}")


def empty():
    thin, out = at("thin.qcow2"), at("out.qcow2")
    sh(f"qemu-img create -q -f qcow2 {thin} 100G")
    commands = {"adit": f"{ADIT} -q mount {thin} {MNT} && qemu-img convert -f raw -O qcow2 {MNT}/disk {out} && umount {MNT}",
                "without a mount": f"qemu-img convert -f qcow2 -O qcow2 {thin} {out}"}
    timed("qemu-img convert of an empty disk of 100 GiB", commands, "<= 500 ms", f"rm -f {out}; umount {MNT}")


WALK = """
import os, sys
seen = []
def walk(path):
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        found = os.lstat(entry.path)
        assert found.st_ino == entry.inode(), entry.path
        seen.append((entry.path, found.st_ino, found.st_size, found.st_blocks, found.st_mode, found.st_nlink, found.st_mtime_ns))
        if entry.is_dir(follow_symlinks=False): walk(entry.path)
walk('.')
import hashlib
print(len(seen), len({row[1] for row in seen}), hashlib.sha256(repr(seen).encode()).hexdigest())
"""


def crowd():
    if ONLY not in "100 000 entries":
        return
    image = at("crowd.img")
    sh(f"cargo run --quiet --release --package adit-testkit --example make-vmfs -- 6 crowd {image}")
    answers, took = [], []
    for _ in range(2):
        with mounted(image, "crowd"):
            begun = time.perf_counter()
            answers.append(subprocess.run([sys.executable, "-c", WALK], cwd=MNT, check=True, capture_output=True).stdout.decode().split())
            took.append(time.perf_counter() - begun)
    entries, inodes, _ = answers[0]
    if answers[0] != answers[1] or entries != inodes or int(entries) < 100_000:
        sys.exit(f"inodes: {answers}")
    print(f"\n100 000 entries\n  {entries} entries: readdir and stat agree on every inode, {inodes} differ, all the same "
          f"after a remount; {int(entries) / min(took):.0f} entries/s")
    RESULTS.append({"case": "100 000 entries", "entries": int(entries), "seconds": took})
    os.unlink(image)


def main():
    if os.geteuid() or not shutil.which("fio") or not shutil.which("qemu-storage-daemon"):
        sys.exit("this needs root, fio and qemu-storage-daemon (apt install fio qemu-system-common)")
    print(f"{sh(ADIT + ' --version').decode().strip()}; {os.cpu_count()} processors; {ROUNDS} rounds; {SIZE} MiB")
    os.makedirs(MNT)
    images()
    datastore()
    empty()
    crowd()
    if "--json" in sys.argv:
        print(json.dumps(RESULTS, indent=1))


try:
    main()
finally:
    subprocess.run(["umount", MNT], capture_output=True)
    shutil.rmtree(SCRATCH, ignore_errors=True)
