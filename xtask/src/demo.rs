//! The first five minutes: a sample datastore, listed and copied out of.

use crate::run::{self, command};
use adit_testkit::Vmfs;
use adit_testkit::vmfs::Heartbeat;

const VMX: &str = r#".encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "web01"
guestOS = "debian12-64"
numvcpus = "2"
memSize = "4096"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "web01.vmdk"
"#;

const VMDK: &str = r#"# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=5e1f0a2b
parentCID=ffffffff
createType="vmfs"

# Extent description
RW 41943040 VMFS "web01-flat.vmdk"

# The Disk Data Base
ddb.adapterType = "lsilogic"
ddb.thinProvisioned = "1"
ddb.virtualHWVersion = "19"
"#;

/// Makes the sample, builds adit, and shows what it does.
pub fn run() -> Result<(), String> {
    let home = run::target().join("demo");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).map_err(|error| format!("target/demo: {error}"))?;
    sample(&home.join("lun.img"));
    run::cargo(&["build", "--release", "--quiet", "--package", "adit"])?;
    let adit = run::target().join("release/adit");
    let adit = adit.to_str().ok_or("the project's path is no UTF-8")?;
    let show = |arguments: &[&str]| {
        println!("\n$ adit {}", arguments.join(" "));
        let inside = "cd \"$0\" && \"$@\"";
        let home = home.to_str().ok_or("the project's path is no UTF-8")?;
        command("bash", &[&["-c", inside, home, adit], arguments].concat())
    };
    show(&["info", "lun.img"])?;
    show(&["tree", "lun.img"])?;
    show(&["vms", "lun.img"])?;
    show(&["cp", "-r", "--verify", "lun.img//web01", "restored"])?;
    show(&["map", "lun.img//web01/web01-flat.vmdk"])?;
    println!("\nThe sample is target/demo/lun.img, the copy target/demo/restored.");
    Ok(())
}

/// A datastore with one virtual machine, whose 20 GiB thin disk holds 64 MiB.
fn sample(path: &std::path::Path) {
    let block = |seed: u64| -> Vec<u8> {
        let step = |n: &mut u64| {
            *n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            Some((*n >> 33) as u8)
        };
        std::iter::repeat(seed).scan(seed, |n, _| step(n)).take(16 << 20).collect()
    };
    let pieces: Vec<(u64, Vec<u8>)> =
        [0u64, 5, 10, 15].iter().map(|&gib| (gib << 30, block(gib + 1))).collect();
    let pieces: Vec<(u64, &[u8])> = pieces.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    Vmfs::six()
        .label("datastore1")
        .size_bytes(2 << 30)
        .file("web01/web01.vmx", VMX)
        .file("web01/web01.vmdk", VMDK)
        .sparse_file("web01/web01-flat.vmdk", 20 << 30, &pieces)
        .file("web01/vmware.log", "2026-11-20T10:00:00Z| vmx| Log for web01\n".repeat(200))
        .file("iso/readme.txt", "installation media go here\n")
        .symlink("latest.log", "web01/vmware.log")
        .heartbeat(Heartbeat::released(64, "192.0.2.11"))
        .write(path);
}
