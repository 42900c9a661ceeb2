#!/usr/bin/env python3
"""Every file system adit reads, beside what its own driver shows of the same image.

usage: diffwalk.py [FS…] [--full] [--only LINE] [--keep DIR]

For each line of a matrix of mkfs options an image is made and filled with a torture tree
(torture.py), then walked twice: as the judge shows it, and as adit reads the image. Names, kinds,
modes, owners, links, sizes, times, attributes, ACLs, targets, devices and contents must be equal, and
`adit check` must find nothing.
Judges: the kernel for ext, XFS, btrfs and squashfs; ntfs-3g for NTFS; exfat-fuse for exFAT; 7-Zip and
mtools for FAT; what was packed, or 7-Zip, for ISO 9660. Exit code 1 on any difference. Needs root.

--full: 100 000 files in a folder instead of 3 000. FS: ext, xfs, btrfs, squashfs, ntfs, exfat, fat, iso9660.
"""
import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import sys
import tempfile
import time

import torture
import trees
from trees import run

FULL = "--full" in sys.argv
MANY = 100_000 if FULL else 3000
EXT = torture.UNIX
EXT_MATRIX = {
    "ext2-1k": "-t ext2 -b 1024",
    "ext2-4k": "-t ext2 -b 4096",
    "ext2-rev0": "-t ext2 -r 0 -b 1024",
    "ext3-1k": "-t ext3 -b 1024",
    "ext3-2k": "-t ext3 -b 2048",
    "ext4-1k": "-b 1024",
    "ext4-2k": "-b 2048",
    "ext4-4k": "-b 4096",
    "ext4-no-csum": "-O ^metadata_csum,^64bit",
    "ext4-gdt-csum": "-O ^metadata_csum,uninit_bg",
    "ext4-gdt-csum-64": "-O ^metadata_csum,64bit,uninit_bg",
    "ext4-meta-bg": "-O meta_bg,^resize_inode -b 1024",
    "ext4-meta-bg-4k": "-O meta_bg,^resize_inode -g 256 -b 4096",
    "ext4-bigalloc": "-O bigalloc -C 65536",
    "ext4-bigalloc-1k": "-O bigalloc -b 1024 -C 16384",
    "ext4-sparse-super2": "-O sparse_super2 -E num_backup_sb=2",
    "ext4-inline": "-O inline_data -I 256",
    "ext4-inline-1k": "-O inline_data -I 1024 -b 4096",
    "ext4-ea-inode": "-O ea_inode,large_dir",
    "ext4-ea-inode-1k": "-O ea_inode -b 1024",
    "ext4-no-index": "-O ^dir_index",
    "ext4-no-filetype": "-O ^filetype",
    "ext4-no-extents": "-O ^extents,^64bit",
    "ext4-no-flex-bg": "-O ^flex_bg",
    "ext4-inode-128": "-I 128",
    "ext4-quota": "-b 4096",
    "ext4-mmp": "-O mmp",
    "ext4-orphan-file": "-O orphan_file",
    "ext4-fast-commit": "-O fast_commit",
    "ext4-csum-seed": "-O metadata_csum_seed",
    "ext4-hash-tea": "-b 1024",
    "ext4-hash-legacy": "-b 1024",
    "ext4-stable-inodes": "-O stable_inodes,encrypt",
    "ext4-encrypted": "-O encrypt",
    "ext4-64k": "-b 65536",
}
XFS_MATRIX = {
    "xfs": "",
    "xfs-1k": "-b size=1024",
    "xfs-2k-n8k": "-b size=2048 -n size=8192",
    "xfs-n64k": "-n size=65536",
    "xfs-1k-n64k": "-b size=1024 -n size=65536 -i size=512",
    "xfs-n16k-i1k": "-n size=16384 -i size=1024",
    "xfs-i2k": "-i size=2048",
    "xfs-plain": "-m finobt=0,rmapbt=0,reflink=0,inobtcount=0,bigtime=0 -i sparse=0,nrext64=0",
    "xfs-all": "-m finobt=1,rmapbt=1,reflink=1,inobtcount=1,bigtime=1 -i sparse=1,nrext64=1",
    "xfs-sector-4k": "-s size=4096",
    "xfs-ag32": "-d agcount=32",
    "xfs-log-unit": "-l su=256k",
    "xfs-log-large": "-l size=200m",
    "xfs-stripe": "-d su=64k,sw=4 -i size=1024 -n size=8192",
    "xfs-8k": "-b size=8192 -m rmapbt=1",
    "xfs-16k": "-b size=16384",
}
BTRFS_MATRIX = {
    "btrfs": ("", ""),
    "btrfs-zlib": ("", "compress-force=zlib"),
    "btrfs-lzo": ("", "compress-force=lzo"),
    "btrfs-zstd": ("", "compress-force=zstd"),
    "btrfs-mixed": ("--mixed", ""),
    "btrfs-node-64k": ("-n 65536", ""),
    "btrfs-node-4k": ("-n 4096", ""),
    "btrfs-xxhash": ("--csum xxhash", ""),
    "btrfs-sha256": ("--csum sha256", ""),
    "btrfs-blake2": ("--csum blake2", ""),
    "btrfs-no-holes-off": ("-O ^no-holes", ""),
    "btrfs-dup": ("-m dup -d dup", ""),
    "btrfs-single": ("-m single -d single", "nodatasum,nodatacow"),
}
SQUASHFS_MATRIX = {
    **{f"squashfs-{comp}": f"-comp {comp}" for comp in ("gzip", "xz", "zstd", "lz4", "lzo")},
    "squashfs-lz4-hc": "-comp lz4 -Xhc",
    "squashfs-xz-x86": "-comp xz -Xbcj x86",
    "squashfs-xz-arm": "-comp xz -Xbcj arm,armthumb,ia64,powerpc,sparc -Xdict-size 50%",
    "squashfs-lzo-fast": "-comp lzo -Xalgorithm lzo1x_1",
    "squashfs-gzip-strategy": "-comp gzip -Xcompression-level 3 -Xwindow-size 9",
    "squashfs-plain": "-noI -noD -noF -noX",
    "squashfs-4k": "-b 4096",
    "squashfs-1m": "-b 1048576 -comp zstd",
    "squashfs-no-fragments": "-no-fragments",
    "squashfs-always-fragments": "-always-use-fragments -b 65536",
    "squashfs-tail": "-tailends -no-duplicates",
    "squashfs-no-xattrs": "-no-xattrs",
    "squashfs-export": "-no-exports -no-sparse",
    "squashfs-all-root": "-all-root -comp xz -b 32768",
}
NTFS_MATRIX = {
    "ntfs": ("", ""),
    "ntfs-512": ("-c 512", ""),
    "ntfs-1k": ("-c 1024", ""),
    "ntfs-2k": ("-c 2048", ""),
    "ntfs-8k": ("-c 8192", ""),
    "ntfs-64k": ("-c 65536", ""),
    "ntfs-128k": ("-c 131072", ""),
    "ntfs-sector-4k": ("-s 4096 -c 4096", ""),
    "ntfs-compressed": ("-C", "compression"),
    "ntfs-compressed-1k": ("-C -c 1024", "compression"),
}
EXFAT_MATRIX = {"exfat": "", "exfat-512": "-c 512", "exfat-4k": "-c 4K", "exfat-128k": "-c 128K", "exfat-1m": "-c 1M",
                "exfat-pack": "--pack-bitmap"}
