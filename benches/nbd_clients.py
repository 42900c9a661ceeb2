#!/usr/bin/env python3
"""Other people's NBD clients against our server: `cargo xtask bench nbd-clients`.

- `nbdinfo --map` of every format: what is told to be zeros is zeros, and all that qemu-img knows
  to be zeros is told;
- `nbdcopy` of every format, over several connections: the bytes of the raw truth;
- a PC in software emulation boots from an export, reads a far sector and writes it elsewhere,
  into a kept overlay.

needs: libnbd-bin, qemu-utils, qemu-system-x86
"""
import json
import os
import random
import shutil
import struct
import subprocess
import sys

from beside import ADIT, SCRATCH, sh
from stamps import Server

MIB = 1 << 20
SIZE = 64 * MIB
FORMATS = [("raw", "raw", "raw", ""), ("qcow2", "qcow2", "qcow2", ""), ("qcow2, zlib", "qcow2", "qcow2", "-c"),
           ("qcow2, extended L2", "qcow2", "qcow2", "-o extended_l2=on"), ("qcow2, 4 KiB clusters", "qcow2", "qcow2", "-o cluster_size=4k"),
           ("qcow2, zstd", "qcow2", "qcow2", "-c -o compression_type=zstd"), ("vmdk", "vmdk", "vmdk", ""),
           ("vmdk, streamOptimized", "vmdk", "vmdk", "-o subformat=streamOptimized"),
           ("vmdk, flat", "vmdk", "vmdk", "-o subformat=monolithicFlat"),
           ("vmdk, split", "vmdk", "vmdk", "-o subformat=twoGbMaxExtentSparse"), ("vdi", "vdi", "vdi", ""),
           ("vhd, dynamic", "vhd", "vpc", "-o force_size=on"), ("vhd, fixed", "vhd", "vpc", "-o subformat=fixed,force_size=on"),
           ("vhdx", "vhdx", "vhdx", ""), ("parallels", "hdd", "parallels", "")]


def at(name):
    return os.path.join(SCRATCH, name)


def source():
    """Data, written zeros and holes, none of them as long or as aligned as any format would like."""
    chance = random.Random(5)
    place = 0
    with open(at("truth.raw"), "wb") as out:
        while place < SIZE:
            length = chance.randrange(1, 700) * 4096
            kind = chance.randrange(3)
            if kind == 0:
                out.seek(place)
                out.write(chance.randbytes(min(length, SIZE - place)))
            elif kind == 1:
                out.seek(place)
                out.write(bytes(min(length, SIZE - place)))
            place += length
        out.truncate(SIZE)


