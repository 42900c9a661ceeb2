#!/usr/bin/env python3
"""adit beside its peers on guests' file systems, in one run: `cargo xtask bench guest`.

A tree of small files and a few large ones is put into ext4, XFS and NTFS; what is extracted is
compared byte for byte with that tree before anything is timed. Every case runs all its commands
in turn, round after round; ratios are of medians. Extraction goes to memory, so that the reader is
measured. Peers: sleuthkit, fuse2fs, the kernel (root only), dissect. Whoever is missing is said.

options: --rounds N, --files N (small files, 100 000 unless told), --large MIB (each of four),
         --only WORD (cases whose title has it), --json
"""
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import uuid
import zlib

import beside
from beside import ADIT, MEMORY, RESULTS, ROUNDS, ROOT, SCRATCH, TARGET, case, same, sh


def option(name, default):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


FILES, LARGE = int(option("--files", 100_000)), int(option("--large", 128))
ONLY = option("--only", "")
DATA = os.path.join(TARGET, "bench-guest", f"{FILES}-{LARGE}")
TREE, OUT, MNT = (os.path.join(d, n) for d, n in ((DATA, "tree"), (MEMORY, f"adit-out-{os.getpid()}"), (SCRATCH, "mnt")))
WALK = ("import os,sys\nn=0\nfor d,_,fs in os.walk(sys.argv[1]):\n for f in fs: n+=os.lstat(os.path.join(d,f)).st_size\n")


def make_tree():
    """Files of some KiB, text and noise, in folders of about 45, and four large ones."""
    rng = random.Random(7)
    blob = bytearray(rng.randbytes(1 << 20) + b"int main(void) { return 0; } // text\n" * 30_000)
    for n in range(FILES):
        folder = os.path.join(TREE, f"mod{n // 4500:02}", f"dir{n // 45 % 100:02}")
        if n % 45 == 0:
            os.makedirs(folder, exist_ok=True)
        size = min(int(rng.expovariate(1 / 6000)), 200_000)
        at = rng.randrange(len(blob) - size)
        with open(os.path.join(folder, f"file{n:06}.c"), "wb") as out:
            out.write(blob[at:at + size])
    for n in range(4):
        with open(os.path.join(TREE, f"large{n}.bin"), "wb") as out:
            for _ in range(LARGE):
                out.write(rng.randbytes(1 << 20))
    os.symlink("mod00/dir00/file000000.c", os.path.join(TREE, "link"))


def into(mount, image):
    """Puts the tree into an image that is mounted for that."""
    os.makedirs(MNT, exist_ok=True)
    try:
        sh(f"{mount} {image} {MNT} && cp -a {TREE}/. {MNT}/")
    finally:
        subprocess.run(f"umount {MNT}", shell=True)


def images():
    """The images, made once for each size of the tree."""
    made = {}
    if not os.path.exists(os.path.join(DATA, ".complete")):
        shutil.rmtree(DATA, ignore_errors=True)
        os.makedirs(TREE)
        print("making the tree", flush=True)
        make_tree()
    size = f"{(FILES * 12 >> 10) + 5 * LARGE + 200}M"
    makers = {
        "ext4": lambda image: sh(f"mke2fs -q -t ext4 -N {FILES + 9000} -d {TREE} {image} {size}"),
        "xfs": lambda image: (sh(f"truncate -s {size} {image} && mkfs.xfs -q {image}"), into("mount -o loop", image)),
        "ntfs": lambda image: (sh(f"truncate -s {size} {image} && mkfs.ntfs -q -F -f {image}"), into("ntfs-3g -o big_writes", image)),
    }
    for name, make in makers.items():
        image = os.path.join(DATA, f"{name}.img")
        made[name] = image
        if os.path.exists(image):
            continue
        try:
            print(f"making {image}", flush=True)
            new = os.path.join(MEMORY, f"adit-new-{os.getpid()}.img")     # filling it takes long on a disk
            try:
                make(new)
                sh(f"cp --sparse=always {new} {image}.new && mv {image}.new {image}")
            finally:
                subprocess.run(["rm", "-f", new])
        except subprocess.CalledProcessError as why:
            print(f"no {name}: {why.stderr.decode(errors='replace').strip()}")
            made[name] = None
    disk = os.path.join(DATA, "disk.raw")
    if made["ext4"] and not os.path.exists(disk):
        gpt(made["ext4"], disk)
        sh(f"qemu-img convert -f raw -O qcow2 {disk} {DATA}/disk.qcow2")
        sh(f"cargo run --quiet --release --package adit-testkit --example make-vmfs -- 6 guest={disk} {DATA}/lun.img")
    open(os.path.join(DATA, ".complete"), "w").close()
    return made


