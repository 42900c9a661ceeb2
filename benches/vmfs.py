#!/usr/bin/env python3
"""adit beside its peers on real VMFS volumes, in one run: `cargo xtask bench`.

Every case runs all its commands in turn, round after round, so that a busy machine slows all of
them; times are from process start to exit, the best and the median of the rounds, ratios are of
medians. Output is compared byte for byte before anything is timed. Memory is the peak resident
set as GNU time reports it, where that is installed.

options: --rounds N, --json
"""
import json
import os
import shutil
import subprocess
import sys

import beside
from beside import ADIT, BIN, IMAGES, MEMORY, RESULTS, ROUNDS, SCRATCH, case, same, sh


def main():
    six, five = (os.path.join(IMAGES, f"vmfs_vmfs{v}.bin") for v in (6, 5))
    debug6, debug5 = shutil.which("debugvmfs6"), shutil.which("debugvmfs")
    python = sys.executable
    listing = ("import sys; from dissect.vmfs import lvm, vmfs; "
               "fs = vmfs.VMFS(lvm.LVM(open(sys.argv[1], 'rb')).volumes[0].open()); "
               "[(e.name, e.file_descriptor.size) for e in fs.root.iterdir()]")
    print(f"{sh(ADIT + ' --version').decode().strip()}; {os.cpu_count()} processors; {ROUNDS} rounds")

    case("first ls of the 2 GiB VMFS6 volume", f"{ADIT} ls -l {six}",
         {"debugvmfs6": debug6 and f"{debug6} {six} ls -l /", "dissect.vmfs": f'{python} -c "{listing}" {six}'},
         "<= 15 ms, <= 24 MiB")
    case("first ls of the 2 GiB VMFS5 volume", f"{ADIT} ls -l {five}",
         {"debugvmfs": debug5 and f"{debug5} {five} ls -l /", "dissect.vmfs": f'{python} -c "{listing}" {five}'},
         "<= 15 ms, <= 24 MiB")
    for version, image, peer in ((6, six, debug6), (5, five, debug5)):
        ours, theirs = f"{ADIT} cat {image}//bigger", peer and f"{peer} {image} cat /bigger"
        # debugvmfs6 prints a line of its own into the data, so only its tail can be compared.
        if peer:
            same("bigger", f"{ours} | tail -c 1M", f"{theirs} | tail -c 1M")
        for sink in ("> /dev/null", "| cat > /dev/null"):
            case(f"read 128 MiB of VMFS{version} {sink}", f"{ours} {sink}",
                 {os.path.basename(peer or "none"): theirs and f"{theirs} {sink}"}, ">= 1.0x debugvmfs", memory=False)
    part = "--offset {} --length 256M"
    first, far = part.format(0), part.format("41T")
    case("256 MiB at 41 TiB of a 42 TiB file, beside the first 256 MiB",
         f"{ADIT} cat {far} {six}//large-flat.vmdk > /dev/null",
         {"at the start": f"{ADIT} cat {first} {six}//large-flat.vmdk > /dev/null"}, "any offset as fast as the first",
         memory=False)

    raw, out = os.path.join(SCRATCH, "raw"), os.path.join(SCRATCH, "out")
    large = os.path.join(SCRATCH, "large.img")
    sh(f"cargo run --quiet --release --package adit-testkit --example make-vmfs -- 6 large {large}")
    sh(f"{ADIT} cat {large}//large.bin > {raw}")
    clean = f"rm -f {out}"
    for filesystem, target in (("disk", out), ("memory", os.path.join(MEMORY, "adit-bench-out"))):
        case(f"cp of an allocated 1 GiB file to {filesystem}, warm", f"{ADIT} cp -q {large}//large.bin {target}",
             {"cp": f"cp {raw} {target}"}, ">= 0.8x cp of the same bytes", before=f"rm -f {target}", memory=False)
        sh(f"{ADIT} cp -q --force {large}//large.bin {target}")
        same("large.bin", f"cat {target}", f"cat {raw}")
        sh(f"rm -f {target}")
    case("cp of the 69 GiB sparse file", f"{ADIT} cp -q {six}//normal-flat.vmdk {out}",
         {"truncate": f"truncate -s 69G {out}"}, "< 1 s", before=clean)
    # ext4 holds no file above 16 TiB, memory does.
    out = os.path.join(MEMORY, "adit-bench-out")
    clean = f"rm -f {out}"
    case("cp of the 42 TiB sparse file", f"{ADIT} cp -q {six}//large-flat.vmdk {out}",
         {"truncate": f"truncate -s 42T {out}"}, "< 1 s, <= 64 MiB", before=clean)
    sh(clean)
    case("map of the 42 TiB file", f"{ADIT} map {six}//large-flat.vmdk",
         {"stat": f"{ADIT} stat {six}//large-flat.vmdk"}, "<= 64 MiB")

    huge = [os.path.join(SCRATCH, f"huge-{i}.img") for i in range(5)]
    for version in (5, 6):
        sh(f"cargo run --quiet --release --package adit-testkit --example make-vmfs -- {version} huge {' '.join(huge)}")
        case(f"ls of a synthetic 64 TiB VMFS{version} volume of five devices", f"{ADIT} ls -l {huge[0]}",
             {}, "<= 200 ms")
    crowd = os.path.join(SCRATCH, "crowd.img")
    sh(f"cargo run --quiet --release --package adit-testkit --example make-vmfs -- 6 crowd {crowd}")
    case("one name of 100 000 in a VMFS6 folder", f"{ADIT} cat {crowd}//crowd/vm-099999.log",
         {"ls of all": f"{ADIT} ls {crowd}//crowd"}, "bounded reads")
    if "--json" in sys.argv:
        print(json.dumps(RESULTS, indent=1))


try:
    main()
finally:
    shutil.rmtree(SCRATCH, ignore_errors=True)
