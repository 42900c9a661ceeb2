//! What there is to say about an image: notes and facts.

use crate::layout::{autoclear, compatible, incompatible};
use crate::{Image, Purpose};
use adit_core::{DiskExt, Finding, Place};

impl Image {
    /// What is worth saying about the image.
    pub fn notes(&self) -> Vec<Finding> {
        let mut notes = Vec::new();
        let header = &self.header;
        if header.needs(incompatible::DIRTY) {
            notes.push(
                Finding::info("qcow-dirty", "was not closed, so its refcounts may be wrong")
                    .advise("reading is not affected; repair it before anything writes to it"),
            );
        }
        if header.needs(incompatible::CORRUPT) {
            notes.push(
                Finding::warning("qcow-corrupt", "a writer found it damaged and marked it so")
                    .advise("check it, and compare what matters with a backup"),
            );
        }
        if header.refcount_table.end > self.file().size_bytes() {
            notes.push(
                Finding::warning("qcow-refcounts-missing", "the file ends before its refcounts")
                    .at(Place::new("refcount table").byte(header.refcount_table.start))
                    .advise("reading is not affected; but the file may have been cut short"),
            );
        }
        if self.backing_name.is_some() && header.extensions.backing_format.is_none() {
            notes.push(Finding::warning(
                "qcow-backing-format-missing",
                "the format of the backing file is not stored and can only be guessed",
            ));
        }
        let bitmaps = header.extensions.bitmaps.as_ref().map_or(0, |place| place.nb_bitmaps);
        if bitmaps > 0 && header.autoclear & autoclear::BITMAPS == 0 {
            notes.push(
                Finding::warning(
                    "qcow-bitmaps-stale",
                    format!("{bitmaps} bitmaps: a program that does not know them wrote later"),
                )
                .advise("make the next backup a full one"),
            );
        }
        if !header.extensions.unknown.is_empty() {
            let list: Vec<String> = header
                .extensions
                .unknown
                .iter()
                .take(8)
                .map(|kind| format!("{kind:#010x}"))
                .collect();
            notes.push(Finding::info(
                "qcow-extension-unknown",
                format!("header extensions that are not known: {}", list.join(", ")),
            ));
        }
        notes
    }

    /// What the header says, in words, for `info`: label and value.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let header = &self.header;
        let yes = |set: bool| if set { "yes" } else { "no" }.to_owned();
        let mut facts = vec![
            ("version", header.version.to_string()),
            ("cluster size", format!("{} bytes", header.cluster.size())),
        ];
        if let Some(encryption) = header.encryption {
            facts.push(("encryption", encryption.word().to_owned()));
        }
        if header.version > 1 {
            facts.push(("compression", header.compression.word().to_owned()));
            facts.push(("refcounts", format!("{} bits", header.refcount_bits)));
            facts.push(("snapshots", header.snapshots.to_string()));
        }
        if header.version > 2 {
            let bitmaps = header.extensions.bitmaps.as_ref().map_or(0, |place| place.nb_bitmaps);
            let lazy = header.compatible & compatible::LAZY_REFCOUNTS != 0;
            facts.push(("extended L2", yes(header.needs(incompatible::EXTENDED_L2))));
            facts.push(("lazy refcounts", yes(lazy)));
            facts.push(("bitmaps", bitmaps.to_string()));
        }
        for reference in self.references() {
            let format = reference.format.as_deref().map(String::from_utf8_lossy);
            let text = format!("{} ({})", reference.text(), format.unwrap_or("no format".into()));
            facts.push(match reference.purpose {
                Purpose::Backing => ("backing file", text),
                Purpose::Data => ("data file", text),
            });
        }
        facts
    }
}
