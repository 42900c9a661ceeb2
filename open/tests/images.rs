//! Disk images open with all the files they need, and read as QEMU reads them.

mod common;

use adit_core::{DiskExt, Kind};
use adit_open::{At, Fact, OpenOptions, Opener};
use common::{Lab, bytes, codes, disk, formats, sample};

const MIB: usize = 1 << 20;

#[test]
fn every_format_reads_as_qemu_img_converts_it() {
    let kinds = [
        ("qcow", "", "QCOW"),
        ("qcow2", "compat=0.10", "QCOW2"),
        ("qcow2", "cluster_size=512", "QCOW2"),
        ("qcow2", "extended_l2=on,cluster_size=128k", "QCOW2"),
        ("vmdk", "subformat=monolithicSparse", "VMDK monolithicSparse"),
        ("vmdk", "subformat=monolithicFlat", "VMDK monolithicFlat"),
        ("vmdk", "subformat=twoGbMaxExtentSparse", "VMDK twoGbMaxExtentSparse"),
        ("vmdk", "subformat=twoGbMaxExtentFlat", "VMDK twoGbMaxExtentFlat"),
        ("vmdk", "subformat=streamOptimized", "VMDK streamOptimized"),
        ("vpc", "subformat=dynamic,force_size=on", "VHD dynamic"),
        ("vpc", "subformat=fixed,force_size=on", "VHD fixed"),
        ("vhdx", "subformat=dynamic", "VHDX"),
        ("vhdx", "subformat=fixed", "VHDX"),
        ("vdi", "", "VDI dynamic"),
        ("vdi", "static=on", "VDI fixed"),
        ("parallels", "", "Parallels image"),
    ];
    for (format, options, title) in kinds {
        let lab = Lab::new();
        let source = sample(7 * MIB + 65536);
        lab.write("source.raw", &source);
        let with = if options.is_empty() { String::new() } else { format!(" -o {options}") };
        lab.img(&format!("convert -f raw -O {format}{with} source.raw disk.img"));
        let opened = lab.open("disk.img//").unwrap();
        let case = format!("{format} {options}");
        assert_eq!(formats(&opened), ["raw", title], "{case}");
        let ours = bytes(&opened);
        assert!(ours == lab.converted(&format!("-f {format}"), "disk.img"), "{case}");
        // Some formats round the size up, with zeros.
        assert!(ours[..source.len()] == source && ours[source.len()..].iter().all(|&b| b == 0));
        for (name, _) in &opened.layers[1].facts {
            let stable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(stable), "{case}: {name:?} is no stable name");
        }
        assert_eq!(fact(&opened, 1, "size_bytes"), &Fact::Bytes(ours.len() as u64));
        let plain = lab.open("disk.img").unwrap();
        assert!(bytes(&plain) == lab.read("disk.img"), "{case}: without // it is the file");
    }
}

fn fact<'a>(opened: &'a adit_open::Opened, layer: usize, name: &str) -> &'a Fact {
    let facts = &opened.layers[layer].facts;
    &facts.iter().find(|fact| fact.0 == name).unwrap_or_else(|| panic!("no {name}: {facts:?}")).1
}

#[test]
fn a_chain_reads_as_its_top_and_shows_one_layer_for_each_image() {
    let lab = Lab::new();
    lab.write("base.raw", sample(4 * MIB));
    lab.img("create -q -f qcow2 -b base.raw -F raw one.qcow2");
    lab.io("qcow2", "one.qcow2", "write -P 0x11 1M 192k");
    lab.img("create -q -f qcow2 -b one.qcow2 -F qcow2 two.qcow2 5M");
    lab.io("qcow2", "two.qcow2", "write -P 0x22 1088k 64k");
    lab.img("create -q -f qcow2 -b ./two.qcow2 -F qcow2 three.qcow2");
    let opened = lab.open("three.qcow2//").unwrap();
    assert_eq!(formats(&opened), ["raw", "QCOW2", "QCOW2", "QCOW2", "raw"]);
    let places: Vec<String> = opened.layers.iter().map(|l| l.locator.to_string()).collect();
    let here = lab.dir().display();
    assert_eq!(places[2], format!("{here}/two.qcow2//"));
    assert_eq!(places[4], format!("{here}/base.raw"));
    assert!(bytes(&opened) == lab.converted("-f qcow2", "three.qcow2"));
    assert_eq!(opened.locator.to_string(), format!("{here}/three.qcow2//"));
}