FAT_MATRIX = {"fat12": "-F 12 -s 8", "fat12-4": "-F 12 -s 8 -f 1", "fat16": "-F 16", "fat16-s1": "-F 16 -s 8 -r 1024", "fat32": "-F 32",
              "fat32-s2": "-F 32 -s 2", "fat32-s8": "-F 32 -s 8", "fat32-sector-4k": "-F 32 -S 4096",
              "fat32-mbr": "-F 32 --mbr=y -R 64", "fat16-sector-2k": "-F 16 -S 2048"}
ISO_MATRIX = {
    "iso-rock": ("xorriso -as mkisofs -R", "unix"),
    "iso-rock-joliet": ("xorriso -as mkisofs -R -J -joliet-long", "unix"),
    "iso-rock-genisoimage": ("genisoimage -quiet -R -hide-rr-moved", "unix"),
    "iso-rock-level3": ("xorriso -as mkisofs -R -iso-level 3 -full-iso9660-filenames", "unix"),
    "iso-1999": ("xorriso -as mkisofs -R -iso-level 4", "unix"),
    "iso-zisofs": ("xorriso", "unix"),
    "iso-hard-links": ("xorriso -hardlinks on -as mkisofs -R", "unix"),
    "iso-joliet": ("genisoimage -quiet -J -joliet-long -D", "names"),
}


