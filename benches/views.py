#!/usr/bin/env python3
"""Every view of a folder of images against its manifest: `cargo xtask bench views FOLDER`.

For each view the archive is unpacked, the image is converted to raw by `adit convert`, and the
content compared with the hash the manifest states, or the outcome with the refusal it expects.
Time and peak memory of every conversion are measured; views that are attacks must end within a
second and 64 MiB. With strace, files opened outside the image's own folder are counted as well.

options: --only ID (part of it; repeatable), --adit PROGRAM, --json, --no-strace
"""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

SECONDS_MAX = 1.0
MEMORY_MIB_MAX = 64.0
TIMEOUT = 600
WHOLE_HASH_MAX = 8 << 30
CHUNK = 65536
BLOCK = 1 << 20

# Views whose stated hash is believed wrong or is one of two answers, with the reason. They are
# still compared, and a difference is printed as what it is.
DEVIATIONS = {
    "ms-vhd-diff": "the stated hash is libvhdi's alone, and has zeros in sector 186, whose bit in the child's "
                   "bitmap is clear: it is the parent's, which holds data",
    "virtualpc-dynamic": "the stated size is that of the geometry, as qemu takes it for this creator; the footer's "
                         "current size is larger, and all of it is shown",
}
# What the manifest lists under a hash that only says it was not computed.
ALL_ZEROS = "all zeros"


def option(name, default=None):
    values = [sys.argv[at + 1] for at, word in enumerate(sys.argv[:-1]) if word == name]
    return values or default


HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(os.path.dirname(HERE), "target"))
ADIT = (option("--adit") or [os.path.join(TARGET, "release", "adit")])[-1]
ONLY = option("--only", [])
STRACE = None if "--no-strace" in sys.argv else shutil.which("strace")


def unpack(archive, folder):
    """The files of an archive, sparse."""
    os.makedirs(folder)
    if archive.endswith(".tar.zst"):
        command = f'zstd -dcq --long=27 "{archive}" | tar -xSf - -C "{folder}"'
    elif archive.endswith(".zst"):
        name = os.path.basename(archive)[:-len(".zst")]
        command = f'zstd -dqf --long=27 --sparse "{archive}" -o "{folder}/{name}"'
    else:
        command = f'cp "{archive}" "{folder}/"'
    subprocess.run(command, shell=True, check=True)


def stretches(path):
    """Ranges of a file that its file system holds data for."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        at = 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, min(at, size)


def whole_hash(path):
    """SHA-256 of all bytes; holes are not read."""
    digest, zeros, at = hashlib.sha256(), bytes(BLOCK), 0
    size = os.path.getsize(path)

    def skip(to):
        nonlocal at
        while at < to:
            length = min(BLOCK, to - at)
            digest.update(zeros[:length] if length < BLOCK else zeros)
            at += length

    with open(path, "rb") as file:
        for start, end in stretches(path):
            skip(start)
            file.seek(start)
            while at < end:
                block = file.read(min(BLOCK, end - at))
                digest.update(block)
                at += len(block)
    skip(size)
    return digest.hexdigest()


def chunk_hash(path):
    """SHA-256 over the chunks that are not zeros, each after its offset; and their number."""
    digest, count, last = hashlib.sha256(), 0, -1
    with open(path, "rb") as file:
        for start, end in stretches(path):
            for chunk in range(max(start // CHUNK, last + 1), (end + CHUNK - 1) // CHUNK):
                file.seek(chunk * CHUNK)
                data = file.read(CHUNK)
                last = chunk
                if data.count(0) != len(data):
                    digest.update((chunk * CHUNK).to_bytes(8, "little"))
                    digest.update(data.ljust(CHUNK, b"\0"))
                    count += 1
    return digest.hexdigest(), count


def measured(command, folder):
    """Runs a command: exit code or minus the signal, standard error, seconds, peak MiB."""
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=errors)
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if time.perf_counter() - start > TIMEOUT:
                child.kill()
            time.sleep(0.001)
        took = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        return child.returncode, errors.read().decode(errors="replace"), took, usage.ru_maxrss / 1024


def opened_outside(command, folder, scratch, allowed):
    """What was opened that is neither the image's, ours, nor the system's."""
    log = os.path.join(scratch, "trace")
    traced = [STRACE, "-f", "-qq", "-e", "trace=open,openat,openat2,connect", "-o", log, *command]
    subprocess.run(traced, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=TIMEOUT)
    system = ("/lib", "/usr/", "/etc/ld.so", "/proc/", "/sys/", "/dev/null", "/dev/shm/adit")
    found = set()
    with open(log, errors="replace") as lines:
        for line in lines:
            if "connect(" in line:
                found.add(line.split("connect(")[1].strip())
                continue
            match = re.search(r'open(?:at2?)?\((?:AT_FDCWD, |(\d+), )?"((?:[^"\\]|\\.)*)"', line)
            if not match or match[1] or "= -1" in line:
                continue        # relative to a folder that was opened before
            path = match[2].encode().decode("unicode_escape").encode("latin-1", "replace").decode(errors="replace")
            path = os.path.realpath(os.path.join(folder, path))
            inside = path == folder or path.startswith(folder + os.sep)
            if not inside and path not in allowed and not path.startswith(system):
                found.add(path)
    return sorted(found)


def place_of(view, folder):
    place = os.path.join(folder, view["open"])
    if view.get("snapshot") is not None:
        place += "@" + str(view["snapshot"])
    return place


def parents(view, folder):
    """Parents outside their child's folder are named, as a person would have to."""
    chain = view.get("chain") or []
    named = []
    for child, parent in zip(chain, chain[1:]):
        if os.path.relpath(parent, os.path.dirname(child) or ".").startswith(".."):
            child, parent = (os.path.join(folder, name) for name in (child, parent))
            named += ["--parent", f"{child}={parent}"]
    return named


