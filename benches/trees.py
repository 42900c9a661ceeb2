"""A tree as the kernel shows it and as adit shows it, in one form, so that they can be compared.

A tree is a dict: path (bytes, no leading slash, the root is b"") -> dict of facts. The content of
a file is the SHA-256 over its blocks of 64 KiB that are not all zeros, each with its offset, and
its size: 1 TiB of holes costs nothing.
"""
import contextlib
import errno
import hashlib
import json
import os
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
ADIT = os.environ.get("ADIT", os.path.join(TARGET, "release", "adit"))
os.environ["PATH"] += os.pathsep + "/usr/sbin" + os.pathsep + os.path.join(TARGET, "witness", "bin")
SCRATCH = tempfile.mkdtemp(prefix="adit-trees-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
BLOCK = 65536
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char-device",
         stat.S_IFBLK: "block-device", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}


def run(*command, check=True, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done


def need_root():
    if os.geteuid() != 0:
        sys.exit("the kernel is the judge: this must run as root, where loop devices can be mounted")


@contextlib.contextmanager
def mounted(image, kind, options=""):
    """The kernel's mount of an image; the mount point as bytes."""
    at = tempfile.mkdtemp(prefix="mnt-", dir=SCRATCH)
    options = ",".join(filter(None, ["loop", options]))
    try:
        run("mount", "-t", kind, "-o", options, image, at)
        try:
            yield os.fsencode(at)
        finally:
            run("umount", at)
    finally:
        os.rmdir(at)


class Content:
    """The hash of a content that is told in pieces."""

    def __init__(self):
        self.sum = hashlib.sha256()

    def block(self, offset, data):
        if data.count(0) != len(data):
            self.sum.update(struct.pack("<QI", offset, len(data)) + data)

    def finish(self, size):
        self.sum.update(struct.pack("<Q", size))
        return self.sum.hexdigest()


def content(file, size, ranges):
    """Hashes a file, of which only `ranges` (offset, length) can be other than zeros."""
    whole, done = Content(), 0
    for start, length in ranges:
        start, end = max(done, start // BLOCK * BLOCK), min(start + length, size)
        while start < end:
            file.seek(start)
            wanted = min(BLOCK, size - start)
            data = file.read(wanted)
            if len(data) != wanted:
                raise OSError(errno.EIO, f"{len(data)} bytes at {start} instead of {wanted}")
            whole.block(start, data)
            start += BLOCK
        done = max(done, start)
    return whole.finish(size)


def data_ranges(descriptor, size):
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at - start


def acl_text(raw):
    """A POSIX ACL of the kernel's xattr as sorted lines of text."""
    (version,) = struct.unpack_from("<I", raw)
    assert version == 2, version
    words = {1: "user:", 2: "user:", 4: "group:", 8: "group:", 16: "mask:", 32: "other:"}
    lines = []
    for tag, bits, who in struct.iter_unpack("<HHI", raw[4:]):
        name = who if tag in (2, 8) else ""
        rights = "".join(letter if bits & bit else "-" for letter, bit in zip("rwx", (4, 2, 1)))
        lines.append(f"{words[tag]}{name}:{rights}")
    return tuple(sorted(lines))


ACLS = {b"system.posix_acl_access": b"acl.access", b"system.posix_acl_default": b"acl.default"}


def kernel_xattrs(path):
    found = {}
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return found
        raise
    for name in map(os.fsencode, names):
        value = os.getxattr(path, name, follow_symlinks=False)
        if name in ACLS:
            found[ACLS[name]] = acl_text(value)
        elif name.startswith(b"trusted.SGI_ACL_"):
            continue                                # XFS shows root the raw form of ACLs as well
        else:
            found[name] = hashlib.sha256(value).hexdigest() if len(value) > 64 else value.hex()
    return found


def kernel(root, blocks=False):
    """The tree below a directory, as the kernel shows it."""
    tree = {}

    def visit(path, name):
        seen = os.lstat(path)
        kind = KINDS[stat.S_IFMT(seen.st_mode)]
        fact = {"kind": kind, "mode": seen.st_mode & 0o7777, "uid": seen.st_uid, "gid": seen.st_gid,
                "links": seen.st_nlink, "modified": seen.st_mtime_ns, "changed": seen.st_ctime_ns,
                "inode": seen.st_ino}
        if blocks:
            fact["allocated"] = seen.st_blocks * 512
        try:
            fact["xattrs"] = kernel_xattrs(path)
        except OSError as error:
            fact["xattrs"] = errno.errorcode.get(error.errno, "?")
        if kind == "file":
            fact["size"] = seen.st_size
            try:
                with open(path, "rb") as file:
                    fact["content"] = content(file, seen.st_size, data_ranges(file.fileno(), seen.st_size))
            except OSError as error:
                fact["content"] = f"error {errno.errorcode.get(error.errno, error)}"
        elif kind == "symlink":
            fact["target"] = os.readlink(path)
        elif kind.endswith("device"):
            fact["device"] = f"{os.major(seen.st_rdev)}:{os.minor(seen.st_rdev)}"
        tree[name] = fact
        if kind == "directory":
            for entry in os.listdir(path):
                visit(path + b"/" + entry, name + b"/" + entry if name else entry)

    sys.setrecursionlimit(20000)
    visit(root, b"")
    return tree


class AditFailed(Exception):
    """adit gave no tree."""


def as_bytes(line, key):
    return bytes.fromhex(line[key + "_hex"]) if key + "_hex" in line else line[key].encode()


def adit(image, blocks=False, options=()):
    """The tree of an image as adit shows it, and what it noted: `adit find` and `adit tar`."""
    done = run(ADIT, "find", "--json", *options, image, check=False, timeout=1200)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if not lines or done.returncode not in (0, 3):
        raise AditFailed(f"find: exit code {done.returncode}: {done.stderr.decode(errors='replace')[:400]}")
    notes, top = lines[0]["notes"], os.fsencode(lines[0]["path"])
    root = run(ADIT, "stat", "--json", *options, image, check=False)
    if root.returncode not in (0, 3):
        raise AditFailed(f"stat: exit code {root.returncode}: {root.stderr.decode(errors='replace')[:400]}")
    tree = {b"": node(json.loads(root.stdout)["files"][0], blocks)}
    for line in lines[1:]:
        tree[as_bytes(line, "path").removeprefix(top)] = node(line, blocks)
    failed = done.stderr.decode(errors="replace")
    packed(image, tree, options)
    return tree, notes, failed


def node(line, blocks):
    """A node of `--json` as facts."""
    kind = "file" if line["kind"] == "system" else line["kind"]
    fact = {"kind": kind, "mode": line["mode"], "uid": line["uid"], "gid": line["gid"], "links": line["links"],
            "modified": line["modified_ns"], "changed": line["changed_ns"], "inode": line["node"], "xattrs": {}}
    if blocks:
        fact["allocated"] = line["allocated_bytes"]
    if kind == "file":
        fact["size"] = line["size_bytes"]
    elif kind == "symlink":
        fact["target"] = as_bytes(line, "target") if "target" in line or "target_hex" in line else None
    return fact


def findings(image):
    """What `adit check` has to say against an image."""
    done = run(ADIT, "check", "--json", image, check=False, timeout=1200)
    try:
        checked = json.loads(done.stdout)["checked"]
    except (ValueError, KeyError):
        return [f"check: exit code {done.returncode}: {done.stderr.decode(errors='replace')[:300]}"]
    told = {}
    for part in checked:
        for note in part["findings"] + part["notes"]:
            if note["severity"] != "info":
                told[f"check: {note['code']}: {note['text']} ({note['place']})"] = None
    return list(told)


def packed(image, tree, options):
    """Adds what an archive tells: contents, attributes, devices."""
    archive = os.path.join(SCRATCH, f"tar-{os.getpid()}")
    done = run(ADIT, "tar", "--keep-going", "--force", "--json", "-o", archive, *options, image, check=False, timeout=1200)
    if done.returncode not in (0, 3):
        raise AditFailed(f"tar: exit code {done.returncode}: {done.stderr.decode(errors='replace')[:400]}")
    report = json.loads(done.stdout)
    kinds = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink",
             tarfile.CHRTYPE: "char-device", tarfile.BLKTYPE: "block-device", tarfile.FIFOTYPE: "fifo"}
    seen, first = set(), {}
    with tarfile.open(archive, "r:", encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            name = os.fsencode(member.name).removeprefix(b".").removeprefix(b"/")
            fact = tree.setdefault(name, {"kind": "only in the archive", "xattrs": {}})
            seen.add(name)
            if member.islnk():
                first[name] = os.fsencode(member.linkname).removeprefix(b"./")
                continue
            check_member(fact, member, kinds)
            if member.isreg():
                with tar.extractfile(member) as file:
                    ranges = member.sparse if member.sparse is not None else [(0, member.size)]
                    fact["content"] = content(file, member.size, ranges)
    for name, other in first.items():
        for key in ("content", "xattrs", "device"):
            if key in tree.get(other, {}):
                tree[name][key] = tree[other][key]
    for left in filter(lambda left: left["failed"], report["left_out"]):
        left_out(tree, left)
    os.remove(archive)


def left_out(tree, left):
    path = as_bytes(left, "path")
    for name, fact in tree.items():
        if name == path or path.endswith(b"/" + name) and fact["kind"] == "file" and "content" not in fact:
            fact["content"] = f"adit: {left['error']['what'] if left['error'] else 'left out'}"


def check_member(fact, member, kinds):
    """Takes over what a member tells; a fact that `find` told otherwise shows as such."""
    kind = "file" if member.isreg() else kinds.get(member.type, "?")
    pax = member.pax_headers
    told = pax.get("mtime", str(int(member.mtime)))
    whole, _, part = told.partition(".")
    nanos = int((part + "0" * 9)[:9] or 0)
    modified = int(whole) * 10**9 + (-nanos if told.startswith("-") else nanos)
    for key, value in (("kind", kind), ("mode", member.mode & 0o7777), ("uid", member.uid), ("gid", member.gid),
                       ("modified", modified)):
        unknown = key == "modified" and fact.get(key) is None
        if fact.get(key) != value and not unknown:
            fact[key] = f"find: {fact.get(key)}, tar: {value}"
    if kind.endswith("device"):
        fact["device"] = f"{member.devmajor}:{member.devminor}"
    for key, value in pax.items():
        key = key.encode("utf-8", "surrogateescape")
        raw = value.encode("utf-8", "surrogateescape")
        if key.startswith(b"SCHILY.xattr."):
            name = key[13:].replace(b"%3D", b"=").replace(b"%25", b"%")
            fact["xattrs"][name] = hashlib.sha256(raw).hexdigest() if len(raw) > 64 else raw.hex()
        elif key.startswith(b"SCHILY.acl."):
            lines = [line for line in raw.decode().replace(",", "\n").split("\n") if line]
            fact["xattrs"][key[7:]] = tuple(sorted(":".join(line.split(":")[:3]) for line in lines))


def differences(want, got, ignore=()):
    """What differs, a line each."""
    lines = []
    for name in sorted(want.keys() | got.keys()):
        shown = "/" + os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
        a, b = want.get(name), got.get(name)
        if a is None or b is None:
            lines.append(f"{shown[:120]}: {'not in the kernel tree' if a is None else 'not seen by adit'}")
            continue
        for key in sorted((a.keys() | b.keys()) - set(ignore)):
            if a.get(key) != b.get(key):
                if key == "xattrs" and a["kind"] == "socket":
                    continue                        # an archive has no sockets
                lines.append(f"{shown[:120]}: {key}: kernel {str(a.get(key))[:160]}, adit {str(b.get(key))[:160]}")
    return lines


def file_hash(path):
    """A hash of a sparse file: its data, where it stands, its size."""
    size = os.path.getsize(path)
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        for start, length in data_ranges(file.fileno(), size):
            file.seek(start)
            while length:
                data = file.read(min(length, 1 << 22))
                if data.count(0) != len(data):
                    whole.update(struct.pack("<Q", start) + data)
                start, length = start + len(data), length - len(data)
    whole.update(struct.pack("<Q", size))
    return whole.hexdigest()
