//! Writes a sample volume: `make-vmfs 3|5|6|5l|5d|6l|6d OUT.img [SIZE_MIB]`.

use adit_testkit::Vmfs;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, out, rest @ ..] = &args[..] else {
        eprintln!("usage: make-vmfs 3|5|6|5l|5d|6l|6d OUT.img [SIZE_MIB]");
        std::process::exit(2);
    };
    let mut vmfs = match kind.as_bytes()[0] {
        b'3' => Vmfs::three(),
        b'5' => Vmfs::five(),
        _ => Vmfs::six(),
    };
    if kind.contains('l') {
        vmfs = vmfs.local();
    }
    if kind.contains('d') {
        vmfs = vmfs.without_lvm();
    }
    if let Some(mib) = rest.first() {
        vmfs = vmfs.size_bytes(mib.parse::<u64>().expect("a size in MiB") << 20);
    }
    let big: Vec<u8> = (0..3_500_000u32).flat_map(u32::to_le_bytes).collect();
    vmfs.label("sample")
        .file("web01/web01.vmx", b".encoding = \"UTF-8\"\n")
        .file("web01/medium.log", vec![b'm'; 5000])
        .file("web01/web01-flat.vmdk", &big)
        .sparse_file("web01/far.vmdk", 200 << 30, &[(100 << 30, b"far away")])
        .dir("empty")
        .symlink("link", "web01/web01.vmx")
        .file("empty file", b"")
        .write(out);
}
