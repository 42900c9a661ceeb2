//! Images name files only where they may, and nothing else is opened.

mod common;

use adit_core::{Kind, Problem};
use adit_open::{OpenOptions, Opener};
use common::{Lab, bytes, codes, sample};
use rustix::fs::inotify;
use std::mem::MaybeUninit;
use std::path::Path;

const MIB: usize = 1 << 20;

/// Tells whether anybody opened or read the files it watches.
struct Watch(rustix::fd::OwnedFd);

impl Watch {
    fn on(paths: &[&Path]) -> Watch {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags).unwrap();
        for path in paths {
            let what = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
            inotify::add_watch(&watch, *path, what).unwrap();
        }
        Watch(watch)
    }

    fn saw_something(&self) -> bool {
        let mut buf = [MaybeUninit::uninit(); 4096];
        inotify::Reader::new(&self.0, &mut buf).next().is_ok()
    }
}

/// An image in `vms`, and a disk beside that directory which it must not reach.
fn outside() -> (Lab, Watch) {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("vms")).unwrap();
    lab.write("secret.raw", sample(MIB));
    let watch = Watch::on(&[&lab.path("secret.raw")]);
    (lab, watch)
}

#[test]
fn the_watch_sees_what_is_opened() {
    let (lab, watch) = outside();
    assert!(!watch.saw_something());
    lab.open("secret.raw").unwrap();
    assert!(watch.saw_something());
}

#[test]
fn a_backing_file_outside_the_directory_is_refused_and_not_opened() {
    let (lab, watch) = outside();
    std::os::unix::fs::symlink(lab.path("secret.raw"), lab.path("vms/link.raw")).unwrap();
    std::fs::create_dir(lab.path("vms/sub")).unwrap();
    std::fs::hard_link(lab.path("secret.raw"), lab.path("vms/sub/inner.raw")).unwrap();
    let secret = lab.path("secret.raw").display().to_string();
    let file_url = format!("file:{secret}");
    let json = format!("json:{{\"driver\":\"raw\",\"file\":{{\"filename\":\"{secret}\"}}}}");
    let names = [
        "../secret.raw",
        "./../secret.raw",
        "sub/../../secret.raw",
        "sub/inner.raw",
        "link.raw",
        &secret,
        &file_url,
        &json,
        "nbd:localhost:10809",
        "nbd://localhost/x",
        "nbd+unix:///x?socket=/x",
        "http://localhost/x",
        "fat:rw:/tmp",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/exe",
        "C:\\x.raw",
        "\\\\server\\share\\x.raw",
        "..",
        ".",
    ];
    for name in names {
        plant(&lab, "vms/disk.qcow2", name);
        let message = lab.refused("vms/disk.qcow2//", Kind::Denied);
        assert!(message.contains("--parent disk.qcow2="), "{name}: {message}");
    }
    assert!(!watch.saw_something());
}

/// An overlay with any name at all for its backing file, made without looking for it.
fn plant(lab: &Lab, image: &str, name: &str) {
    lab.img(&format!("create -q -f qcow2 -u -b placeholder -F raw {image} 1M"));
    let mut all = lab.read(image);
    let at = u64::from_be_bytes(all[8..16].try_into().unwrap()) as usize;
    // The rest of the first cluster is free.
    all[at..at + name.len()].copy_from_slice(name.as_bytes());
    all[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
    lab.write(image, all);
}

#[test]
fn a_pipe_is_not_waited_for() {
    let (lab, _watch) = outside();
    let pipe = lab.path("vms/pipe.raw");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    plant(&lab, "vms/disk.qcow2", "pipe.raw");
    lab.refused("vms/disk.qcow2//", Kind::Denied);
    // Looking for a parent by its identity passes it too.
    lab.img("create -q -f vdi vms/child.vdi 1M");
    lab.patch("vms/child.vdi", 0x4c, &4u32.to_le_bytes());
    lab.patch("vms/child.vdi", 0x1a8, &[9; 16]);
    lab.refused("vms/child.vdi//", Kind::NotFound);
}

#[test]
fn data_files_and_extents_stay_in_the_directory_too() {
    let (lab, watch) = outside();
    lab.img("create -q -f qcow2 -o data_file=vms/placeholder vms/disk.qcow2 1M");
    let mut all = lab.read("vms/disk.qcow2");
    let at = all.windows(15).position(|bytes| bytes == b"vms/placeholder").unwrap();
    all[at..at + 15].copy_from_slice(b"./../secret.raw");
    lab.write("vms/disk.qcow2", all);
    assert!(lab.refused("vms/disk.qcow2//", Kind::Denied).contains("data file"));

    for (line, kind) in [
        ("RW 2048 FLAT \"../secret.raw\" 0", Kind::Denied),
        ("RW 2048 VMFS \"/dev/zero\"", Kind::Denied),
        ("RW 2048 SPARSE \"/etc/passwd\"", Kind::Denied),
        ("RW 2048 VMFS \"gone-flat.vmdk\"", Kind::NotFound),
    ] {
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"x\"\n{line}\n"
        );
        lab.write("vms/disk.vmdk", text);
        lab.refused("vms/disk.vmdk//", kind);
    }
    let secret = lab.path("secret.raw").display().to_string();
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=2\nparentFileNameHint=\"{secret}\"\n\
         createType=\"monolithicSparse\"\nRW 2048 SPARSE \"disk-s001.vmdk\"\n"
    );
    lab.write("vms/disk.vmdk", text);
    lab.refused("vms/disk.vmdk//", Kind::Denied);
    assert!(!watch.saw_something());
}