def gpt(content, path):
    """A disk with a GPT and one partition."""
    start, size = 2048, os.path.getsize(content) // 512
    total = start + size + 2048
    kind = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
    entry = kind + uuid.UUID(int=5).bytes_le + struct.pack("<QQQ", start, start + size - 1, 0) + "root".encode("utf-16-le").ljust(72, b"\0")
    table = entry.ljust(128 * 128, b"\0")

    def header(own, other, at):
        def fields(crc):
            return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, own, other, 34, total - 34,
                               uuid.UUID(int=9).bytes_le, at, 128, 128, zlib.crc32(table))
        return fields(zlib.crc32(fields(0))).ljust(512, b"\0")

    mbr = bytearray(512)
    mbr[446:462] = struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0xee, 255, 255, 255, 1, total - 1)
    mbr[510:512] = b"\x55\xaa"
    sh(f"truncate -s {total * 512} {path} && dd if={content} of={path} bs=1M seek=1 conv=notrunc,sparse status=none")
    with open(path, "r+b") as out:
        out.write(bytes(mbr) + header(1, total - 1, 2) + table)
        out.seek((total - 33) * 512)
        out.write(table + header(total - 1, 1, total - 33))


def timed_case(title, *arguments, **more):
    if ONLY in title:
        case(title, *arguments, **more)


def peer(program, command):
    """A peer's command, if the peer is there."""
    if not shutil.which(program):
        print(f"  {program} is not installed")
        return None
    return command


def extraction(made):
    fresh = f"rm -rf {OUT}; mkdir {OUT}"
    for name, image in made.items():
        title = f"extract everything from {name}"
        if not image or ONLY not in title:
            continue
        sh(fresh)
        # adit makes the folder itself.
        sh(f"rmdir {OUT}; {ADIT} cp -q -r {image}// {OUT}")
        sh(f"rm -rf {OUT}/lost+found '{OUT}/$Extend'; diff -r --no-dereference {TREE} {OUT}")
        kind = {"ext4": "ext", "ntfs": "ntfs"}.get(name)
        peers = {}
        if kind:
            peers["tsk_recover"] = peer("tsk_recover", f"tsk_recover -a -f {kind} {image} {OUT}")
        if name != "ntfs" and os.geteuid() == 0:
            flags = "loop,ro,norecovery" if name == "xfs" else "loop,ro"
            peers["kernel cp -r"] = f"mount -o {flags} {image} {MNT} && cp -r {MNT}/. {OUT}; r=$?; umount {MNT}; exit $r"
        goal = {"ext4": ">= 1.7x tsk_recover", "ntfs": ">= 2x tsk_recover", "xfs": ">= 4x the kernel's cp -r"}[name]
        timed_case(title, f"{ADIT} cp -q -r {image}// {OUT}", peers, goal, before=fresh, memory=False)
        sh(f"rm -rf {OUT}")


def listing(made):
    for name, image in made.items():
        title = f"list {name} with all attributes"
        if not image or ONLY not in title:
            continue
        names = set(sh(f"{ADIT} find {image}// --type f").decode().splitlines())
        expected = sh(f"cd {TREE}; find . -type f").decode().splitlines()
        missing = [path for path in expected if f"{image}//{path[2:]}" not in names]
        if missing:
            sys.exit(f"{name}: {len(missing)} files are not listed, for example {missing[0]}")
        kind = {"ext4": "ext", "ntfs": "ntfs"}.get(name)
        fls = peer("fls", f"fls -r -l -f {kind} {image} > /dev/null") if kind else None
        timed_case(title, f"{ADIT} ls -lR {image}// > /dev/null", {"fls": fls}, ">= 2x fls", memory=False)


