//! `.vmx` and `.vmsd` files: what is refused, and what is reported and survived.

use adit_core::{Kind, Limits};
use adit_vmx::{Dictionary, Snapshots, Vmx};

fn kind(bytes: &[u8]) -> Kind {
    Vmx::parse(bytes, &Limits::default()).unwrap_err().kind()
}

fn tree(text: &str) -> Snapshots {
    Snapshots::parse(text.as_bytes(), &Limits::default()).unwrap()
}

fn codes(tree: &Snapshots) -> Vec<&str> {
    tree.problems.iter().map(|problem| problem.code).collect()
}

/// The uids of a tree, children in brackets.
fn shape(snapshots: &[adit_vmx::Snapshot]) -> String {
    let one = |s: &adit_vmx::Snapshot| match s.children.is_empty() {
        true => s.uid.to_string(),
        false => format!("{}[{}]", s.uid, shape(&s.children)),
    };
    snapshots.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn chain(pairs: &[(u64, u64)]) -> String {
    let mut text = String::new();
    for (at, (uid, parent)) in pairs.iter().enumerate() {
        text += &format!("snapshot{at}.uid = \"{uid}\"\nsnapshot{at}.parent = \"{parent}\"\n");
    }
    text
}

#[test]
fn a_file_of_nul_bytes_is_refused() {
    assert_eq!(kind(&[0; 4096]), Kind::Corrupt);
}

#[test]
fn utf_16_is_refused_by_name() {
    let error = Vmx::parse(b"\xff\xfea\0 \0", &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.detail().contains("UTF-16"));
}

#[test]
fn a_text_that_describes_no_machine_is_refused() {
    for text in [&b""[..], b"hello", b"a = \"b\"\n", b"\x7fELF\x02\x01\x01"] {
        assert_eq!(kind(text), Kind::Corrupt, "{text:?}");
    }
}

#[test]
fn a_text_longer_than_the_limit_is_refused() {
    let limits = Limits { text_bytes_max: 64, ..Limits::default() };
    let error = Dictionary::parse(&[b'#'; 65], &limits).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert!(error.advice().unwrap().contains("text_bytes_max"));
    assert!(Dictionary::parse(&[b'#'; 64], &limits).is_ok());
}

#[test]
fn broken_lines_are_noted_and_the_others_kept() {
    let text = b"displayName = \"a\nnonsense\n = \"x\"\nguestOS = \"b\" c\n\0\0after";
    let vmx = Vmx::parse(text, &Limits::default()).unwrap();
    assert_eq!((vmx.display_name.as_str(), vmx.guest_os.as_str()), ("a", "b"));
    let found: Vec<_> = vmx
        .notes
        .iter()
        .map(|note| (note.code, note.place.as_ref().and_then(|place| place.index)))
        .collect();
    assert_eq!(
        found,
        [
            ("vmx-nul", None),
            ("vmx-quote", Some(1)),
            ("vmx-line", Some(2)),
            ("vmx-line", Some(3)),
            ("vmx-quote", Some(4)),
        ]
    );
}

#[test]
fn a_thousand_broken_lines_make_a_hundred_notes_and_a_count() {
    let dictionary = Dictionary::parse("x\n".repeat(1000).as_bytes(), &Limits::default()).unwrap();
    assert_eq!(dictionary.notes.len(), 101);
    assert!(dictionary.notes[100].text.starts_with("900 more"));
}

#[test]
fn numbers_that_are_none_are_noted_not_guessed() {
    let vmx = Vmx::parse(b"memSize = \"lots\"\nnumvcpus = \"-2\"\n", &Limits::default()).unwrap();
    assert_eq!((vmx.memory_mib, vmx.vcpus), (None, 1));
    assert_eq!(vmx.notes.iter().filter(|note| note.code == "vmx-number").count(), 2);
}

#[test]
fn slots_beyond_any_hardware_are_left_out_aloud() {
    let text = "guestOS = \"x\"\nscsi99:0.fileName = \"a.vmdk\"\n\
                scsi0:99999999999999999999.fileName = \"b.vmdk\"\nscsi0:+1.fileName = \"c.vmdk\"\n";
    let vmx = Vmx::parse(text.as_bytes(), &Limits::default()).unwrap();
    assert!(vmx.disks.is_empty());
    assert_eq!(vmx.notes.iter().filter(|note| note.code == "vmx-device").count(), 1);
}

#[test]
fn a_loop_of_parents_is_reported_and_loses_nobody() {
    // 7 hangs on a loop of 1, 2 and 3; 9 is its own parent; 4 is sound.
    let tree = tree(&chain(&[(7, 2), (1, 3), (2, 1), (3, 2), (9, 9), (4, 0)]));
    assert_eq!(codes(&tree), ["vmsd-loop", "vmsd-loop"]);
    assert_eq!(shape(&tree.roots), "4 2[7 3[1]] 9");
}

#[test]
fn a_parent_that_is_not_described_is_reported() {
    let tree = tree(&chain(&[(2, 1), (3, 2)]));
    assert_eq!(codes(&tree), ["vmsd-parent-missing"]);
    assert!(tree.problems[0].text.contains("uid 1, which is not described"));
    assert_eq!(shape(&tree.roots), "2[3]");
}

#[test]
fn a_uid_given_twice_is_reported_and_both_are_kept() {
    let tree = tree(&chain(&[(1, 0), (1, 0), (2, 1)]));
    assert_eq!(codes(&tree), ["vmsd-uid"]);
    assert_eq!(shape(&tree.roots), "1[2] 1");
}

#[test]
fn a_snapshot_without_uid_is_left_out_aloud() {
    let tree = tree("snapshot0.displayName = \"x\"\nsnapshot1.uid = \"1\"\n");
    assert_eq!(codes(&tree), ["vmsd-uid"]);
    assert_eq!(shape(&tree.roots), "1");
}

#[test]
fn counts_that_do_not_match_are_reported() {
    let tree = tree(
        "snapshot.numSnapshots = \"2\"\nsnapshot.current = \"8\"\nsnapshot0.uid = \"1\"\n\
         snapshot0.numDisks = \"2\"\nsnapshot0.disk0.fileName = \"a.vmdk\"\n",
    );
    assert_eq!(codes(&tree), ["vmsd-count", "vmsd-disks", "vmsd-current"]);
}

#[test]
fn a_number_of_snapshots_is_never_believed() {
    let tree = tree("snapshot.numSnapshots = \"18446744073709551615\"\n");
    assert_eq!(codes(&tree), ["vmsd-count"]);
}

#[test]
fn a_chain_deeper_than_the_limit_is_cut_and_loses_nobody() {
    let pairs: Vec<_> = (1..=20_000).map(|uid| (uid, uid - 1)).collect();
    let tree = tree(&chain(&pairs));
    assert_eq!(tree.iter().count(), 20_000);
    assert_eq!(tree.roots.len(), 20_000usize.div_ceil(256));
    assert!(codes(&tree).contains(&"vmsd-depth"));
}

#[test]
fn times_that_make_no_sense_are_none() {
    for (high, low) in [("x", "1"), ("4294967296", "1"), ("1", "-2147483649"), ("", "")] {
        let text = format!(
            "snapshot0.uid = \"1\"\nsnapshot0.createTimeHigh = \"{high}\"\n\
             snapshot0.createTimeLow = \"{low}\"\n"
        );
        assert_eq!(tree(&text).roots[0].created, None, "{high} {low}");
    }
}