def stamps(folder):
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            stat = os.stat(os.path.join(base, name))
            found[os.path.join(base, name)] = (stat.st_size, stat.st_mtime_ns)
    return found


def content(view, out):
    """Whether the output is what the manifest says; None if it says nothing."""
    want = view.get("sha256")
    if not want:
        return None, ""
    if view.get("virtual_size") not in (None, os.path.getsize(out)):
        return False, f"{os.path.getsize(out)} bytes, stated {view['virtual_size']}"
    if ALL_ZEROS in want:
        return chunk_hash(out)[1] == 0, "all zeros"
    if os.path.getsize(out) > WHOLE_HASH_MAX and view.get("nz_sha256"):
        got = chunk_hash(out)[0]
        return got == view["nz_sha256"], f"chunks {got[:12]}, stated {view['nz_sha256'][:12]}"
    got = whole_hash(out)
    return got == want, f"{got[:12]}, stated {want[:12]}"


def judge(view, code, errors, out, outside):
    """Whether the outcome is right, and what it was."""
    expect = view.get("expect")
    has = os.path.exists(out)
    last = (errors.strip().splitlines() or [""])[0][:150]
    if code not in (0, 1, 2, 3):
        return False, f"ended with {code}: {last}"
    if code == 1 and not last:
        return False, "refused without a word"
    if expect == "reject":
        return code == 1 and not has, f"refused: {last}" if code == 1 else f"accepted ({code})"
    if expect in ("must-not-open-reference", "ambiguous", "reject-or-open-safely",
                  "reject-or-read-only-with-warning"):
        if outside:
            return False, "opened " + ", ".join(outside)
        return True, f"exit {code}: {last or 'opened'}"
    if expect in ("error-on-read", "error-on-read-or-first-cluster"):
        return code in (1, 3), f"exit {code}: {last}"
    if view["format"] == "vmx":
        # A configuration is no disk image; as a raw disk it is its own bytes.
        whole = has and not code and whole_hash(out) == whole_hash(view["place"])
        return whole or code == 1, "no disk image: its own bytes" if whole else last
    if not has:
        return False, f"exit {code}: {last}"
    same, what = content(view, out)
    if same is None:
        return code in (0, 3), f"exit {code}, no hash stated"
    return same and code in (0, 3), what if not code else f"{what}; exit {code}"


SAME_NOW = "with --snapshot-size now as stated"


def again(view, command, code, out, scratch, folder):
    """A snapshot has the size it was taken with; the manifest may state qemu-img's answer, which
    is cut or filled to the disk's present size. Both are compared."""
    if code or not os.path.exists(out):
        return ""
    code = measured(command[:1] + ["--snapshot-size", "now"] + command[1:], folder)[0]
    if code in (0, 3) and os.path.exists(out) and content(view, out)[0]:
        return "; " + SAME_NOW
    return ""


