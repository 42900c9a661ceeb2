//! What a check finds: nothing on sound volumes, the right code for each damage.

mod made;

use adit_core::{Check, Error, Finding, Interrupt, Severity};
use adit_testkit::vmfs::hash::colliding_names;
use adit_testkit::vmfs::{Addressing, Damage, Entry, Heartbeat, Image, Mode};
use adit_testkit::{Memory, Vmfs as Maker};
use made::open;
use std::collections::BTreeSet;

fn findings(image: &Image<Memory>) -> Vec<Finding> {
    let mut found = Vec::new();
    let fs = open(image).unwrap();
    fs.check(&mut |finding| found.push(finding), &Interrupt::default()).unwrap();
    found
}

fn codes(image: &Image<Memory>) -> BTreeSet<&'static str> {
    findings(image).iter().map(|finding| finding.code).collect()
}

fn makers() -> Vec<(&'static str, Maker)> {
    vec![
        ("VMFS3", Maker::three()),
        ("VMFS5", Maker::five()),
        ("VMFS5 not dense", Maker::five().not_dense()),
        ("VMFS5-L", Maker::five().local().block_bytes(512 << 10)),
        ("VMFS5 without LVM", Maker::five().without_lvm()),
        ("VMFS6", Maker::six()),
        ("VMFS6-L", Maker::six().local()),
        ("VMFS6 without LVM", Maker::six().without_lvm()),
        ("VMFS6 scattered", Maker::six().scattered()),
        ("VMFS6 unconverted", Maker::six().unconverted()),
    ]
}

/// A tree with every addressing the version has.
fn populated(maker: Maker) -> Maker {
    let twins = colliding_names(14);
    let maker = maker
        .file("web01/web01.vmx", b"displayName = \"web01\"\n")
        .file("web01/medium.log", vec![b'm'; 5000])
        .file("web01/web01-flat.vmdk", vec![7u8; 3 << 20])
        .file("other/second-flat.vmdk", vec![9u8; 2 << 20])
        .sparse_file("web01/far.vmdk", 400 << 30, &[(100 << 30, b"far away")])
        .dir("empty/deeper")
        .symlink("link", "web01/web01.vmx")
        .file("empty file", b"")
        .rdm("web01/lun.vmdk", 9 << 30);
    twins.iter().fold(maker, |maker, name| maker.file(format!("twins/{name}"), b"twin"))
}

#[test]
fn sound_volumes_of_every_kind_have_no_findings() {
    for (name, maker) in makers() {
        let image = populated(maker).in_memory();
        assert_eq!(findings(&image), [], "{name}");
    }
}

#[test]
fn thick_double_indirect_large_and_zeroed_files_have_no_findings() {
    for (name, maker) in makers() {
        let double = Entry::sparse("double", 1 << 40, &[(1 << 39, b"deep")]);
        let mut maker = maker
            .with(Entry::file("thick", vec![1; 1 << 20]).thick().to_be_zeroed(0..1))
            .with(if name == "VMFS3" { double } else { double.addressing(Addressing::Double) });
        if name == "VMFS6 unconverted" {
            let large = Entry::sparse("large", 1 << 30, &[(0, b"x")]).large(0..512 << 20);
            maker = maker.size_bytes(8 << 30).with(large);
        }
        assert_eq!(findings(&maker.in_memory()), [], "{name}");
    }
}

#[test]
fn a_volume_that_was_in_use_has_a_note_and_no_finding() {
    for maker in [Maker::three(), Maker::five(), Maker::six()] {
        let image = populated(maker)
            .with(Entry::file("held", b"x").held(3, Mode::Exclusive))
            .heartbeat(Heartbeat::live(3, "10.0.0.7"))
            .heartbeat(Heartbeat::released(9, "10.0.0.9"))
            .in_memory();
        assert_eq!(findings(&image), []);
        let notes = adit_core::FileSystem::notes(open(&image).unwrap().as_ref());
        let in_use: Vec<_> = notes.iter().filter(|n| n.code == "vmfs-in-use").collect();
        assert_eq!(in_use.len(), 1);
        assert!(in_use[0].text.contains("10.0.0.7"), "{}", in_use[0].text);
        assert_eq!(in_use[0].severity, Severity::Info);
    }
}