#[test]
fn a_bundle_names_only_files_of_its_directory() {
    let (lab, watch) = outside();
    let bundle = |file: &str| {
        format!(
            "<?xml version='1.0'?><Parallels_disk_image Version=\"1.0\"><Disk_Parameters>\
             <Disk_size>2048</Disk_size></Disk_Parameters><StorageData><Storage><Start>0</Start>\
             <End>2048</End><Blocksize>2048</Blocksize><Image>\
             <GUID>{{5fbaabe3-6958-40ff-92a7-860e329aab41}}</GUID><Type>Plain</Type>\
             <File>{file}</File></Image></Storage></StorageData></Parallels_disk_image>"
        )
    };
    lab.write("vms/DiskDescriptor.xml", bundle("../secret.raw"));
    lab.refused("vms/DiskDescriptor.xml//", Kind::Denied);
    assert!(!watch.saw_something());
    lab.write("vms/disk.hds", sample(MIB));
    lab.write("vms/DiskDescriptor.xml", bundle("disk.hds"));
    assert!(bytes(&lab.open("vms/DiskDescriptor.xml//").unwrap()) == sample(MIB));
}

#[test]
fn a_chain_that_comes_back_to_itself_is_refused() {
    let lab = Lab::new();
    let link = |child: &str, parent: &str| {
        lab.img(&format!("create -q -f qcow2 -u -b {parent} -F qcow2 {child} 1M"));
    };
    let cycle = |name: &str| {
        let error = lab.error(name);
        assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Cycle), "{error}");
    };
    link("itself", "self.qcow2");
    std::fs::rename(lab.path("itself"), lab.path("self.qcow2")).unwrap();
    cycle("self.qcow2//");
    link("a.qcow2", "b.qcow2");
    link("b.qcow2", "c.qcow2");
    link("c.qcow2", "a.qcow2");
    cycle("a.qcow2//");
    // Another name is not another file.
    std::fs::hard_link(lab.path("self.qcow2"), lab.path("twin.qcow2")).unwrap();
    cycle("twin.qcow2//");
    let error = lab.open_with("a.qcow2//", &["b.qcow2=@/a.qcow2"]).unwrap_err();
    assert_eq!(error.problem(), Problem::Cycle, "{error}");
    // The same file as parent and as data.
    lab.img("create -q -f qcow2 -o data_file=disk.data,data_file_raw=off disk.qcow2 1M");
    let error = lab.open_with("a.qcow2//", &["a.qcow2=@/disk.qcow2", "disk.qcow2=@/a.qcow2"]);
    assert_eq!(error.unwrap_err().problem(), Problem::Cycle);
}

#[test]
fn a_cycle_inside_a_datastore_is_refused() {
    let lab = Lab::new();
    lab.img("create -q -f qcow2 -u -b b.qcow2 -F qcow2 a.qcow2 1M");
    lab.img("create -q -f qcow2 -u -b a.qcow2 -F qcow2 b.qcow2 1M");
    adit_testkit::Vmfs::six()
        .label("ds")
        .file("vm/a.qcow2", lab.read("a.qcow2"))
        .file("vm/b.qcow2", lab.read("b.qcow2"))
        .write(lab.path("lun.img"));
    let error = lab.error("lun.img//vm/a.qcow2//");
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Cycle), "{error}");
}

