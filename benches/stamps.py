"""An NBD client that knows nothing but bytes, stamped blocks, and a server of ours to hurt."""
import json
import os
import socket
import struct
import subprocess
import threading
import time

BLOCK = 4096
READ, WRITE, FLUSH, TRIM, ZERO = 0, 1, 3, 4, 6
FUA = 1


class Gone(Exception):
    """The connection broke."""


def stamped(block, stamp):
    """What a block holds after the write of that stamp: itself, so that a misplaced one is found."""
    return struct.pack("<QQ", block, stamp) * (BLOCK // 16)


class Client:
    """One connection, one request at a time."""

    def __init__(self, path):
        self.lines = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.lines.settimeout(120)
        self.lines.connect(path)
        self.cookie = 0
        assert self.take(18)[:16] == b"NBDMAGICIHAVEOPT"
        # The old way in, by the empty name: no reply but size and flags.
        self.lines.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
        self.size, _ = struct.unpack(">QH", self.take(10))

    def take(self, length):
        parts = []
        while length:
            try:
                part = self.lines.recv(length)
            except (ConnectionError, socket.timeout) as why:
                raise Gone(why) from why
            if not part:
                raise Gone("the end")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def ask(self, command, at=0, length=0, data=b"", flags=0):
        self.cookie += 1
        try:
            self.lines.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, self.cookie, at, length) + data)
        except ConnectionError as why:
            raise Gone(why) from why
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698 and cookie == self.cookie
        if error:
            raise AssertionError(f"command {command} at {at:#x}+{length}: the server answered error {error}")
        return self.take(length) if command == READ else b""

    def read(self, at, length):
        return self.ask(READ, at, length)

    def write(self, at, data, flags=0):
        self.ask(WRITE, at, len(data), data, flags)

    def zero(self, at, length, flags=0):
        self.ask(ZERO, at, length, flags=flags)

    def flush(self):
        self.ask(FLUSH)


class Server:
    """A running `adit serve nbd` with an overlay that is kept."""

    def __init__(self, adit, folder, arguments):
        self.folder = folder
        self.socket, self.control = os.path.join(folder, "s"), os.path.join(folder, "c")
        command = [adit, "serve", "nbd", "--quiet", "--socket", "s", "--control", "c", *arguments]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE)
        begun = time.monotonic()
        while True:
            try:
                probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                probe.connect(self.socket)
                probe.close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise AssertionError(self.process.stderr.read().decode()) from None
                assert time.monotonic() - begun < 60, "the server does not listen"
                time.sleep(0.002)

    def tell(self, **request):
        """What the control socket answers; nothing once the server is gone."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lines:
                lines.settimeout(120)
                lines.connect(self.control)
                lines.sendall(json.dumps(request).encode() + b"\n")
                with lines.makefile("rb") as answers:
                    line = answers.readline()
            return json.loads(line) if line else None
        except OSError:
            return None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0, self.process.stderr.read()
        self.process.stderr.close()


class Ledger:
    """What each block may hold: its last durable write, and all that were asked for since."""

    def __init__(self, blocks):
        self.lock = threading.Lock()
        # Of each block: stamps, the durable one first; a negative one stands for zeros.
        self.maybe = [[1] for _ in range(blocks)]
        self.answered = {}
        self.stamp = 1

    def next(self, block, zeros):
        """Notes that a write is asked for."""
        with self.lock:
            self.stamp += 1
            stamp = -self.stamp if zeros else self.stamp
            self.maybe[block].append(stamp)
            return stamp

    def done(self, block, stamp, durable):
        """Notes that it was acknowledged."""
        with self.lock:
            if durable:
                self.settle({block: stamp})
            else:
                self.answered[block] = stamp

    def before_flush(self):
        with self.lock:
            return dict(self.answered)

    def flushed(self, answered):
        """Everything that was acknowledged before the flush was asked for is durable now."""
        with self.lock:
            self.settle(answered)

    def settle(self, answered):
        for block, stamp in answered.items():
            stamps = self.maybe[block]
            if stamp in stamps:
                del stamps[:stamps.index(stamp)]
            if self.answered.get(block) == stamp:
                del self.answered[block]

    def check(self, data, about):
        """Takes what is there for what is durable; anything that cannot be is a loss."""
        for block, stamps in enumerate(self.maybe):
            now = data[block * BLOCK:(block + 1) * BLOCK]
            for stamp in stamps:
                if now == (stamped(block, stamp) if stamp > 0 else bytes(BLOCK)):
                    self.maybe[block] = [stamp]
                    break
            else:
                found = struct.unpack("<QQ", now[:16])
                raise AssertionError(f"{about}: block {block} holds {found}, may hold {stamps}")
        self.answered = {}