#[test]
fn a_vmdk_chain_that_was_moved_is_found_by_its_names_and_known_by_its_cids() {
    let lab = Lab::new();
    let old = Lab::new();
    old.write("source.raw", sample(3 * MIB));
    old.img("convert -f raw -O vmdk source.raw base.vmdk");
    // The name of the parent is stored as a full path, which leads nowhere afterwards.
    let base = old.path("base.vmdk");
    old.img(&format!("create -q -f vmdk -b {} -F vmdk delta.vmdk", base.display()));
    old.io("vmdk", "delta.vmdk", "write -P 0x33 1M 100k");
    let truth = old.converted("-f vmdk", "delta.vmdk");
    for name in ["base.vmdk", "delta.vmdk"] {
        lab.write(name, old.read(name));
    }
    drop(old);
    let opened = lab.open("delta.vmdk//").unwrap();
    assert_eq!(formats(&opened), ["raw", "VMDK monolithicSparse", "VMDK monolithicSparse"]);
    assert!(bytes(&opened) == truth);

    let text = lab.read("base.vmdk");
    let at = text.windows(5).position(|bytes| bytes == b"\nCID=").unwrap() + 5;
    let cid = String::from_utf8(text[at..at + 8].to_vec()).unwrap();
    lab.patch("base.vmdk", at, b"12345678");
    let message = lab.refused("delta.vmdk//", Kind::Corrupt);
    assert!(message.contains(&cid) && message.contains("12345678"), "{message}");
    std::fs::remove_file(lab.path("base.vmdk")).unwrap();
    assert!(lab.refused("delta.vmdk//", Kind::Denied).contains("--parent delta.vmdk="));
}

#[test]
fn a_differencing_vdi_finds_its_parent_by_its_uuids() {
    let lab = Lab::new();
    lab.write("source.raw", sample(3 * MIB));
    lab.img("convert -f raw -O vdi source.raw base.vdi");
    lab.img("create -q -f vdi child.vdi 3M");
    let base = lab.read("base.vdi");
    // Type 4; the parent's own UUID and that of its last change.
    lab.patch("child.vdi", 0x4c, &4u32.to_le_bytes());
    lab.patch("child.vdi", 0x1a8, &base[0x188..0x198]);
    lab.patch("child.vdi", 0x1b8, &base[0x198..0x1a8]);
    lab.write("another.txt", "no image");
    lab.img("create -q -f vdi unrelated.vdi 3M");
    let opened = lab.open("child.vdi//").unwrap();
    assert_eq!(formats(&opened), ["raw", "VDI differencing", "VDI dynamic"]);
    assert!(bytes(&opened) == lab.read("source.raw"));

    lab.write("copy.vdi", &base);
    assert!(lab.refused("child.vdi//", Kind::Invalid).contains("copy.vdi"), "two are as good");
    let opened = lab.open_with("child.vdi//", &["child.vdi=@/copy.vdi"]).unwrap();
    assert!(bytes(&opened) == lab.read("source.raw"));
    std::fs::remove_file(lab.path("copy.vdi")).unwrap();

    lab.patch("base.vdi", 0x198, &[0xab; 16]);
    let message = lab.refused("child.vdi//", Kind::Corrupt);
    assert!(message.contains("abababab"), "{message}");
    std::fs::remove_file(lab.path("base.vdi")).unwrap();
    assert!(lab.refused("child.vdi//", Kind::NotFound).contains("--parent child.vdi="));
}

#[test]
fn a_differencing_vhd_takes_only_the_parent_with_its_unique_id() {
    let lab = Lab::new();
    lab.write("source.raw", sample(4 * MIB));
    lab.img("convert -f raw -O vpc -o force_size=on source.raw base.vhd");
    lab.img("create -q -f vpc -o force_size=on child.vhd 4M");
    let base = lab.read("base.vhd");
    let unique_id = &base[68..84];
    make_differencing(&lab, "child.vhd", unique_id, "C:\\vms\\base.vhd");
    let opened = lab.open("child.vhd//").unwrap();
    assert_eq!(formats(&opened), ["raw", "VHD differencing", "VHD dynamic"]);
    assert!(bytes(&opened) == lab.read("source.raw"));

    lab.img("convert -f raw -O vpc -o force_size=on source.raw base.vhd");
    assert!(lab.refused("child.vhd//", Kind::Corrupt).contains("parent_unique_id"));
}

