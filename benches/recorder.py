"""A disk that remembers every write: one file, served through the kernel's FUSE protocol.

A loop device over the file writes as it would to a disk; what arrives here, in its order, is
appended to a log: writes, ranges that became zeros, and flushes. No library is needed, only
/dev/fuse and root. The protocol is that of the kernel's public header `linux/fuse.h`.
"""
import ctypes
import errno
import os
import struct

WRITE, ZERO, FLUSH, MARK = 1, 2, 3, 4
RECORD = struct.Struct("<BQQ")               # what, offset, length; a write's bytes follow
IN = struct.Struct("<IIQQIIII")              # fuse_in_header
OUT = struct.Struct("<IiQ")                  # fuse_out_header
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, DO_WRITE, STATFS, RELEASE, FSYNC = 1, 2, 3, 4, 14, 15, 16, 17, 18, 20
DO_FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, DESTROY, FALLOCATE = 25, 26, 27, 28, 29, 38, 43
PUNCH, ZERO_RANGE = 2, 16
MAX_WRITE = 1 << 20
DISK = 2                                     # the file's node; 1 is the folder


class Recorder:
    """Serves `image` as `FOLDER/disk` and logs to `log`; `serve` returns when it is unmounted."""

    def __init__(self, image, log, folder):
        self.image = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.image).st_size
        self.log = open(log, "ab", buffering=1 << 20)
        self.folder = folder
        self.fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.fuse},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"adit-recorder", folder.encode(), b"fuse.adit-recorder", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "the recorder cannot be mounted")

    def note(self, what, offset=0, length=0, data=b""):
        self.log.write(RECORD.pack(what, offset, length))
        self.log.write(data)

    def serve(self):
        while True:
            try:
                request = os.read(self.fuse, MAX_WRITE + 65536)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ENOENT):
                    break                        # unmounted
                if error.errno == errno.EINTR:
                    continue
                raise
            _, opcode, unique, node, *_ = IN.unpack_from(request)
            body = memoryview(request)[IN.size:]
            if opcode == FORGET:
                continue
            try:
                answer = self.answer(opcode, node, body)
                head = OUT.pack(OUT.size + len(answer), 0, unique)
            except OSError as error:
                answer, head = b"", OUT.pack(OUT.size, -(error.errno or errno.EIO), unique)
            os.write(self.fuse, head + answer)
            if opcode == DESTROY:
                break
        self.log.close()

    def attributes(self, node):
        size, mode, links = (self.size, 0o100600, 1) if node == DISK else (0, 0o40755, 2)
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)

    def answer(self, opcode, node, body):
        if opcode == INIT:
            major, minor = struct.unpack_from("<II", body)
            # FUSE_BIG_WRITES, and as many pages a request as MAX_WRITE needs.
            return struct.pack("<IIIIHHIIHHI28x", major, min(minor, 31), 1 << 20, 1 << 5 | 1 << 22, 16, 12,
                               MAX_WRITE, 1, MAX_WRITE // 4096, 0, 0)
        if opcode == LOOKUP:
            if bytes(body).rstrip(b"\0") != b"disk":
                raise OSError(errno.ENOENT, "")
            return struct.pack("<QQQQII", DISK, 0, 3600, 3600, 0, 0) + self.attributes(DISK)
        if opcode in (GETATTR, SETATTR):
            return struct.pack("<QII", 3600, 0, 0) + self.attributes(node)
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QII", 1, 0, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return os.pread(self.image, size, offset)
        if opcode == DO_WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            data = bytes(body[40:40 + size])
            os.pwrite(self.image, data, offset)
            self.note(WRITE, offset, size, data)
            return struct.pack("<II", size, 0)
        if opcode == FALLOCATE:
            _, offset, length, mode, _ = struct.unpack_from("<QQQII", body)
            if not mode & (PUNCH | ZERO_RANGE):
                raise OSError(errno.EOPNOTSUPP, "")
            zero(self.image, offset, length)
            self.note(ZERO, offset, length)
            return b""
        if opcode == FSYNC:
            self.note(FLUSH)
            return b""
        if opcode == STATFS:
            return struct.pack("<QQQQQIIII24x", 1 << 30, 1 << 30, 1 << 30, 1000, 1000, 4096, 255, 4096, 0)
        if opcode in (RELEASE, RELEASEDIR, DO_FLUSH, READDIR, DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "")


def zero(descriptor, offset, length):
    """Makes a range read as zeros."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(descriptor, PUNCH | 1, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "zeros")


def events(log):
    """What a log holds: (what, offset, length, position of a write's bytes), in order."""
    found = []
    with open(log, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at + RECORD.size <= size:
            file.seek(at)
            what, offset, length = RECORD.unpack(file.read(RECORD.size))
            at += RECORD.size
            if what == WRITE and at + length > size:
                break
            found.append((what, offset, length, at))
            if what == WRITE:
                at += length
    return found