def mounted(made):
    image = made["ext4"]
    if not image or not os.path.exists("/dev/fuse"):
        return
    os.makedirs(MNT, exist_ok=True)

    def under(mount, unmount, work):
        return f"{mount} && {{ {work}; }}; r=$?; {unmount}; exit $r"

    ours = (f"{ADIT} mount {image}// {MNT}", f"{ADIT} umount {MNT}")
    theirs = (f"fuse2fs -o ro {image} {MNT} > /dev/null", f"fusermount -u {MNT} || umount {MNT}")
    has = peer("fuse2fs", "yes")
    for title, work in (("stat every file through a mount", f"python3 -c '{WALK}' {MNT}"),
                        ("read every byte through a mount", f"tar -cf - -C {MNT} . | cat > /dev/null")):
        timed_case(title, under(*ours, work), {"fuse2fs": has and under(*theirs, work)}, ">= 3x fuse2fs", memory=False)


def single(made):
    image, disk = made["ext4"], os.path.join(DATA, "disk.qcow2")
    if not image:
        return
    large = os.path.join(TREE, "large1.bin")
    same("large1.bin", f"{ADIT} cat {image}//large1.bin", f"cat {large}")
    for sink in ("> /dev/null", "| cat > /dev/null"):
        timed_case(f"read a file of {LARGE} MiB {sink}", f"{ADIT} cat {image}//large1.bin {sink}", {"cat of the raw bytes": f"cat {large} {sink}"},
                   ">= 0.8x the raw read", memory=False)
    one = f"mod{FILES // 9000:02}/dir07/" + sorted(os.listdir(os.path.join(TREE, f"mod{FILES // 9000:02}/dir07")))[5]
    dissect = ("import sys; from dissect.extfs import ExtFS; from dissect.hypervisor.disk.qcow2 import QCow2; from dissect.volume.disk import Disk; "
               "d = QCow2(open(sys.argv[1], 'rb')); d = d.open() if hasattr(d, 'open') else d; "
               "sys.stdout.buffer.write(ExtFS(Disk(d).partitions[0].open()).get(sys.argv[2]).open().read())")
    python = sys.executable
    if subprocess.run([python, "-c", "import dissect.extfs, dissect.hypervisor, dissect.volume"], capture_output=True).returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", "dissect.extfs", "dissect.hypervisor", "dissect.volume"], check=False)
    same(one, f"{ADIT} cat {disk}//p1//{one}", f"cat {TREE}/{one}")
    theirs = f'{python} -c "{dissect}" {disk} {one}'
    if subprocess.run(f"{theirs} | cmp - {TREE}/{one}", shell=True, capture_output=True).returncode:
        print("  dissect cannot read the disk")
        theirs = None
    timed_case("one small file out of a partitioned qcow2", f"{ADIT} cat {disk}//p1//{one}", {"dissect": theirs}, "<= 15 ms")
    lun = os.path.join(DATA, "lun.img")
    timed_case("first listing through LUN, VMFS, VMDK, GPT, ext4", f"{ADIT} ls -l {lun}//web01/web01.vmdk//p1//mod00/dir01", {}, "<= 50 ms, <= 40 MiB")


def main():
    print(f"{sh(ADIT + ' --version').decode().strip()}; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {ROUNDS} rounds; "
          f"{FILES} small files, four of {LARGE} MiB")
    made = images()
    os.makedirs(MNT, exist_ok=True)
    extraction(made)
    listing(made)
    mounted(made)
    single(made)
    if "--json" in sys.argv:
        print(json.dumps(RESULTS, indent=1))


try:
    main()
finally:
    subprocess.run(f"umount {MNT} 2> /dev/null", shell=True)
    shutil.rmtree(SCRATCH, ignore_errors=True)
    shutil.rmtree(OUT, ignore_errors=True)