/// Turns an empty dynamic VHD into one above a parent.
fn make_differencing(lab: &Lab, name: &str, unique_id: &[u8], parent: &str) {
    let mut all = lab.read(name);
    let sum = |bytes: &[u8]| !bytes.iter().map(|&b| u32::from(b)).sum::<u32>();
    for at in [0, all.len() - 512] {
        all[at + 60..at + 64].copy_from_slice(&4u32.to_be_bytes());
        all[at + 64..at + 68].fill(0);
        let checksum = sum(&all[at..at + 512]);
        all[at + 64..at + 68].copy_from_slice(&checksum.to_be_bytes());
    }
    let header = &mut all[512..1536];
    header[40..56].copy_from_slice(unique_id);
    let text: Vec<u8> = parent.encode_utf16().flat_map(u16::to_be_bytes).collect();
    header[64..64 + text.len()].copy_from_slice(&text);
    header[36..40].fill(0);
    let checksum = sum(header);
    header[36..40].copy_from_slice(&checksum.to_be_bytes());
    lab.write(name, all);
}

#[test]
fn a_snapshot_is_named_behind_its_image() {
    let lab = Lab::new();
    lab.write("base.raw", sample(4 * MIB));
    lab.img("create -q -f qcow2 -b base.raw -F raw disk.qcow2");
    lab.io("qcow2", "disk.qcow2", "write -P 0x44 0 64k");
    lab.img("snapshot -c daily disk.qcow2");
    lab.io("qcow2", "disk.qcow2", "write -P 0x55 0 1M");
    let then = lab.converted("-f qcow2 -l daily", "disk.qcow2");
    for place in ["disk.qcow2@daily//", "disk.qcow2@daily", "disk.qcow2@1//"] {
        let opened = lab.open(place).unwrap();
        assert_eq!(formats(&opened), ["raw", "QCOW2 snapshot", "raw"], "{place}");
        assert!(bytes(&opened) == then, "{place}");
        let place = lab.path(place).display().to_string();
        assert_eq!(opened.locator.to_string(), place);
        let image = opened.layers[1].locator.to_string();
        assert_eq!(image.trim_end_matches('/'), place.trim_end_matches('/'));
    }
    assert!(bytes(&lab.open("disk.qcow2//").unwrap()) != then);
    let message = lab.refused("disk.qcow2@weekly//", Kind::NotFound);
    assert!(message.contains("weekly") && message.contains("daily"), "{message}");
    // Only QCOW has snapshots, and only what is no file of its own is one.
    assert!(lab.refused("base.raw@daily//", Kind::NotFound).contains("base.raw@daily"));
    lab.write("disk.qcow2@daily", sample(MIB));
    assert!(bytes(&lab.open("disk.qcow2@daily").unwrap()) == sample(MIB));
}

#[test]
fn a_data_file_is_found_like_a_parent() {
    let lab = Lab::new();
    lab.img("create -q -f qcow2 -o data_file=disk.data disk.qcow2 3M");
    lab.io("qcow2", "disk.qcow2", "write -P 0x66 1M 64k");
    let truth = lab.converted("-f qcow2", "disk.qcow2");
    assert!(bytes(&lab.open("disk.qcow2//").unwrap()) == truth);
    std::fs::create_dir(lab.path("sub")).unwrap();
    std::fs::rename(lab.path("disk.data"), lab.path("sub/moved")).unwrap();
    assert!(lab.refused("disk.qcow2//", Kind::NotFound).contains("names its data file"));
    let opened = lab.open_with("disk.qcow2//", &["@/sub/moved"]).unwrap();
    assert!(bytes(&opened) == truth);
}

