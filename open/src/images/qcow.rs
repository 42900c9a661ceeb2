//! QCOW and QCOW2.

use super::{Contents, Expect, Find, Identity, Image, Parts, Report, Wanted, facts};
use crate::Fact;
use crate::secret::cipher_of;
use adit_core::{Check, Disk, DiskExt, Finding, Inspect, Interrupt, Limits, Result};
use adit_qcow::{Purpose, Reference, SnapshotSize};
use std::sync::Arc;

/// The disk of an image, or one of its snapshots.
#[derive(Debug)]
struct Qcow {
    image: adit_qcow::Image,
    file: Arc<dyn Disk>,
    limits: Limits,
    snapshot: Option<String>,
    /// How large the disk of the snapshot is.
    size: SnapshotSize,
}

/// Reads the headers.
pub(crate) fn read(file: Arc<dyn Disk>, limits: &Limits) -> Result<Box<dyn Image>> {
    Ok(Box::new(Qcow::open(file, limits, None)?))
}

/// Reads the headers, for the disk as it was in a snapshot.
pub(crate) fn read_snapshot(
    file: Arc<dyn Disk>,
    limits: &Limits,
    snapshot: &str,
    now: bool,
) -> Result<Box<dyn Image>> {
    let size = if now { SnapshotSize::Now } else { SnapshotSize::Then };
    Ok(Box::new(Qcow { size, ..Qcow::open(file, limits, Some(snapshot.to_owned()))? }))
}

impl Image for Qcow {
    fn format(&self) -> String {
        let format = if self.image.version() == 1 { "QCOW" } else { "QCOW2" };
        match &self.snapshot {
            Some(_) => format!("{format} snapshot"),
            None => format.to_owned(),
        }
    }

    fn wants(&self) -> Vec<Wanted> {
        let wanted = |reference: Reference| Wanted {
            is_data: reference.purpose == Purpose::Data,
            expect: expected(reference.format.as_deref()),
            names: Some(reference.name).into_iter().filter(|name| !name.is_empty()).collect(),
            identity: None,
        };
        self.image.references().into_iter().map(wanted).collect()
    }

    fn identity(&self) -> Identity {
        Identity::None
    }

    fn accepts(&self, _parent: &Identity) -> Result<Vec<Finding>> {
        // QCOW stores nothing to compare.
        Ok(Vec::new())
    }

    fn check(&self, _: Find<'_>, report: Report<'_>, interrupt: &Interrupt) -> Result<()> {
        self.image.check(report, interrupt)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(&self.image)
    }

    fn disk(&self, name: &str, parts: Parts, _extent: Find<'_>) -> Result<Contents> {
        let cipher = cipher_of(&self.image, &self.file, &parts.secrets, &self.limits)?;
        let parts = adit_qcow::Parts { backing: parts.parent, data: parts.data };
        let image = self.image.clone();
        let image = match cipher {
            Some(cipher) => image.with_cipher(cipher),
            None => image,
        };
        let disk = match &self.snapshot {
            Some(snapshot) => image.disk_of_snapshot(name, snapshot, self.size, parts)?,
            None => image.disk(name, parts)?,
        };
        let mut notes = self.image.notes();
        let mut facts = vec![
            ("size_bytes", Fact::Bytes(disk.size_bytes())),
            ("version", Fact::Count(self.image.version().into())),
            ("cluster_size_bytes", Fact::Bytes(self.image.cluster_size_bytes())),
        ];
        if let Some(snapshot) = &self.snapshot {
            notes.extend(self.size_note(snapshot, disk.size_bytes()));
            facts.push(("snapshot", Fact::Text(snapshot.clone())));
        }
        let known = ["version", "cluster size", "snapshots", "bitmaps"];
        let others = self.image.facts().into_iter().filter(|(label, _)| !known.contains(label));
        facts.extend(others.map(|(label, text)| (facts::key(label), Fact::Text(text))));
        self.list(&mut facts, &mut notes);
        Ok(Contents { disk, facts, notes })
    }
}

impl Qcow {
    fn open(file: Arc<dyn Disk>, limits: &Limits, snapshot: Option<String>) -> Result<Qcow> {
        let image = adit_qcow::Image::open(Arc::clone(&file), limits)?;
        Ok(Qcow { image, file, limits: limits.clone(), snapshot, size: SnapshotSize::Then })
    }

    /// What is to be said of a snapshot that was taken when the disk had another size.
    fn size_note(&self, wanted: &str, shown_bytes: u64) -> Option<Finding> {
        let all = self.image.snapshots().ok()?;
        let named =
            |one: &&adit_qcow::Snapshot| one.id_text() == wanted || one.name_text() == wanted;
        let then = all.iter().find(named)?.disk_size_bytes;
        let now = self.image.size_bytes();
        let text = format!("the disk had {then} bytes in the snapshot, and has {now} now");
        match (then == now, shown_bytes < then) {
            (true, _) => None,
            (_, false) => Some(Finding::info("qcow-snapshot-size", text)),
            (_, true) => Some(
                Finding::warning("qcow-snapshot-cut", format!("{text}: its end is not shown"))
                    .advise("without `--snapshot-size now` all of it is"),
            ),
        }
    }

    /// Snapshots and bitmaps. The disk can be read without them, so damage is only said.
    fn list(&self, facts: &mut Vec<(&'static str, Fact)>, notes: &mut Vec<Finding>) {
        match self.image.snapshots() {
            Ok(list) if list.is_empty() => {}
            Ok(list) => {
                let names = list.iter().map(|one| format!("{} {}", one.id_text(), one.name_text()));
                facts.push(("snapshots", Fact::List(names.collect())));
            }
            Err(error) => notes.push(Finding::from_error("qcow-snapshots-unreadable", &error)),
        }
        match self.image.bitmaps() {
            Ok(list) if list.is_empty() => {}
            Ok(list) => {
                let names = list.iter().map(|one| match one.consistent {
                    true => one.name_text(),
                    false => format!("{} (not consistent)", one.name_text()),
                });
                facts.push(("bitmaps", Fact::List(names.collect())));
            }
            Err(error) => notes.push(Finding::from_error("qcow-bitmaps-unreadable", &error)),
        }
    }
}

/// What a backing file must be, by QEMU's word for its format.
fn expected(format: Option<&[u8]>) -> Expect {
    Expect::Format(match format {
        None => return Expect::Guess,
        Some(b"raw") => return Expect::Raw,
        Some(b"qcow" | b"qcow2") => &["qcow"],
        Some(b"vmdk") => &["vmdk", "vmdk-descriptor"],
        Some(b"vpc") => &["vhd"],
        Some(b"vhdx") => &["vhdx"],
        Some(b"vdi") => &["vdi"],
        Some(b"parallels") => &["parallels"],
        Some(other) => return Expect::Unknown(String::from_utf8_lossy(other).into_owned()),
    })
}