def run(view, folder, scratch):
    out = os.path.join(scratch, "out.raw")
    command = [ADIT, "convert", "-f", "--to", "raw"]
    allowed = {out}
    if "password" in view:
        secret = os.path.join(scratch, "secret")
        with open(secret, "w") as file:
            file.write(view["password"] + "\n")
        command += ["--passphrase-file", secret]
        allowed.add(secret)
    command += parents(view, folder) + [place_of(view, folder), out]
    before = stamps(folder)
    code, errors, took, memory = measured(command, folder)
    outside = None
    if STRACE and view.get("virtual_size", 0) <= 2 << 30:
        kept = out + ".kept"
        if os.path.exists(out):
            os.rename(out, kept)
        outside = [path for path in opened_outside(command, folder, scratch, allowed)
                   if not path.startswith(scratch + os.sep + "out.raw") and path != scratch]
        if os.path.exists(out):
            os.remove(out)
        if os.path.exists(kept):
            os.rename(kept, out)
    view = dict(view, place=os.path.join(folder, view["open"]))
    good, what = judge(view, code, errors, out, outside)
    what += again(view, command, code, out, scratch, folder) if not good and view.get("snapshot") is not None else ""
    if what.endswith(SAME_NOW):
        good = True
    if stamps(folder) != before:
        good, what = False, "the image was changed; " + what
    if os.path.exists(out):
        os.remove(out)
    hostile = view.get("expect") not in (None, "open")
    if hostile and (took > SECONDS_MAX or memory > MEMORY_MIB_MAX):
        good, what = False, f"{took:.2f} s, {memory:.0f} MiB; {what}"
    verdict = "right" if good else "wrong"
    reason = DEVIATIONS.get(view["id"])
    if not good and reason and code == 0:
        verdict, what = "known deviation", f"{what}; {reason}"
    return {"id": view["id"], "verdict": verdict, "expect": view.get("expect"), "seconds": took,
            "peak_mib": memory, "outside": outside, "detail": what}


def main(folder):
    with open(os.path.join(folder, "manifest.json")) as file:
        views = json.load(file)["images"]
    views = [view for view in views if not ONLY or any(part in view["id"] for part in ONLY)]
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="adit-views-"))
    rows = []
    try:
        for view in views:
            images = os.path.join(scratch, "images", view["archive"])
            if not os.path.isdir(images):
                unpack(os.path.join(folder, view["archive"]), images)
            row = run(view, images, scratch)
            rows.append(row)
            outside = "-" if row["outside"] is None else len(row["outside"])
            print(f"{row['verdict']:15} {row['id']:34} {row['seconds']:7.2f} s {row['peak_mib']:6.0f} MiB "
                  f"{outside:>2} outside  {'' if row['verdict'] == 'right' and not row['expect'] and SAME_NOW not in row['detail'] else row['detail']}",
                  flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if "--json" in sys.argv:
        print(json.dumps(rows, indent=1))
    counts = {word: sum(row["verdict"] == word for row in rows) for word in ("right", "known deviation", "wrong")}
    hostile = [row for row in rows if row["expect"] not in (None, "open")]
    print(f"{len(rows)} views: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    if rows:
        slowest = max(rows, key=lambda row: row["seconds"])
        largest = max(rows, key=lambda row: row["peak_mib"])
        print(f"slowest {slowest['seconds']:.2f} s ({slowest['id']}), "
              f"largest {largest['peak_mib']:.0f} MiB ({largest['id']})")
    if hostile:
        print(f"{len(hostile)} attacks: at most {max(row['seconds'] for row in hostile):.2f} s, "
              f"{max(row['peak_mib'] for row in hostile):.0f} MiB")
    if STRACE:
        traced = [row for row in rows if row["outside"] is not None]
        touched = [row["id"] for row in traced if row["outside"]]
        print(f"files outside the image's folder: opened by {len(touched)} of {len(traced)} traced views {touched or ''}")
    else:
        print("strace is missing: files opened outside the image's folder were not counted")
    return counts["wrong"] == 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    sys.exit(0 if main(os.path.abspath(sys.argv[1])) else 1)
