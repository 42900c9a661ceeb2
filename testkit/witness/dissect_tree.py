"""The tree of a VMFS volume as dissect.vmfs sees it: a JSON line for every entry.

usage: dissect_tree.py IMAGE... < ranges.json

ranges.json: {"path": [[offset, length], ...]} for files too large to be hashed whole; the hash is
then over those ranges in turn. Every other file is hashed from its first byte to its last.
"""
import hashlib
import json
import sys

from dissect.vmfs import lvm, vmfs


def volume(paths):
    files = [open(path, "rb") for path in paths]
    files[0].seek(0x100000)
    if files[0].read(4) != b"\x0d\xd0\x01\xc0":
        return files[0]
    return lvm.LVM(files if len(files) > 1 else files[0]).volumes[0].open()


def digest(stream, size, ranges):
    sha = hashlib.sha256()
    for offset, length in ranges or [[0, size]]:
        stream.seek(offset)
        while length > 0:
            data = stream.read(min(length, 1 << 20))
            if not data:
                raise EOFError(f"ends {length} bytes early")
            sha.update(data)
            length -= len(data)
    return sha.hexdigest()


def walk(directory, path, ranges):
    for entry in directory.iterdir():
        if entry.name in (".", ".."):
            continue
        node, here = entry.file_descriptor, f"{path}{entry.name}"
        row = {"path": here, "node": node.address, "size": node.size, "blocks": node.metadata.numBlocks,
               "mode": node.mode & 0o7777, "mtime": int(node.mtime.timestamp())}
        if node.is_dir():
            row["kind"] = "directory"
        elif node.is_symlink():
            row["kind"], row["target"] = "symlink", node.link
        elif node.is_rdm():
            row["kind"] = "raw-device"
        else:
            row["kind"] = "file"
            row["sha256"] = digest(node.open(), node.size, ranges.get(here))
        print(json.dumps(row))
        if node.is_dir():
            walk(node, f"{here}/", ranges)


walk(vmfs.VMFS(volume(sys.argv[1:])).root, "", json.load(sys.stdin))