#[test]
fn a_named_parent_goes_where_none_is_found_and_is_never_passed_over() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("sub")).unwrap();
    lab.write("base.raw", sample(2 * MIB));
    lab.img("create -q -f qcow2 -b base.raw -F raw one.qcow2");
    lab.img("create -q -f qcow2 -b ../one.qcow2 -F qcow2 sub/two.qcow2");
    lab.img("create -q -f qcow2 -b two.qcow2 -F qcow2 sub/three.qcow2");
    let truth = sample(2 * MIB);
    assert!(lab.refused("sub/three.qcow2//", Kind::Denied).contains("--parent two.qcow2="));
    for parent in ["@/one.qcow2", "two.qcow2=@/one.qcow2", "@/sub/two.qcow2=@/one.qcow2"] {
        let opened = lab.open_with("sub/three.qcow2//", &[parent]).unwrap();
        assert_eq!(formats(&opened), ["raw", "QCOW2", "QCOW2", "QCOW2", "raw"]);
        assert!(bytes(&opened) == truth);
    }
    // It replaces a parent that would be found, if its child is named.
    lab.write("other.raw", vec![7; 2 * MIB]);
    let opened = lab.open_with("one.qcow2//", &["one.qcow2=@/other.raw"]).unwrap();
    assert!(bytes(&opened) == lab.read("other.raw"));
    let error = lab.open_with("one.qcow2//", &["@/other.raw"]).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
}

#[test]
fn a_parent_opens_in_the_format_its_child_states() {
    let lab = Lab::new();
    lab.img("create -q -f qcow2 planted.raw 1M");
    lab.img("create -q -f qcow2 -u -b planted.raw -F raw child.qcow2 1M");
    // What looks like an image was called raw, so it is raw.
    let opened = lab.open("child.qcow2//").unwrap();
    let planted = lab.read("planted.raw");
    assert!(bytes(&opened)[..planted.len()] == planted);

    lab.write("plain.raw", sample(MIB));
    lab.img("create -q -f qcow2 -u -b plain.raw -F qcow2 wrong.qcow2 1M");
    assert!(lab.refused("wrong.qcow2//", Kind::Corrupt).contains("raw bytes"));
    lab.img("create -q -f qcow2 -u -b plain.raw -F luks odd.qcow2 1M");
    assert!(lab.refused("odd.qcow2//", Kind::Unsupported).contains("luks"));
}

#[test]
fn a_parent_of_no_stated_format_is_guessed_but_names_no_further_files() {
    let lab = Lab::new();
    lab.write("base.raw", sample(MIB));
    lab.img("create -q -f qcow -b base.raw -F raw one.qcow");
    lab.img("create -q -f qcow -b one.qcow -F qcow two.qcow");
    // QCOW 1 cannot store the format of its backing file.
    let opened = lab.open("one.qcow//").unwrap();
    assert_eq!(formats(&opened), ["raw", "QCOW", "raw"]);
    assert!(codes(&opened).contains(&"qcow-backing-format-missing"));
    assert!(lab.refused("two.qcow//", Kind::Denied).contains("only looks like an image"));
    let opened = lab.open_with("two.qcow//", &["two.qcow=@/one.qcow"]).unwrap();
    assert!(bytes(&opened) == sample(MIB));
}

