#!/usr/bin/env python3
"""adit beside qemu-img on images of every format, in one run: `cargo xtask bench convert`.

The source is made here: text that repeats, noise and holes. Outputs are compared with the source
once for every case before anything is timed. nbdcopy is a second peer where it is installed with
qemu-nbd (Debian: libnbd-bin, qemu-utils).

options: --rounds N, --json, --size MIB, --only WORD (the cases whose title has it)
"""
import os
import random
import shutil
import subprocess
import sys

import beside
from beside import ADIT, RESULTS, SCRATCH, case, sh

SIZE = int(sys.argv[sys.argv.index("--size") + 1]) if "--size" in sys.argv else 1024
MIB = 1 << 20
QEMU = "qemu-img convert -m 16 -W"
ONLY = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
NBDCOPY = shutil.which("nbdcopy") and shutil.which("qemu-nbd")
# What a conversion may have of memory, whatever it converts.
PEAK_MIB_MAX = 256


def at(name):
    return os.path.join(SCRATCH, name)


def source():
    """Thirds: text that compresses, noise that does not, holes."""
    rng = random.Random(17)
    words = [bytes(rng.randrange(97, 123) for _ in range(rng.randrange(3, 11))) for _ in range(4000)]
    with open(at("base.raw"), "wb") as file:
        for piece in range(SIZE):
            if piece % 3 == 0:
                text = b" ".join(rng.choice(words) for _ in range(MIB // 6))
                file.write((text + bytes(MIB))[:MIB])
            elif piece % 3 == 1:
                file.write(rng.randbytes(MIB))
            else:
                file.seek(MIB, os.SEEK_CUR)
        file.truncate(SIZE * MIB)


def made(name, fmt, options=""):
    sh(f"qemu-img convert -f raw -O {fmt} {options} {at('base.raw')} {at(name)}")


def chain(length):
    """A stack of overlays, each with a piece of its own."""
    below = "plain.qcow2"
    for link in range(length - 1):
        name = f"link{link}.qcow2"
        sh(f"qemu-img create -q -f qcow2 -F qcow2 -b {below} {at(name)}")
        sh(f"qemu-io -f qcow2 -c 'write -P {link + 1} {link * 7}M 3M' {at(name)}")
        below = name
    return below


def scattered(name, size, cluster, count, seed, backing=""):
    """A qcow2 with `count` single clusters, stored in another order than they are read in."""
    sh(f"qemu-img create -q -f qcow2 {backing} -o cluster_size={cluster} {at(name)} {size}")
    places = random.Random(seed).sample(range(size // cluster), count)
    text = "".join(f"write -q -P {place % 255 + 1} {place * cluster} {cluster}\n" for place in places)
    subprocess.run(["qemu-io", "-f", "qcow2", "-t", "unsafe", at(name)], input=text.encode(), check=True, stdout=subprocess.DEVNULL)
    return name


def wanted(*titles):
    return any(ONLY in title for title in titles)


def convert(title, src, fmt, to, goal, algo="", theirs="raw", extra="", out=None):
    if not wanted(title):
        return
    out = out or at("out")
    ours = f"{ADIT} -q convert -f --to {to} {algo} {src} {out}"
    peer = f"{QEMU} {extra} -f {fmt} -O {theirs} {src} {out}"
    others = {"qemu-img": peer}
    if NBDCOPY and theirs == "raw" and fmt in ("raw", "qcow2"):
        others["nbdcopy"] = f"nbdcopy -- [ qemu-nbd -r -f {fmt} -e 8 {src} ] {out}"
    for command in (ours, *others.values()):
        sh(f"rm -f {out}")
        sh(command)
        verdict = sh(f"qemu-img compare -f {fmt} -F {theirs} {src} {out}").decode()
        if "identical" not in verdict:
            sys.exit(f"{command}: {verdict}")
        print(f"  {os.stat(out).st_blocks * 512 / MIB:8.0f} MiB stored by {command.split()[0].split('/')[-1]}")
    case(title, ours, others, goal, before=f"rm -f {out}")
    peak = RESULTS[-1]["commands"]["adit"]["peak_mib"]
    if peak is not None and peak > PEAK_MIB_MAX:
        sys.exit(f"{title}: {peak:.0f} MiB of memory, more than {PEAK_MIB_MAX}")
    sh(f"rm -f {out}")


def meta(title, ours, peer, goal, rounds=beside.ROUNDS):
    if wanted(title):
        case(title, ours, {"qemu-img": peer} if peer else {}, goal, rounds=rounds)


def images():
    source()
    for name, fmt, options in (("plain.qcow2", "qcow2", ""), ("zlib.qcow2", "qcow2", "-c"),
                               ("zstd.qcow2", "qcow2", "-c -o compression_type=zstd"), ("sparse.vmdk", "vmdk", ""),
                               ("stream.vmdk", "vmdk", "-o subformat=streamOptimized"),
                               ("dynamic.vhd", "vpc", "-o force_size=on"), ("dynamic.vhdx", "vhdx", "")):
        made(name, fmt, options)


def conversions():
    raw = at("base.raw")
    convert("raw to raw", raw, "raw", "raw", ">= 1.0x")
    for name, fmt, goal in (("plain.qcow2", "qcow2", 1.0), ("sparse.vmdk", "vmdk", 2), ("dynamic.vhd", "vpc", 1.5),
                            ("dynamic.vhdx", "vhdx", 1.5), ("zlib.qcow2", "qcow2", 2.5), ("zstd.qcow2", "qcow2", 1.8),
                            ("stream.vmdk", "vmdk", 4)):
        convert(f"{name} to raw", at(name), fmt, "raw", f">= {goal}x")
    convert("raw to zlib qcow2", raw, "raw", "qcow2", ">= 2x", "--compress zlib", "qcow2", "-c")
    convert("raw to streamOptimized", raw, "raw", "vmdk-stream", ">= 4x", "", "vmdk", "-o subformat=streamOptimized")
    if wanted("a chain of ten to raw"):
        convert("a chain of ten to raw", at(chain(10)), "qcow2", "raw", ">= 1.5x")
    if wanted("a chain of ten, each scattered, to raw", "map of a chain of ten, each scattered"):
        below = "plain.qcow2"
        for link in range(9):
            below = scattered(f"over{link}.qcow2", SIZE * MIB, 64 << 10, SIZE * 3 // 4, link, f"-F qcow2 -b {below}")
        convert("a chain of ten, each scattered, to raw", at(below), "qcow2", "raw", ">= 1.5x")
        meta("map of a chain of ten, each scattered", f"{ADIT} map --physical {at(below)}//",
             f"qemu-img map -f qcow2 --output=json {at(below)}", "<= 15 ms")
    title = f"{SIZE * 8} scattered 64 KiB clusters to raw"
    if wanted(title):
        name = scattered("frag.qcow2", SIZE * MIB * 8, 64 << 10, SIZE * 8, 99)
        convert(title, at(name), "qcow2", "raw", ">= 1.5x")


def reflinks():
    """Where one storage can serve two files nothing is copied."""
    if not wanted("to raw, with reflinks"):
        return
    if os.geteuid() or not shutil.which("mkfs.xfs"):
        print("not root, or no mkfs.xfs: conversions with reflinks are not measured")
        return
    image, folder = at("xfs.img"), at("xfs")
    os.mkdir(folder)
    sh(f"truncate -s {SIZE * 6 + 512}M {image} && mkfs.xfs -q -m reflink=1 {image} && mount -o loop {image} {folder}")
    try:
        for name, fmt in (("base.raw", "raw"), ("plain.qcow2", "qcow2"), ("dynamic.vhdx", "vhdx"), ("sparse.vmdk", "vmdk")):
            sh(f"cp --sparse=always {at(name)} {folder} && sync {folder}/{name}")
            convert(f"{name} to raw, with reflinks", f"{folder}/{name}", fmt, "raw", "<= 50 ms", out=f"{folder}/out")
    finally:
        sh(f"umount {folder}")


def tables():
    """What needs the tables of an image alone."""
    many = "100000 scattered clusters"
    if wanted(f"{many} of 16 KiB to raw", f"map of {many}", f"check of {many}"):
        name = at(scattered("many.qcow2", 64 << 30, 16 << 10, 100000, 7))
        convert(f"{many} of 16 KiB to raw", name, "qcow2", "raw", ">= 1.5x")
        meta(f"map of {many}", f"{ADIT} --json map {name}//", f"qemu-img map -f qcow2 --output=json {name}", ">= 4x")
        meta(f"check of {many}", f"{ADIT} check {name}", f"qemu-img check -f qcow2 {name}", ">= 5x")
    for name, fmt, size in (("huge.qcow2", "qcow2", "8T"), ("huge.vhdx", "vhdx", "8T"),
                            ("huge.vmdk", "vmdk", "2000G"), ("huge.vhd", "vpc", "2000G")):
        sh(f"qemu-img create -q -f {fmt} {at(name)} {size}")
        slow = fmt == "vmdk"
        meta(f"info of an empty {size} {fmt}", f"{ADIT} info {at(name)}", f"qemu-img info -f {fmt} {at(name)}", "<= 15 ms")
        # qemu-img prints no map of a VHDX, and takes minutes for an empty VMDK.
        peer = None if fmt in ("vhdx", "vmdk") else f"qemu-img map -f {fmt} {at(name)}"
        meta(f"map of an empty {size} {fmt}", f"{ADIT} map {at(name)}//", peer, "<= 20 ms")
        ours = f"{ADIT} -q convert -f --to raw {at(name)} {at('out')}"
        meta(f"an empty {size} {fmt} to raw", ours, None if slow else f"{QEMU} -f {fmt} -O raw {at(name)} {at('out')}", "<= 200 ms")
        sh(f"rm -f {at('out')}")


def main():
    print(f"{sh(ADIT + ' --version').decode().strip()}; {os.cpu_count()} processors; {beside.ROUNDS} rounds; {SIZE} MiB")
    if not NBDCOPY:
        print("nbdcopy or qemu-nbd is not installed: qemu-img is the only peer")
    images()
    conversions()
    reflinks()
    tables()


try:
    main()
    if "--json" in sys.argv:
        import json
        print(json.dumps(RESULTS, indent=1))
finally:
    subprocess.run(["rm", "-rf", SCRATCH], check=False)