def option(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def sized(image, size):
    with contextlib.suppress(FileNotFoundError):
        os.remove(image)
    run("truncate", "-s", size, image)


# --- judges: each gives (tree, keys that are not compared, options of adit) ---

def kernel_case(kind, image, mkfs, size, can, options="", blocks=True, judge="ro", ignore=(), tune=None, many=MANY, **fill):
    sized(image, size)
    run(*mkfs.split(), image)
    if tune and "quota" not in tune:
        run("tune2fs", *tune.split(), image)
    with trees.mounted(image, kind, options) as at:
        torture.fill(at, can, many, **fill)
    if tune and "quota" in tune:                    # not every kernel writes with quotas
        run("tune2fs", *tune.split(), image)
    with trees.mounted(image, kind, judge) as at:
        return trees.kernel(at, blocks), ignore


def ext(name, options, image):
    small = {"sparse_bytes": 1 << 40}
    if "1k" in name or "2k" in name or name.startswith(("ext2", "ext3")) or "no-extents" in name:
        small = {"sparse_bytes": 15 << 30}
    kind = options.split()[1] if options.startswith("-t") else "ext4"
    mkfs = f"mke2fs -q -F {options if options.startswith('-t') else '-t ext4 ' + options}"
    mkfs += " -N 150000" if FULL else ""
    if name == "ext4-64k":
        return unmountable_64k(image, mkfs)
    if name == "ext4-encrypted":
        return encrypted(image, mkfs)
    # The kernel counts data inside an inode as 512 bytes; it takes no space.
    ignore = ("allocated",) if "inline" in name else ()
    tune = f"-E hash_alg={name.rpartition('-')[2]}" if "hash" in name else None
    tune = "-O quota,project -Q usrquota,grpquota,prjquota" if "quota" in name else tune
    return kernel_case(kind, image, mkfs, "1G" if FULL else "400M", EXT, ignore=ignore, tune=tune, **small)


def unmountable_64k(image, mkfs):
    """This machine's pages are smaller: debugfs fills the image, and its source is the judge."""
    source = tempfile.mkdtemp(dir=trees.SCRATCH)
    os.chmod(source, 0o755)
    torture.fill(source.encode(), torture.UNIX - {"allocate", "xattrs", "acls"}, 500, sparse_bytes=1 << 30, depth=20)
    sized(image, "600M")
    run(*mkfs.split(), "-d", source, image)
    tree = trees.kernel(source.encode())
    shutil.rmtree(source)
    # mke2fs copies access times and no more than seconds of the others; a socket is a file to it.
    for fact in tree.values():
        fact["xattrs"] = {key: value for key, value in fact["xattrs"].items()}
    tree[b"lost+found"] = None
    return tree, ("changed", "inode", "modified", "links")


class Key(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("identifier", ctypes.c_uint8 * 32),
                ("raw_size", ctypes.c_uint32), ("key_id", ctypes.c_uint32), ("reserved2", ctypes.c_uint32 * 7),
                ("flags", ctypes.c_uint32), ("raw", ctypes.c_uint8 * 64)]


def encrypted(image, mkfs):
    """fscrypt: without the key the kernel shows other names than adit, so nodes stand for names."""
    sized(image, "200M")
    run(*mkfs.split(), image)
    with trees.mounted(image, "ext4") as at:
        key = Key(type=2, raw_size=64)
        for n in range(64):
            key.raw[n] = n
        root = os.open(at, os.O_RDONLY)
        os.mkdir(at + b"/secret")
        try:
            fcntl.ioctl(root, 0xc0506617 & 0xffffffff, key)
            policy = bytearray(struct.pack("<BBBB4x", 2, 1, 4, 3) + bytes(key.identifier)[:16])
            folder = os.open(at + b"/secret", os.O_RDONLY)
            fcntl.ioctl(folder, 0x800c6613, policy)
            os.close(folder)
        finally:
            os.close(root)
        torture.fill(at + b"/secret", torture.UNIX - {"sparse"}, 300, depth=5)
        torture.write(at + b"/open", b"readable")
    with trees.mounted(image, "ext4", "ro") as at:
        want = trees.kernel(at)
    # What cannot be read is in no archive, nor are its attributes.
    return by_node(want), ("target", "xattrs")


def by_node(tree):
    """Names below `secret` become numbers of nodes; what cannot be read is the same everywhere."""
    out = {}
    for name, fact in tree.items():
        # That names are encrypted, adit says of each folder.
        fact = {key: value for key, value in fact.items() if key != "content" or fact["kind"] == "file"}
        if name.startswith(b"secret/"):
            parent = tree[name.rpartition(b"/")[0]]["inode"]
            name = b"in %d: %d" % (parent, fact["inode"])
            if fact["kind"] == "file":
                told = str(fact.get("content", ""))
                unread = told.startswith(("error ENOKEY", "adit: ")) or fact["size"] == 0
                fact = {**fact, "content": "unread" if unread else told}
            if name in out:
                name += b", again"
        out[name] = fact
    return out


def xfs(name, options, image):
    size = "3G"
    return kernel_case("xfs", image, f"mkfs.xfs -q -f {options}", size, EXT | {"clones"}, "noatime",
                       judge="ro,norecovery", sparse_bytes=1 << 40)


def btrfs(name, options, image):
    mkfs, mount = options
    return kernel_case("btrfs", image, f"mkfs.btrfs -q -f {mkfs}", "1500M", EXT | {"clones"}, mount, blocks=False,
                       ignore=("inode",))           # adit puts the subvolume into the number


def squashfs(name, options, image):
    source = tempfile.mkdtemp(dir=trees.SCRATCH)
    holder = f"{image}-source"
    sized(holder, "600M")
    run("mkfs.ext4", "-q", "-F", "-O", "ea_inode", holder)
    with trees.mounted(holder, "ext4", "") as at:
        torture.fill(at, torture.UNIX, MANY, sparse_bytes=1 << 30)
        with contextlib.suppress(FileNotFoundError):
            os.remove(image)
        run("mksquashfs", at, image, "-quiet", "-no-progress", *options.split())
    os.remove(holder)
    os.rmdir(source)
    with trees.mounted(image, "squashfs", "ro") as at:
        # It has no time of change; adit numbers nodes by their place, so that each can be found.
        return trees.kernel(at), ("changed", "inode")


@contextlib.contextmanager
def fuse(command, image, options):
    """A FUSE driver's mount, through a loop device."""
    at = tempfile.mkdtemp(prefix="mnt-", dir=trees.SCRATCH)
    loop = run("losetup", "--show", "-f", image).stdout.decode().strip()
    try:
        run(command, "-o", options, loop, at)
        try:
            yield os.fsencode(at)
        finally:
            for _ in range(20):
                if run("umount", at, check=False).returncode == 0:
                    break
                time.sleep(0.2)
    finally:
        for _ in range(50):
            if run("losetup", "-d", loop, check=False).returncode == 0 and loop not in run("losetup", "-a").stdout.decode():
                break
            time.sleep(0.1)
        os.rmdir(at)


def ntfs(name, options, image):
    mkfs, mount = options
    sized(image, "600M")
    run("mkntfs", "-q", "-F", "-Q", *[word for word in mkfs.split()], image)
    usual = "streams_interface=xattr,compression" if mount else "streams_interface=xattr"
    can = {"links", "symlinks", "sparse", "streams", "times"}
    with fuse("ntfs-3g", image, usual) as at:
        # ntfs-3g rounds moments before 1970 towards it and drops their fraction.
        torture.fill(at, can, MANY if FULL else 1500, sparse_bytes=1 << 30, depth=20, earliest=0)
    with fuse("ntfs-3g", image, "ro,streams_interface=xattr") as at:
        want = trees.kernel(at)
    # Windows has no such owners and modes; what ntfs-3g makes up is not on the disk.
    return want, ("mode", "uid", "gid", "changed", "inode")


def exfat(name, options, image):
    sized(image, "4G")
    run("mkfs.exfat", *options.split(), image)
    with fuse("mount.exfat-fuse", image, "rw") as at:
        # To exfat-fuse 2100 is a leap year.
        torture.fill(at, {"times"}, 1000, depth=6, latest=4_000_000_000)
    with fuse("mount.exfat-fuse", image, "ro") as at:
        tree = trees.kernel(at)
    tree[b""]["modified"] = None                    # the root directory has no times
    return tree, ("mode", "uid", "gid", "changed", "inode", "links", "xattrs")


def fat(name, options, image):
    source = tempfile.mkdtemp(dir=trees.SCRATCH).encode()
    fat12 = name.startswith("fat12")
    torture.fill(source, set(), 20 if fat12 else 800, depth=4)
    if fat12:
        for folder in (b"/dir1500", b"/emptied", b"/dir200"):
            shutil.rmtree(source + folder)
        for big in (b"/comb", b"/frag0", b"/frag1", b"/sizes"):
            shutil.rmtree(source + big) if os.path.isdir(source + big) else os.remove(source + big)
    os.remove(source + b"/comb") if not fat12 else None
    sized(image, "14M" if fat12 else "130M" if name.startswith("fat16") else "600M")
    run("mkfs.fat", *options.split(), image)
    for entry in sorted(os.listdir(source)):
        run("mcopy", "-s", "-m", "-Q", "-i", image, source + b"/" + entry, "::")
    shutil.rmtree(source)
    return {oem(name): fact for name, fact in seven(image).items()}, (
        "mode", "uid", "gid", "changed", "inode", "links", "xattrs", "modified")


def oem(name):
    """7-Zip hands on short names as they are stored: in code page 437, here with the flag for lower case."""
    try:
        name.decode()
        return name
    except UnicodeDecodeError:
        return name.decode("cp437").lower().encode()


def seven(image):
    """What 7-Zip takes out of an image."""
    out = tempfile.mkdtemp(dir=trees.SCRATCH)
    run("7z", "x", "-y", f"-o{out}", image, env={**os.environ, "LC_ALL": "C.UTF-8"})
    tree = trees.kernel(out.encode())
    shutil.rmtree(out)
    return tree


def iso9660(name, options, image):
    maker, how = options
    source = tempfile.mkdtemp(dir=trees.SCRATCH).encode()
    can = {"symlinks", "devices", "owners", "odd-bytes", "times", "links"} if how == "unix" else set()
    torture.fill(source, can, 800, depth=30 if how == "unix" else 4, earliest=0,
                 latest=2_000_000_000 if "genisoimage" in maker else 4_400_000_000,
                 # genisoimage writes longer links and later moments wrongly, as isoinfo shows too.
                 longest=200 if "genisoimage" in maker else 1023)
    with contextlib.suppress(FileNotFoundError):
        os.remove(image)
    if how == "names":                              # no letters beyond 16 bits in Joliet
        os.remove(source + "/names/\U0001f4be".encode())
    if "zisofs" in name:
        run("xorriso", "-outdev", f"stdio:{image}", "-map", os.fsdecode(source), "/", "-zisofs", "level=9:by_magic=off",
            "-set_filter_r", "--zisofs", "/", "--")
    else:
        run(*maker.split(), "-o", image, os.fsdecode(source))
    if how == "names":
        want = seven(image)
    else:
        want = trees.kernel(source)                 # xorriso takes out no devices and no times of links
        for fact in want.values():
            fact["modified"] = fact["modified"] // 10**9 * 10**9
    shutil.rmtree(source)
    ignore = ["changed", "inode", "xattrs", "links"] + ([] if how == "unix" else ["mode", "uid", "gid", "modified"])
    return want, tuple(ignore)


SYSTEMS = {"ext": (EXT_MATRIX, ext), "xfs": (XFS_MATRIX, xfs), "btrfs": (BTRFS_MATRIX, btrfs),
           "squashfs": (SQUASHFS_MATRIX, squashfs), "ntfs": (NTFS_MATRIX, ntfs), "exfat": (EXFAT_MATRIX, exfat),
           "fat": (FAT_MATRIX, fat), "iso9660": (ISO_MATRIX, iso9660)}


NEEDED = {"ext": {"mke2fs": "e2fsprogs"}, "xfs": {"mkfs.xfs": "xfsprogs"}, "btrfs": {"mkfs.btrfs": "btrfs-progs"},
          "squashfs": {"mksquashfs": "squashfs-tools", "mkfs.ext4": "e2fsprogs"},
          "ntfs": {"mkntfs": "ntfs-3g"}, "exfat": {"mkfs.exfat": "exfatprogs", "mount.exfat-fuse": "exfat-fuse"},
          "fat": {"mkfs.fat": "dosfstools", "mcopy": "mtools", "7z": "p7zip-full"},
          "iso9660": {"xorriso": "xorriso", "genisoimage": "genisoimage", "7z": "p7zip-full"}}


def skip(got, name):
    """What adit shows that a judge keeps to itself."""
    if name.startswith("ntfs"):
        for fact in got.values():                   # ntfs-3g leaves out that it is a stream
            streams = fact["xattrs"].items()
            fact["xattrs"] = {key.replace(b"user.stream.", b"user."): value for key, value in streams}
        return {path: fact for path, fact in got.items() if not path.startswith(b"$")}
    return got


def line(system, name, keep):
    matrix, make = SYSTEMS[system]
    image = os.path.join(trees.SCRATCH, f"{name}.img")
    start = time.monotonic()
    try:
        want, ignore = make(name, matrix[name], image)
    except RuntimeError as error:
        return "not made", [str(error)], 0, time.monotonic() - start
    try:
        got, notes, failed = trees.adit(image, blocks=any("allocated" in (fact or {}) for fact in want.values()))
    except trees.AditFailed as error:
        got, notes, failed = {}, [], str(error)
    if name == "ext4-encrypted":
        got = by_node(got)
    got = skip(got, name)
    known = {path for path, fact in want.items() if fact is None} | {b".rr_moved"}
    want = {path: fact for path, fact in want.items() if fact is not None}
    got = {path: fact for path, fact in got.items() if path not in known}
    different = trees.differences(want, got, ignore)
    different += [f"note: {note['code']}: {note['text']}" for note in notes if note["severity"] != "info"] if different else []
    if different and failed:
        different.append(f"adit said: {failed[:400]}")
    different += trees.findings(image)
    if different and keep:
        run("cp", "--sparse=always", image, f"{keep}/{name}.img")
    os.remove(image)
    return ("different" if different else "equal"), different, len(want), time.monotonic() - start


def main():
    trees.need_root()
    only, keep = option("--only"), option("--keep")
    words = [word for word in sys.argv[1:] if not word.startswith("--") and word not in (only, keep)]
    for word in words:
        if word not in SYSTEMS:
            sys.exit(f"no file system {word}; there are {', '.join(SYSTEMS)}")
    good, counts = True, {}
    for system in words or SYSTEMS:
        missing = {package for tool, package in NEEDED[system].items() if not shutil.which(tool)}
        if missing:
            sys.exit(f"{system}: install Debian's {' '.join(sorted(missing))} first")
    try:
        for system in words or SYSTEMS:
            for name in SYSTEMS[system][0]:
                if only and only != name:
                    continue
                verdict, different, nodes, took = line(system, name, keep)
                counts[verdict] = counts.get(verdict, 0) + 1
                good &= verdict == "equal"
                print(f"{name:24} {nodes:7} nodes  {took:6.1f} s  {verdict}", flush=True)
                for text in different[:12]:
                    print(f"    {text}")
                if len(different) > 12:
                    print(f"    and {len(different) - 12} more")
    finally:
        shutil.rmtree(trees.SCRATCH, ignore_errors=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