#[test]
fn what_stands_inside_a_raw_disk_is_no_image() {
    let lab = Lab::new();
    lab.img("create -q -f qcow2 inner.qcow2 1M");
    let inner = lab.read("inner.qcow2");
    // One partition, from sector 2048 on.
    let mut whole = vec![0; MIB];
    whole[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
    whole[510..512].copy_from_slice(&[0x55, 0xaa]);
    whole.extend(&inner);
    whole.resize(2 * MIB, 0);
    lab.write("disk.img", &whole);
    assert!(lab.refused("disk.img//p1//", Kind::Unsupported).contains("never taken for an image"));

    let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\
                RW 2048 VMFS \"d-flat.vmdk\"\n";
    lab.write("d.vmdk", text);
    let mut flat = inner;
    flat.resize(MIB, 0);
    lab.write("d-flat.vmdk", &flat);
    let opened = lab.open("d.vmdk//").unwrap();
    assert!(bytes(&opened) == flat);
    let error = Opener::default().descend(opened).map(|o| o.layers).unwrap_err();
    assert!(error.detail().contains("never taken for an image"), "{error}");
    // The same bytes as a file of its own are an image.
    assert_eq!(disk(&lab.open("d-flat.vmdk//").unwrap()).size_bytes(), MIB as u64);
}

#[test]
fn raw_switches_recognition_off() {
    let lab = Lab::new();
    lab.img("create -q -f qcow2 disk.qcow2 1M");
    let opener = Opener::new(OpenOptions { raw: true, ..OpenOptions::default() });
    let open = |name: &str| opener.open(lab.path(name).as_os_str());
    assert_eq!(open("disk.qcow2//").map(|o| o.layers).unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(open("disk.qcow2@x").map(|o| o.layers).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_fixed_vhd_needs_a_whole_footer_and_a_damaged_one_is_not_passed_off_as_raw() {
    let lab = Lab::new();
    lab.write("source.raw", sample(2 * MIB));
    lab.img("convert -f raw -O vpc -o subformat=fixed,force_size=on source.raw disk.vhd");
    let end = lab.read("disk.vhd").len() - 512;
    assert!(bytes(&lab.open("disk.vhd//").unwrap()) == sample(2 * MIB));
    lab.patch("disk.vhd", end + 100, b"x");
    assert!(lab.refused("disk.vhd//", Kind::Corrupt).contains("--raw"));
}

#[test]
fn what_is_no_disk_is_named() {
    let lab = Lab::new();
    let mut list = b"\xa2\x72\x19\xf6\x01\0\0\0".to_vec();
    list.resize(4096, 0);
    lab.write("d-ctk.vmdk", list);
    assert!(lab.refused("d-ctk.vmdk//", Kind::Unsupported).contains("changed block list"));
    for (name, start, word) in [("d.qed", b"QED\0", "QED"), ("d.asif", b"shdw", "ASIF")] {
        lab.write(name, [&start[..], &[0; 4096]].concat());
        let kind = if name == "d.qed" { Kind::Corrupt } else { Kind::Unsupported };
        assert!(lab.refused(&format!("{name}//"), kind).contains(word));
    }
}

#[test]
fn images_in_a_datastore_open_with_parents_and_snapshots() {
    let lab = Lab::new();
    lab.write("base.raw", sample(MIB));
    lab.img("create -q -f qcow2 -b base.raw -F raw one.qcow2");
    lab.img("snapshot -c daily one.qcow2");
    lab.io("qcow2", "one.qcow2", "write -P 0x77 0 64k");
    lab.img("create -q -f qcow2 -b one.qcow2 -F qcow2 two.qcow2");
    let now = lab.converted("-f qcow2", "two.qcow2");
    adit_testkit::Vmfs::six()
        .label("ds")
        .file("vm/base.raw", lab.read("base.raw"))
        .file("vm/one.qcow2", lab.read("one.qcow2"))
        .file("vm/two.qcow2", lab.read("two.qcow2"))
        .write(lab.path("lun.img"));
    for place in ["lun.img//vm/two.qcow2//", "lun.img//vm//two.qcow2//"] {
        let opened = lab.open(place).unwrap();
        assert!(bytes(&opened) == now, "{place}");
        let layers: Vec<String> = opened.layers.iter().map(|l| l.locator.to_string()).collect();
        let last = layers.last().unwrap();
        assert_eq!(*last, format!("{}//vm/base.raw", lab.path("lun.img").display()));
    }
    for place in ["lun.img//vm/one.qcow2@daily//", "lun.img//vm//one.qcow2@daily"] {
        let opened = lab.open(place).unwrap();
        assert!(bytes(&opened) == sample(MIB), "{place}");
        assert!(matches!(opened.at, At::Disk { .. }));
    }
    assert!(lab.refused("lun.img//vm/one.qcow2@x", Kind::NotFound).contains("daily"));
    assert!(lab.refused("lun.img//vm/none@x", Kind::NotFound).contains("none@x"));
    // A parent may lie in a datastore too.
    lab.img("create -q -f qcow2 -b base.raw -F raw out.qcow2");
    std::fs::remove_file(lab.path("base.raw")).unwrap();
    let opened = lab.open_with("out.qcow2//", &["@/lun.img//vm/base.raw"]).unwrap();
    assert!(bytes(&opened) == sample(MIB));
}

#[test]
fn a_file_of_a_parallels_bundle_says_that_it_is_not_alone() {
    let lab = Lab::new();
    lab.img("create -q -f parallels disk.hds 1M");
    assert!(codes(&lab.open("disk.hds//").unwrap()).is_empty());
    lab.write("DiskDescriptor.xml", "<x/>");
    assert_eq!(codes(&lab.open("disk.hds//").unwrap()), ["parallels-image-alone"]);
}