def zeros_of(extents):
    """The bytes that are told to read as zeros, as one bit each for blocks of 512."""
    bits = bytearray(SIZE // 512)
    for start, length, zero in extents:
        if zero:
            first, last = -(-start // 512), (start + length) // 512
            bits[first:last] = b"\1" * (last - first)
    return bits


def run(*command):
    done = subprocess.run(command, capture_output=True, check=False, cwd=SCRATCH)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout.decode()[-500:]}{done.stderr.decode()[-500:]}")
    return done.stdout


def map_and_copy(title, ending, fmt, options):
    folder = at("image")
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    image = os.path.join(folder, f"disk.{ending}")
    sh(f"qemu-img convert -f raw -O {fmt} {options} {at('truth.raw')} {image}")
    server = Server(ADIT, folder, [image])
    uri = f"nbd+unix:///?socket={server.socket}"
    told = json.loads(run("nbdinfo", "--json", "--map", uri))
    extents = [(it["offset"], it["length"], it["type"] & 2) for it in told]
    ends = [start + length for start, length, _ in extents]
    assert [0, *ends[:-1]] == [start for start, _, _ in extents] and ends[-1] == SIZE, f"{title}: the map has gaps"
    ours = zeros_of(extents)
    with open(at("truth.raw"), "rb") as truth:
        data = truth.read()
    for block, zero in enumerate(ours):
        if zero and any(data[block * 512:block * 512 + 512]):
            sys.exit(f"{title}: byte {block * 512:#x} is told to be zero and is not")
    known = "qemu-img prints no map of it"
    mapped = subprocess.run(["qemu-img", "map", "--output=json", "-f", fmt, image], capture_output=True, check=False)
    if mapped.returncode == 0:
        theirs = zeros_of([(it["start"], it["length"], it["zero"]) for it in json.loads(mapped.stdout)])
        missed = sum(1 for mine, other in zip(ours, theirs) if other and not mine)
        if missed:
            sys.exit(f"{title}: {missed * 512} bytes that qemu-img knows to be zeros are told as data")
        known = f"qemu-img knows {sum(theirs) * 512 >> 10} KiB"
    run("nbdcopy", "--connections=4", uri, at("copy.raw"))
    sh(f"cmp {at('truth.raw')} {at('copy.raw')}")
    features = json.loads(run("nbdinfo", "--json", uri))["exports"][0]
    assert features["can_multi_conn"] and "base:allocation" in str(features["contexts"]), features
    server.stop()
    os.unlink(at("copy.raw"))
    print(f"  {title:22} {len(extents):5} extents, {sum(ours) * 512 >> 10} KiB of zeros ({known}); copied over 4 connections", flush=True)


HELLO = b"booted from adit\r\n"
FAR, COPY = 40 * MIB // 512, 50 * MIB // 512


def boot_sector():
    """Reads a far sector, writes it elsewhere, and says on the serial port what is in it."""
    def packet(sector):
        return struct.pack("<BBHHHQ", 16, 0, 1, 0x7E00, 0, sector)
    code = bytes.fromhex(
        "31c0 8ed8 8ec0 fc"       # all segments 0
        "be 0000 b442 cd13 7219"  # read the sector of the first packet; on an error, the end
        "be 0000 b80043 cd13"     # write it where the second packet says
        "be007e baf803"           # from 0x7e00 to the serial port
        "ac 84c0 7403 ee ebf8"    # up to a zero byte
        "b000 baf400 ee"          # tell the emulator that this was it
        "faf4 ebfd")
    code = bytearray(code)
    first, second = code.index(b"\xbe\0\0"), code.index(b"\xb4\x42")
    second = code.index(b"\xbe\0\0", second)
    packets = 0x7C00 + len(code)
    code[first + 1:first + 3] = struct.pack("<H", packets)
    code[second + 1:second + 3] = struct.pack("<H", packets + 16)
    # The jump over an error goes to the halt.
    jump = code.index(b"\x72\x19")
    code[jump + 1] = code.index(b"\xb0\0\xba\xf4") - (jump + 2)
    whole = bytes(code) + packet(FAR) + packet(COPY)
    assert len(whole) <= 510
    return whole.ljust(510, b"\0") + b"\x55\xaa"


def boot():
    with open(at("boot.raw"), "wb") as disk:
        disk.write(boot_sector())
        disk.seek(FAR * 512)
        disk.write(HELLO)
        disk.truncate(SIZE)
    sh(f"qemu-img convert -f raw -O qcow2 {at('boot.raw')} {at('boot.qcow2')}")
    folder = at("guest")
    os.mkdir(folder)
    server = Server(ADIT, folder, ["--overlay", "top.qcow2", at("boot.qcow2")])
    command = ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "32", "-display", "none", "-serial", "stdio", "-nodefaults",
               "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive",
               f"file=nbd+unix:///?socket={server.socket},format=raw,if=ide,cache=writeback"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    server.stop()
    if HELLO not in done.stdout or done.returncode != 1:
        sys.exit(f"the machine did not boot: {done.returncode}\n{done.stdout!r}\n{done.stderr!r}")
    sh(f"qemu-img convert -O raw {os.path.join(folder, 'top.qcow2')} {at('after.raw')}")
    with open(at("after.raw"), "rb") as after:
        after.seek(COPY * 512)
        assert after.read(len(HELLO)) == HELLO, "what the machine wrote is not in the overlay"
    print("  qemu-system-x86_64 boots from the export, and what it wrote is in the overlay")


def main():
    missing = [tool for tool in ("nbdinfo", "nbdcopy", "qemu-img", "qemu-system-x86_64") if not shutil.which(tool)]
    if missing:
        sys.exit(f"needed and not here: {', '.join(missing)}")
    source()
    for case in FORMATS:
        map_and_copy(*case)
    boot()


try:
    main()
finally:
    shutil.rmtree(SCRATCH, ignore_errors=True)