#[test]
fn a_pending_journal_is_a_warning_and_a_finished_one_is_silent() {
    let journal = |heartbeat: Heartbeat| -> Vec<(&'static str, Severity)> {
        let image = populated(Maker::six()).heartbeat(heartbeat).in_memory();
        let notes = adit_core::FileSystem::notes(open(&image).unwrap().as_ref());
        let journals = notes.iter().filter(|note| note.code.starts_with("vmfs-journal"));
        journals.map(|note| (note.code, note.severity)).collect()
    };
    let live = Heartbeat::live(64, "10.0.0.7");
    assert_eq!(journal(live.clone()), []);
    assert_eq!(journal(live.clone().finished("web01/web01.vmx")), []);
    assert_eq!(
        journal(live.pending("web01/web01.vmx")),
        [("vmfs-journal-pending", Severity::Warning)]
    );
}

#[test]
fn a_pending_transaction_is_decoded_with_its_lock_and_its_block() {
    let heartbeat = Heartbeat::live(64, "10.0.0.7").pending("web01/web01.vmx");
    let image = populated(Maker::six()).heartbeat(heartbeat).in_memory();
    let fs = open(&image).unwrap();
    let slot = fs.heartbeats().unwrap().into_iter().find(|h| h.in_use()).unwrap();
    let journal = fs.journal(&slot).unwrap().unwrap();
    let transaction = journal.transaction.unwrap();
    let fd_at = image.fd_at("web01/web01.vmx");
    assert_eq!(transaction.locks.len(), 1);
    assert_eq!((transaction.locks[0].offset, transaction.locks[0].still_held), (fd_at, true));
    assert_eq!(transaction.writes.len(), 1);
    assert_eq!(transaction.writes[0].offset, fd_at + 4096);
    assert_eq!((transaction.writes[0].changed_bytes, transaction.writes[0].on_disk), (8, false));
}

#[test]
fn a_lock_of_a_dead_host_is_stale() {
    for maker in [Maker::five(), Maker::six()] {
        let image = maker
            .with(Entry::file("held", b"x").held_by_a_dead_host(3))
            .heartbeat(Heartbeat::live(3, "10.0.0.7").generation(8))
            .in_memory();
        assert_eq!(codes(&image), BTreeSet::from(["vmfs-stale-lock"]));
        let fs = open(&image).unwrap();
        let node = adit_core::NodeId(image.fd_address("held").0.into());
        assert_eq!(fs.lock(node).unwrap().state, adit_vmfs::lock::Hold::Stale);
    }
}

