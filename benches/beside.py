"""What the benchmarks share: commands timed in turn, outputs compared."""
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
ADIT = os.path.join(TARGET, "release", "adit")
IMAGES = os.path.join(TARGET, "witness", "images")
BIN = os.path.join(TARGET, "witness", "bin")
os.environ["PATH"] += os.pathsep + BIN + os.pathsep + "/usr/sbin"
ROUNDS = int(sys.argv[sys.argv.index("--rounds") + 1]) if "--rounds" in sys.argv else 9
SCRATCH = tempfile.mkdtemp(prefix="adit-bench-")
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else SCRATCH
RESULTS = []


def sh(command):
    return subprocess.run(command, shell=True, check=True, capture_output=True).stdout


def timed(command, before=None):
    if before:
        subprocess.run(before, shell=True, check=False)
    start = time.perf_counter()
    done = subprocess.run(command, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    took = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{command}\nfailed: {done.stderr.decode(errors='replace')}")
    return took


def cpu_seconds():
    """What all commands so far had of the processors, which a busy machine disturbs less than the clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_mib(command):
    if not shutil.which("time"):
        return None
    done = subprocess.run(["time", "-f", "%M", "sh", "-c", f"exec {command} > /dev/null"], capture_output=True)
    try:
        return int(done.stderr.split()[-1]) / 1024
    except (IndexError, ValueError):
        return None


def case(title, ours, peers, goal, before=None, rounds=ROUNDS, memory=True):
    """Times our command and the peers' in turn; `goal` is text for the table."""
    commands = {"adit": ours, **{name: command for name, command in peers.items() if command}}
    times, cpu = {name: [] for name in commands}, {name: [] for name in commands}
    for name, command in commands.items():
        timed(command, before)                       # a warm-up that does not count
    for _ in range(rounds):
        for name, command in commands.items():
            if before:
                subprocess.run(before, shell=True, check=False)
            used = cpu_seconds()
            times[name].append(timed(command))
            cpu[name].append(cpu_seconds() - used)
    print(f"\n{title}\n  goal: {goal}")
    row = {"case": title, "goal": goal, "commands": {}}
    mine, mine_cpu = statistics.median(times["adit"]), statistics.median(cpu["adit"])
    for name, took in times.items():
        best, median = min(took), statistics.median(took)
        mib = peak_mib(commands[name]) if memory else None
        worked = statistics.median(cpu[name])
        spared = f", {worked / mine_cpu:.2f}x by processor time" if mine_cpu > 0.02 else ""
        ratio = "" if name == "adit" else f"  adit is {median / mine:6.2f}x as fast{spared}"
        shown = "" if mib is None else f"  {mib:6.1f} MiB"
        print(f"  {name:12} best {best * 1e3:9.2f} ms  median {median * 1e3:9.2f} ms  cpu {worked * 1e3:8.1f} ms{shown}{ratio}")
        row["commands"][name] = {"command": commands[name], "best_s": best, "median_s": median, "cpu_s": worked, "peak_mib": mib}
    RESULTS.append(row)


def same(what, first, second):
    a, b = (hashlib.sha256(sh(command)).hexdigest() for command in (first, second))
    if a != b:
        sys.exit(f"{what}: the bytes differ\n  {first}\n  {second}")
