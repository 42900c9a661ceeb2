//! Fetches what tests need from outside: public test data and independent readers.
//!
//! Everything comes from the package registries through their ordinary clients, pinned by
//! version, and data by checksum. Nothing is committed, nothing is copied into a release.

use crate::run::{self, command, have, output};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The source distribution that carries VMFS volumes made by real ESXi hosts.
const DISSECT: &str = "dissect.vmfs==3.13";
const SDIST: &str = "dissect_vmfs-3.13.tar.gz";
const SDIST_SHA256: &str = "904a4116b944acfc6a7a9de013ae1db14c760cb76138fd77c6a5b510b98c828d";
/// Debian's readers of VMFS 3/5 and 6, what lets users other than root mount, qemu's tools, and
/// the makers of what guests have on their disks.
const TOOLS: [(&str, &str); 17] = [
    ("debugvmfs", "vmfs-tools"),
    ("debugvmfs6", "vmfs6-tools"),
    ("fusermount3", "fuse3"),
    ("qemu-img", "qemu-utils"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.fat", "dosfstools"),
    ("mcopy", "mtools"),
    ("mkfs.exfat", "exfatprogs"),
    ("xorriso", "xorriso"),
    ("genisoimage", "genisoimage"),
    ("mksquashfs", "squashfs-tools"),
    ("thin_restore", "thin-provisioning-tools"),
    ("mdadm", "mdadm"),
    ("ldmtool", "ldmtool"),
    ("cryptsetup", "cryptsetup-bin"),
    ("openssl", "openssl"),
];

/// What was prepared.
pub struct Witnesses {
    /// A Python that has dissect.vmfs.
    pub python: PathBuf,
}

/// Fetches whatever is not there yet into `target/witness`.
pub fn prepare() -> Result<Witnesses, String> {
    let home = run::target().join("witness");
    let made = |what: &str, error: std::io::Error| format!("{what}: {error}");
    std::fs::create_dir_all(&home).map_err(|error| made("target/witness", error))?;
    images(&home)?;
    let python = reader(&home)?;
    for (program, package) in TOOLS {
        tool(program, package, &home)?;
    }
    Ok(Witnesses { python })
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| "the project's path is no UTF-8".to_owned())
}

/// The real volumes, expanded sparsely into `target/witness/images`.
fn images(home: &Path) -> Result<(), String> {
    let done = home.join("images/.complete");
    if done.is_file() {
        return Ok(());
    }
    let sdist = home.join(SDIST);
    if !sdist.is_file() {
        eprintln!("fetching {DISSECT}, whose tests carry real VMFS volumes");
        let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"];
        command("python3", &[&pip[..], &["--dest", text(home)?, DISSECT]].concat())?;
    }
    let bytes = std::fs::read(&sdist).map_err(|error| format!("{SDIST}: {error}"))?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != SDIST_SHA256 {
        return Err(format!("{SDIST} has checksum {digest}, not {SDIST_SHA256}"));
    }
    // Only the volumes with files in them are compared; two are expanded at a time.
    let script = "set -e; rm -rf images unpacked; mkdir images unpacked; \
         tar xzf \"$1\" -C unpacked --strip-components=3 --wildcards '*/tests/_data/vmfs/*'; \
         cd unpacked; find vmfs -name '*.bin.gz' ! -name 'zero*' -print0 | xargs -0 -P2 -I{} \
         bash -c 'set -eo pipefail; n=${1//\\//_}; \
         gzip -dc \"$1\" | cp --sparse=always /dev/stdin \"../images/${n%.gz}\"' _ {}; \
         cd ..; rm -r unpacked; touch images/.complete";
    eprintln!("expanding the volumes");
    let inside = format!("cd \"$0\"; {script}");
    command("bash", &["-c", &inside, text(home)?, SDIST])
}

/// A virtual environment with dissect.vmfs.
fn reader(home: &Path) -> Result<PathBuf, String> {
    let python = home.join("venv/bin/python");
    let probe = ["-c", "import dissect.vmfs.vmfs"];
    if !python.is_file() || output(text(&python)?, &probe).is_err() {
        eprintln!("installing {DISSECT}");
        command("python3", &["-m", "venv", text(&home.join("venv"))?])?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", DISSECT];
        command(text(&python)?, &pip)?;
        output(text(&python)?, &probe)?;
    }
    Ok(python)
}

/// A Debian program: from the path, else installed, else unpacked beside the data.
fn tool(program: &str, package: &str, home: &Path) -> Result<(), String> {
    let local = home.join("bin").join(program);
    if have(program) || local.is_file() {
        return Ok(());
    }
    eprintln!("fetching Debian's {package}");
    let install = format!(
        "i='env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends'; \
         $i {package} >/dev/null 2>&1 || (apt-get update -qq && $i {package}) >/dev/null"
    );
    if command("bash", &["-c", &install]).is_ok() && have(program) {
        return Ok(());
    }
    // Without root the package is unpacked; its libraries are part of every Debian.
    let unpack = format!(
        "set -e; cd \"$0\"; mkdir -p deb bin; (cd deb; apt-get download {package}); \
         dpkg -x deb/{package}_*.deb unpacked; find unpacked -name {program} -type f -exec cp {{}} bin/ \\;"
    );
    command("bash", &["-c", &unpack, text(home)?])?;
    if local.is_file() {
        return Ok(());
    }
    Err(format!("{program} cannot be had: install Debian's {package}, then try again"))
}
