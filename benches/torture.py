"""A tree that is hard to read: what `fill` makes depends on what the file system can hold."""
import ctypes
import fcntl
import os
import random
import socket
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
UNIX = {"links", "symlinks", "devices", "owners", "xattrs", "acls", "sparse", "allocate", "odd-bytes", "times"}


def acl(entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xffffffff
SMALL_ACL = acl([(1, 7, NOBODY), (2, 5, 1000), (2, 4, 1001), (4, 5, NOBODY), (8, 1, 2000), (16, 7, NOBODY), (32, 0, NOBODY)])
LARGE_ACL = acl([(1, 7, NOBODY)] + [(2, 5, 1000 + n) for n in range(100)] + [(4, 5, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY)])


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def allocate(descriptor, mode, offset, length):
    return LIBC.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)) == 0


def tried(*calls):
    """What a file system refuses is not in the tree; the rest is."""
    for call in calls:
        try:
            call()
        except OSError:
            pass


def fill(root, can, many, sparse_bytes=1 << 40, seed=7, depth=60, longest=4000, earliest=-1 << 31, latest=1 << 34):
    """Fills `root`. `many`: files of the large folder; `can`: what the file system can hold."""
    r = random.Random(seed)
    here = os.getcwd()
    os.chdir(root)
    try:
        names(can)
        deep(depth)
        folders(many)
        sizes(r)
        if "sparse" in can:
            sparse(r, sparse_bytes)
        fragments(r)
        if "allocate" in can:
            allocated(r)
        if "symlinks" in can:
            links(longest)
        if "links" in can:
            hard_links()
        if "devices" in can:
            devices()
        if "xattrs" in can:
            attributes(r)
        if "acls" in can:
            lists()
        if "times" in can:
            times(earliest, latest)
        if "owners" in can:
            owners()
        if "clones" in can:
            clones(r)
        if "streams" in can:
            write("streams", b"the data")
            tried(lambda: os.setxattr("streams", "user.second", b"another stream"))
    finally:
        os.chdir(here)


def names(can):
    os.mkdir("names")
    hard = [b"a", b"sp ace", "caf\u00e9".encode(), "cafe\u0301".encode(), "\u65e5\u672c\u8a9e".encode(),
            "\U0001f4be".encode(), b"x" * 255, b"-dash", b"...hidden", b"UPPER", b"mixed.Case.Name.txt",
            "\u00df\u0130\u0131".encode(), b"~1", b"a" * 8 + b".bcd", b"longer than 8.and 3"]
    if "odd-bytes" in can:
        hard += [b"\xff\xfe", b"new\nline", b"back\\slash", b"*", b"q?", b'"', b"trailing.", b"trailing ", b"a:b",
                 b"\x01\x7f", b"caf\xe9"]
    for name in hard:
        tried(lambda: write(b"names/" + name, name))


def deep(levels):
    here = os.getcwd()
    os.mkdir("deep")
    os.chdir("deep")
    for level in range(levels):
        name = "d" * 30 + str(level)
        os.mkdir(name)
        os.chdir(name)
    write("bottom", b"bottom")
    os.chdir(here)


def folders(many):
    for count in (1, 3, 8, 20, 60, 200, 1500):
        os.mkdir(f"dir{count}")
        for n in range(count):
            write(f"dir{count}/file-{n}-{'n' * (n % 40)}", b"%d" % n)
        for n in range(0, count, 3):
            os.unlink(f"dir{count}/file-{n}-{'n' * (n % 40)}")
    os.mkdir("many")
    for n in range(many):
        write(f"many/f{n:06}", b"" if n % 10 else b"x" * (n % 3000))
    os.mkdir("emptied")
    for n in range(2000):
        write(f"emptied/name-{n}-abcdefghijkl", b"")
    for n in range(2000):
        if n not in (5, 1000, 1999):
            os.unlink(f"emptied/name-{n}-abcdefghijkl")