#[test]
fn a_chain_has_a_longest_length() {
    let lab = Lab::new();
    lab.write("0.raw", sample(MIB));
    lab.img("create -q -f qcow2 -u -b 0.raw -F raw 1.qcow2 1M");
    lab.img("create -q -f qcow2 -u -b 1234567.qcow2 -F qcow2 template 1M");
    let template = lab.read("template");
    for link in 2..=300u32 {
        let mut image = template.clone();
        let parent = format!("{}.qcow2", link - 1);
        let at = u64::from_be_bytes(template[8..16].try_into().unwrap()) as usize;
        image[at..at + parent.len()].copy_from_slice(parent.as_bytes());
        image[16..20].copy_from_slice(&(parent.len() as u32).to_be_bytes());
        lab.write(&format!("{link}.qcow2"), image);
    }
    // 255 images above a raw disk are 256 files.
    assert!(bytes(&lab.open("255.qcow2//").unwrap()) == sample(MIB));
    assert!(lab.refused("256.qcow2//", Kind::Limit).contains("chain_length_max"));
    assert!(lab.refused("300.qcow2//", Kind::Limit).contains("chain_length_max"));
}

#[test]
fn a_base_name_beside_the_child_is_taken_only_with_an_identity() {
    let (lab, watch) = outside();
    // QCOW has none: what happens to have the name may be any disk.
    lab.write("vms/secret.raw", vec![1; MIB]);
    plant(&lab, "vms/disk.qcow2", "../secret.raw");
    lab.refused("vms/disk.qcow2//", Kind::Denied);
    assert!(!watch.saw_something());
    // A child whose parent had its own name elsewhere is not its own parent.
    lab.img("create -q -f vmdk vms/disk.vmdk 1M");
    let text = lab.read("vms/disk.vmdk");
    let at = text.windows(19).position(|bytes| bytes == b"parentCID=ffffffff\n").unwrap();
    lab.patch("vms/disk.vmdk", at, b"parentCID=00000001\nparentFileNameHint=\"/gone/disk.vmdk\"\n");
    lab.refused("vms/disk.vmdk//", Kind::Denied);
}

#[test]
fn a_named_parent_of_the_wrong_identity_is_refused_with_both() {
    let lab = Lab::new();
    for name in ["base", "other"] {
        lab.img(&format!("create -q -f vmdk {name}.vmdk 1M"));
    }
    lab.img("create -q -f vmdk -b base.vmdk -F vmdk delta.vmdk");
    let cid = |name: &str| {
        let text = lab.read(name);
        let at = text.windows(5).position(|bytes| bytes == b"\nCID=").unwrap() + 5;
        String::from_utf8(text[at..at + 8].to_vec()).unwrap()
    };
    let error = lab.open_with("delta.vmdk//", &["delta.vmdk=@/other.vmdk"]).unwrap_err();
    assert_eq!((error.kind(), error.problem()), (Kind::Corrupt, Problem::Mismatch));
    let message = error.to_string();
    assert!(message.contains(&cid("base.vmdk")) && message.contains(&cid("other.vmdk")));
    assert!(error.trail().iter().any(|layer| layer.contains("other.vmdk")), "{error:?}");
    assert!(codes(&lab.open("delta.vmdk//").unwrap()).is_empty());
}

#[test]
fn only_a_datastore_can_be_opened_wider() {
    let lab = Lab::new();
    lab.write("base.raw", sample(MIB));
    lab.img("create -q -f qcow2 -u -b /vmfs/volumes/ds/gold/base.raw -F raw clone.qcow2 1M");
    lab.img("create -q -f qcow2 -u -b /vmfs/volumes/other/base.raw -F raw stray.qcow2 1M");
    adit_testkit::Vmfs::six()
        .label("ds")
        .file("gold/base.raw", lab.read("base.raw"))
        .file("vm/clone.qcow2", lab.read("clone.qcow2"))
        .file("vm/stray.qcow2", lab.read("stray.qcow2"))
        .write(lab.path("lun.img"));
    assert!(
        lab.refused("lun.img//vm/clone.qcow2//", Kind::Denied).contains("--references datastore")
    );
    let references = adit_open::ReferencePolicy::Datastore;
    let opener = Opener::new(OpenOptions { references, ..OpenOptions::default() });
    let open = |name: &str| opener.open(lab.path(name).as_os_str());
    let opened = open("lun.img//vm/clone.qcow2//").unwrap();
    assert!(bytes(&opened) == sample(MIB));
    let last = opened.layers.last().unwrap().locator.to_string();
    assert_eq!(last, format!("{}//gold/base.raw", lab.path("lun.img").display()));
    for name in ["lun.img//vm/stray.qcow2//", "clone.qcow2//"] {
        assert_eq!(open(name).map(|o| o.layers).unwrap_err().kind(), Kind::Denied, "{name}");
    }
}
