#!/usr/bin/env python3
"""adit beside qemu-img on images of every format, in one run: `cargo xtask bench convert`.

The source is made here: text that repeats, noise and holes. Outputs are compared with the source
once for every case before anything is timed.

options: --rounds N, --json, --size MIB
"""
import os
import random
import subprocess
import sys

import beside
from beside import ADIT, RESULTS, SCRATCH, case, sh

SIZE = int(sys.argv[sys.argv.index("--size") + 1]) if "--size" in sys.argv else 1024
MIB = 1 << 20
QEMU = "qemu-img convert -m 16 -W"


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


def convert(title, src, fmt, to, goal, algo="", theirs="raw", extra=""):
    out = at("out")
    ours = f"{ADIT} -q convert -f --to {to} {algo} {src} {out}"
    peer = f"{QEMU} {extra} -f {fmt} -O {theirs} {src} {out}"
    for command in (ours, peer):
        sh(f"rm -f {out}")
        sh(command)
        verdict = sh(f"qemu-img compare -f {fmt} -F {theirs} {src} {out}").decode()
        if "identical" not in verdict:
            sys.exit(f"{command}: {verdict}")
        print(f"  {os.stat(out).st_blocks * 512 / MIB:8.0f} MiB stored by {command.split()[0].split('/')[-1]}")
    case(title, ours, {"qemu-img": peer}, goal, before=f"rm -f {out}")
    sh(f"rm -f {out}")


def main():
    print(f"{sh(ADIT + ' --version').decode().strip()}; {os.cpu_count()} processors; {beside.ROUNDS} rounds; {SIZE} MiB")
    source()
    raw = at("base.raw")
    for name, fmt, options in (("plain.qcow2", "qcow2", ""), ("zlib.qcow2", "qcow2", "-c"),
                               ("zstd.qcow2", "qcow2", "-c -o compression_type=zstd"), ("sparse.vmdk", "vmdk", ""),
                               ("stream.vmdk", "vmdk", "-o subformat=streamOptimized"),
                               ("dynamic.vhd", "vpc", "-o force_size=on"), ("dynamic.vhdx", "vhdx", "")):
        made(name, fmt, options)
    convert("raw to raw", raw, "raw", "raw", ">= 1.0x")
    for name, fmt, goal in (("plain.qcow2", "qcow2", 1.0), ("sparse.vmdk", "vmdk", 2), ("dynamic.vhd", "vpc", 1.5),
                            ("dynamic.vhdx", "vhdx", 1.5), ("zlib.qcow2", "qcow2", 2.5), ("zstd.qcow2", "qcow2", 1.8),
                            ("stream.vmdk", "vmdk", 4)):
        convert(f"{name} to raw", at(name), fmt, "raw", f">= {goal}x")
    convert("raw to zlib qcow2", raw, "raw", "qcow2", ">= 2x", "--compress zlib", "qcow2", "-c")
    convert("raw to streamOptimized", raw, "raw", "vmdk-stream", ">= 4x", "", "vmdk", "-o subformat=streamOptimized")
    convert("a chain of ten to raw", at(chain(10)), "qcow2", "raw", ">= 1.5x")
    for name, fmt, options, size in (("huge.qcow2", "qcow2", "", "8T"), ("huge.vhdx", "vhdx", "", "8T"),
                                     ("huge.vmdk", "vmdk", "", "2000G"), ("huge.vhd", "vpc", "", "2000G")):
        sh(f"qemu-img create -q -f {fmt} {options} {at(name)} {size}")
        case(f"info of an empty {size} {fmt}", f"{ADIT} info {at(name)}", {"qemu-img": f"qemu-img info -f {fmt} {at(name)}"}, "<= 15 ms")
        slow = fmt == "vmdk"
        # qemu-img prints no map of a VHDX.
        peers = {} if fmt == "vhdx" else {"qemu-img": f"qemu-img map -f {fmt} {at(name)}"}
        case(f"map of an empty {size} {fmt}", f"{ADIT} map {at(name)}//", peers, "<= 20 ms",
             rounds=1 if slow else beside.ROUNDS)


try:
    main()
    if "--json" in sys.argv:
        import json
        print(json.dumps(RESULTS, indent=1))
finally:
    subprocess.run(["rm", "-rf", SCRATCH], check=False)