def sizes(r):
    os.mkdir("sizes")
    for size in (0, 1, 59, 60, 61, 100, 159, 160, 161, 300, 400, 511, 512, 513, 1000, 1024, 2000, 4095, 4096, 4097,
                 65535, 65536, 65537, 100000, 1 << 20, (5 << 20) + 3):
        write(f"sizes/random{size}", r.randbytes(size))
        write(f"sizes/text{size}", (b"all work and no play makes it compress well. " * (size // 40 + 1))[:size])
        write(f"sizes/zeros{size}", bytes(size))
    mixed = b"".join(r.choice([r.randbytes(4096), bytes(4096), b"again" * 800 + b"....."[:96]]) for _ in range(300))
    write("sizes/mixed", mixed)


def sparse(r, sparse_bytes):
    with open("sparse", "wb") as file:
        tried(lambda: file.truncate(sparse_bytes))
        for offset in (0, 1 << 20, 123456789, 1 << 32, 1 << 35, sparse_bytes - 10):
            if offset < sparse_bytes:
                tried(lambda: (file.seek(offset), file.write(b"DATA%d" % offset), file.flush()))
    with open("islands", "wb") as file:
        for n in range(60):
            file.seek(n * 300 * 1024 + r.randrange(1000))
            file.write(r.randbytes(r.randrange(1, 9000)))


def fragments(r):
    both = [open(f"frag{n}", "wb") for n in range(2)]
    for n in range(400):
        for file in both:
            file.write(r.randbytes(4096))
            file.flush()
            if n % 40 == 0:
                os.fsync(file.fileno())
    for file in both:
        file.close()
    with open("comb", "wb") as file:
        for n in range(1200):
            file.seek(n * 16384)
            file.write(b"F%d" % n * 100)


def allocated(r):
    for name, mode in (("prealloc", 0), ("prealloc-beyond", 1)):
        with open(name, "w+b") as file:
            allocate(file.fileno(), mode, 0, 6 << 20)
            os.pwrite(file.fileno(), b"mid" * 2000, (1 << 20) if mode == 0 else 0)
    with open("zeroed", "w+b") as file:
        file.write(r.randbytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        allocate(file.fileno(), 16, 4096 * 10, 4096 * 20)
        allocate(file.fileno(), 3, 4096 * 100, 4096 * 9)
        allocate(file.fileno(), 8, 4096 * 150, 4096 * 4)
        allocate(file.fileno(), 32, 4096 * 150, 4096 * 4)


def links(longest):
    os.mkdir("symlinks")
    for length in (1, 10, 58, 59, 60, 61, 100, 200, 255, 300, 336, 337, 500, 1000, 1023, 4000):
        if length <= longest:
            target = (("t" * 48 + "/") * 90)[:length - 1] + "z"
            tried(lambda: os.symlink(target, f"symlinks/l{length}"))
    os.symlink("/etc/passwd", "symlinks/absolute")
    tried(lambda: os.symlink(b"caf\xe9/\xff", b"symlinks/odd"))


def hard_links():
    write("hard", b"hard")
    os.mkdir("hard-links")
    for n in range(20):
        os.link("hard", f"hard-links/h{n}")


def devices():
    os.mkfifo("fifo")
    os.mknod("char", 0o20666, os.makedev(5, 1))
    os.mknod("block", 0o60600, os.makedev(259, 70000))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")


def attributes(r):
    os.mkdir("xattrs")
    for n, (count, length) in enumerate([(1, 10), (1, 200), (5, 50), (30, 30), (1, 3000), (1, 30000), (20, 1500), (300, 80),
                                         (2, 65536)]):
        path = f"xattrs/x{n}"
        write(path, b"x")
        for key in range(count):
            tried(lambda: os.setxattr(path, f"user.attr{key}{'k' * (key % 100)}", r.randbytes(length)))
        tried(lambda: os.setxattr(path, f"trusted.t{n}", b"\0\1"), lambda: os.setxattr(path, "security.some", b"sec"))
    os.mkdir("xattrs/dir")
    tried(lambda: os.setxattr("xattrs/dir", "user.d", b"d" * 2000))
    os.symlink("q" * 60, "xattrs/link")
    tried(lambda: os.setxattr("xattrs/link", "trusted.l", b"1" * 200, follow_symlinks=False))
    write("xattrs/changed", b"")
    for n in range(50):
        tried(lambda: os.setxattr("xattrs/changed", f"user.c{n % 7}", r.randbytes(n * 20)))
        if n % 5 == 0:
            tried(lambda: os.removexattr("xattrs/changed", f"user.c{n % 7}"))


def lists():
    os.mkdir("acls")
    write("acls/file", b"f")
    tried(lambda: os.setxattr("acls/file", "system.posix_acl_access", SMALL_ACL))
    os.mkdir("acls/folder")
    tried(lambda: os.setxattr("acls/folder", "system.posix_acl_default", SMALL_ACL))
    os.mkdir("acls/folder/inherits")
    write("acls/folder/inherits-too", b"")
    write("acls/large", b"")
    tried(lambda: os.setxattr("acls/large", "system.posix_acl_access", LARGE_ACL))


def times(earliest, latest):
    for n, second in enumerate([0, 1, -1, -2**31, 2**31 - 1, 2**31, 2**32 + 5, 4_300_000_000, 9_000_000_000, 16_299_260_424]):
        if not earliest <= second <= latest:
            continue
        write(f"time{n}", b"")
        tried(lambda: os.utime(f"time{n}", ns=(second * 10**9 + 123456789, second * 10**9 + 987654321)))


def owners():
    write("owned", b"")
    os.chown("owned", 70000, 4000000000)
    for n, mode in enumerate((0o6755, 0, 0o1777, 0o2070)):
        write(f"mode{n}", b"")
        os.chmod(f"mode{n}", mode)


def clones(r):
    write("clone0", r.randbytes(2 << 20))
    for n in (1, 2):
        with open("clone0", "rb") as a, open(f"clone{n}", "w+b") as b:
            tried(lambda: fcntl.ioctl(b, 0x40049409, a.fileno()))
            for offset in range(0, 2 << 20, 300000 * n):
                os.pwrite(b.fileno(), b"CoW", offset)