/// What a damage must be called in each version it is done to.
fn damages() -> Vec<(Damage<'static>, &'static [&'static str])> {
    vec![
        (Damage::FdMarkedFree("web01/medium.log"), &["vmfs-block-leaked", "vmfs-entry-fd"]),
        (Damage::BlockMarkedFree("web01/web01-flat.vmdk"), &["vmfs-block-free"]),
        (Damage::BlockLost, &["vmfs-block-leaked"]),
        (Damage::FreeCount, &["vmfs-free-count"]),
        (
            Damage::PointerOutOfRange("web01/web01-flat.vmdk"),
            &["vmfs-block-leaked", "vmfs-pointer-range"],
        ),
        (
            Damage::SharedBlock("web01/web01-flat.vmdk", "other/second-flat.vmdk"),
            &["vmfs-block-leaked", "vmfs-block-shared"],
        ),
        (Damage::PointerLoop("web01/far.vmdk"), &["vmfs-pointer-loop"]),
        (Damage::FdAddress("web01/web01.vmx"), &["vmfs-entry-fd", "vmfs-fd"]),
        (Damage::FdType("web01/web01.vmx"), &["vmfs-entry-fd", "vmfs-fd"]),
        (Damage::BlockCount("web01/web01-flat.vmdk"), &["vmfs-fd-count"]),
        (Damage::TbzCount("web01/web01-flat.vmdk"), &["vmfs-fd-count"]),
        (Damage::LockOffset("web01/web01.vmx"), &["vmfs-lock-offset"]),
        (Damage::LinkCount("web01/web01.vmx"), &["vmfs-link-count"]),
        (Damage::LinkCount("web01"), &["vmfs-link-count"]),
        (Damage::LengthBeyondAddressing("web01/web01-flat.vmdk"), &["vmfs-fd-length"]),
        (Damage::DirentGeneration("web01/web01.vmx"), &["vmfs-entry-stale"]),
        (Damage::DirentToFreeFd("web01/web01.vmx"), &["vmfs-entry-fd", "vmfs-orphan"]),
    ]
}

fn damaged(maker: Maker, damage: Damage<'_>) -> BTreeSet<&'static str> {
    let mut image = populated(maker).in_memory();
    image.damage(damage);
    codes(&image)
}

#[test]
fn each_damage_has_its_own_code_in_every_version() {
    for (damage, expected) in damages() {
        for (name, maker) in
            [("VMFS3", Maker::three()), ("VMFS5", Maker::five()), ("VMFS6", Maker::six())]
        {
            let mut found = damaged(maker, damage);
            // VMFS6 clusters list their owners, so a block that changes hands shows there, too.
            let listed = found.remove("vmfs-affinity");
            assert!(!listed || name == "VMFS6", "{name} {damage:?}");
            assert_eq!(found, BTreeSet::from_iter(expected.iter().copied()), "{name} {damage:?}");
        }
    }
}

#[test]
fn damage_to_hashed_directories_has_its_own_codes() {
    let twins = colliding_names(14);
    let twin = format!("twins/{}", twins[0]);
    let damages: [(Damage<'_>, &[&'static str]); 4] = [
        (Damage::HashBucket("web01/web01.vmx"), &["vmfs-hash-index"]),
        (Damage::StoredHash("web01/web01.vmx"), &["vmfs-entry-hash"]),
        (Damage::EntryCount("web01"), &["vmfs-directory-count"]),
        (
            Damage::LinkGroupLoop(&twin),
            &["vmfs-hash-cycle", "vmfs-hash-group", "vmfs-hash-unreachable"],
        ),
    ];
    for (damage, expected) in damages {
        let found = damaged(Maker::six(), damage);
        assert_eq!(found, BTreeSet::from_iter(expected.iter().copied()), "{damage:?}");
    }
}

#[test]
fn a_heartbeat_that_stands_elsewhere_or_in_no_known_state_is_found() {
    let mut image = populated(Maker::six()).in_memory();
    image.write(0x30_0000 + 4096 * 7 + 4, &[0xff]);
    image.write(0x30_0000 + 4096 * 8, &[0x03]);
    let found = codes(&image);
    assert_eq!(found, BTreeSet::from(["vmfs-heartbeat-offset", "vmfs-heartbeat-state"]));
}

#[test]
fn what_is_free_must_name_no_owner() {
    let mut image = populated(Maker::six()).in_memory();
    image.write(0x30_0000 + 4096 * 7 + 0x1c, &[1]);
    image.write(image.fd_at("web01/web01.vmx") + 0x28, &[1]);
    let found = codes(&image);
    assert_eq!(found, BTreeSet::from(["vmfs-heartbeat-leftover", "vmfs-lock-owner"]));
}

#[test]
fn a_small_block_bitmap_that_disagrees_with_its_parent_is_found() {
    let mut image = populated(Maker::six()).in_memory();
    let fs = open(&image).unwrap();
    let file = fs.resource(adit_vmfs::ResourceKind::FileBlocks).unwrap();
    let (at, _) =
        fs.resource_run(adit_vmfs::ResourceKind::FileBlocks, file.header_offset, 1).unwrap();
    for (field, what) in [(0x3c, "clusters per group"), (0x54, "converted")] {
        let old = image.read(at + field, 1);
        image.write(at + field, &[old[0] ^ 1]);
        let found = findings(&image);
        assert!(found.iter().any(|f| f.text.contains(what)), "{field:#x} {found:?}");
        image.write(at + field, &old);
    }
}

#[test]
fn a_superblock_that_names_another_place_for_a_system_fd_is_found() {
    let mut image = populated(Maker::six()).in_memory();
    image.write(0x20_0000 + 0x105, &[1]);
    assert_eq!(codes(&image), BTreeSet::from(["vmfs-superblock"]));
}

#[test]
fn findings_say_where_in_the_volume() {
    let mut image = populated(Maker::six()).in_memory();
    image.damage(Damage::LockOffset("web01/web01.vmx"));
    let place = findings(&image)[0].place.clone().unwrap();
    assert_eq!(place.byte, Some(image.fd_at("web01/web01.vmx")));
}

#[test]
fn a_check_stops_when_asked() {
    let image = populated(Maker::six()).in_memory();
    let interrupt = Interrupt::default();
    interrupt.raise();
    let error: Error = open(&image).unwrap().check(&mut |_| {}, &interrupt).unwrap_err();
    assert_eq!(error.kind(), adit_core::Kind::Interrupted);
}

#[test]
fn one_cause_reports_at_most_a_thousand_times() {
    let mut image = populated(Maker::six()).in_memory();
    // Every heartbeat slot in a state nobody knows.
    for slot in 0..1024u64 {
        image.write(0x30_0000 + slot * 4096, &[9, 9, 9, 9]);
    }
    let all = findings(&image);
    assert_eq!(all.iter().filter(|f| f.code == "vmfs-heartbeat-state").count(), 1000);
    assert_eq!(all.iter().filter(|f| f.code == "vmfs-more").count(), 1);
}
