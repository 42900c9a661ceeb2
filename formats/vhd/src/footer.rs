//! The footer: which of its copies counts, and whether it may be believed.

use crate::layout::{COOKIE, COOKIE_POISONED, RawFooter, SECTOR_BYTES};
use adit_core::bytes::{array, wide};
use adit_core::{Disk, DiskExt, Error, Finding, Place, Problem, Result};

/// What kind of image it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The disk byte for byte, then the footer.
    Fixed,
    /// Blocks, allocated as they are written.
    Dynamic,
    /// As dynamic, over a parent.
    Differencing,
}

impl Kind {
    /// What to call it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Fixed => "fixed",
            Kind::Dynamic => "dynamic",
            Kind::Differencing => "differencing",
        }
    }
}

/// Where a footer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FooterPlace {
    /// The last 512 bytes.
    End,
    /// The last 511 bytes, as before 2004.
    EndShort,
    /// The copy at offset 0.
    Front,
}

/// A footer whose cookie, checksum, version and type are right.
#[derive(Clone, Debug)]
pub(crate) struct Footer {
    pub raw: RawFooter,
    pub kind: Kind,
    pub place: FooterPlace,
}

impl Footer {
    /// Length of the footer at the end of the file, which is no data. Unit: bytes.
    pub fn tail_bytes(&self) -> u64 {
        match self.place {
            FooterPlace::End => 512,
            FooterPlace::EndShort => 511,
            FooterPlace::Front => 0,
        }
    }

    /// Whether tapdisk, or a tool of its family, wrote the image.
    pub fn by_tap(&self) -> bool {
        self.raw.creator_application.starts_with(b"tap")
    }

    /// The size the geometry gives. Unit: bytes.
    pub fn chs_bytes(&self) -> u64 {
        u64::from(self.raw.cylinders)
            .saturating_mul(u64::from(self.raw.heads))
            .saturating_mul(u64::from(self.raw.sectors))
            .saturating_mul(SECTOR_BYTES)
    }
}

/// The first 512 and the last 512 bytes of a file, and its size.
pub(crate) struct Ends {
    pub front: Vec<u8>,
    pub tail: Vec<u8>,
    pub file_bytes: u64,
}

impl Ends {
    pub fn read(file: &dyn Disk) -> Result<Ends> {
        let file_bytes = file.size_bytes();
        let front = file.read_prefix(0, 512)?;
        let tail = file.read_prefix(file_bytes.saturating_sub(512), 512)?;
        Ok(Ends { front, tail, file_bytes })
    }

    /// The footer at the end, if there is one.
    pub fn trailing(&self) -> Option<Result<Footer>> {
        if let Some(footer) = parse(&self.tail, FooterPlace::End) {
            return Some(footer);
        }
        let mut short = self.tail.get(self.tail.len().checked_sub(511)?..)?.to_vec();
        short.push(0);
        parse(&short, FooterPlace::EndShort)
    }

    /// The copy at offset 0, if there is one.
    pub fn front(&self) -> Option<Result<Footer>> {
        parse(&self.front, FooterPlace::Front)
    }

    fn poisoned(&self) -> Option<u64> {
        let tail = self.file_bytes.saturating_sub(wide(self.tail.len()));
        [(&self.front, 0), (&self.tail, tail)]
            .into_iter()
            .find(|(bytes, _)| bytes.starts_with(COOKIE_POISONED))
            .map(|(_, at)| at)
    }
}

/// The footer that counts: the one at the end if it is right, else the copy at offset 0.
///
/// Errors: `Corrupt` if there is none or none is right; `Unsupported` during a resize.
pub(crate) fn choose(ends: &Ends, notes: &mut Vec<Finding>) -> Result<Footer> {
    let (tail, front) = (ends.trailing(), ends.front());
    // The first sector of a fixed disk belongs to the guest: nothing it holds is believed.
    if let Some(Ok(footer)) = &tail
        && footer.kind == Kind::Fixed
    {
        if matches!(&front, Some(Ok(front)) if front.kind != Kind::Fixed) {
            notes.push(Finding::warning(
                "vhd-front-in-fixed",
                "the first sector of this fixed disk looks like the footer of a dynamic image; \
                 it is read as the guest's data",
            ));
        }
        return Ok(footer.clone());
    }
    if let Some(at) = ends.poisoned() {
        return Err(Error::unsupported("a resize of this image by vhd-util was not finished")
            .at(Place::new("footer").field("cookie").byte(at))
            .advise("`vhd-util revert` with the resize's journal brings the old image back"));
    }
    match (tail, front) {
        (Some(Ok(tail)), front) => Ok(with_tail(tail, front, notes)),
        (tail, Some(Ok(front))) if front.kind != Kind::Fixed => {
            let why = match tail {
                Some(Err(error)) => format!("is damaged ({error})"),
                _ => "is missing".to_owned(),
            };
            notes.push(
                Finding::warning(
                    "vhd-footer-copy-used",
                    format!("the footer at the end {why}; the copy at offset 0 is used"),
                )
                .at(Place::new("footer").byte(ends.file_bytes.saturating_sub(512)))
                .advise("the image was not closed cleanly; a writer puts the footer back"),
            );
            Ok(front)
        }
        (Some(Err(error)), _) | (None, Some(Err(error))) => Err(error),
        (None, _) => Err(Error::corrupt(
            Problem::BadMagic,
            "there is no VHD footer, neither at the end nor at offset 0",
        )
        .at(Place::new("footer"))),
    }
}

fn with_tail(tail: Footer, front: Option<Result<Footer>>, notes: &mut Vec<Finding>) -> Footer {
    let place = Place::new("footer copy").byte(0);
    match front {
        Some(Ok(front)) => {
            let alike = RawFooter { hidden: tail.raw.hidden, checksum: 0, ..front.raw.clone() };
            if alike != (RawFooter { checksum: 0, ..tail.raw.clone() }) {
                notes.push(
                    Finding::warning(
                        "vhd-footers-differ",
                        "the copy at offset 0 differs from the footer at the end, which is used",
                    )
                    .at(place),
                );
            }
        }
        Some(Err(error)) => {
            notes.push(Finding::warning("vhd-footer-copy-damaged", error.to_string()).at(place));
        }
        None => notes.push(
            Finding::warning("vhd-footer-copy-damaged", "the copy at offset 0 is missing")
                .at(place)
                .advise("the front of the file was overwritten; look at the data with care"),
        ),
    }
    tail
}

/// Reads a footer, or nothing where there is no cookie.
fn parse(bytes: &[u8], place: FooterPlace) -> Option<Result<Footer>> {
    bytes.starts_with(COOKIE).then(|| checked(bytes, place))
}

fn checked(bytes: &[u8], place: FooterPlace) -> Result<Footer> {
    let raw = RawFooter::read(bytes)?;
    let at = |field: &'static str| Place::new("footer").field(field);
    let sum = checksum(bytes, 0x40);
    if sum != raw.checksum && !hidden_without_checksum(&raw, bytes) {
        return Err(Error::corrupt(
            Problem::BadChecksum,
            format!("is {:#010x} where the bytes give {sum:#010x}", raw.checksum),
        )
        .at(at("checksum")));
    }
    if raw.version >> 16 != 1 {
        return Err(
            Error::unsupported(format!("version {:#010x} of VHD", raw.version)).at(at("version"))
        );
    }
    let kind = match raw.disk_type {
        2 => Kind::Fixed,
        3 => Kind::Dynamic,
        4 => Kind::Differencing,
        other => {
            return Err(Error::unsupported(format!("disk type {other}")).at(at("disk_type")));
        }
    };
    Ok(Footer { raw, kind, place })
}

/// Early XenServer tools set `hidden` and left the checksum as it was.
fn hidden_without_checksum(raw: &RawFooter, bytes: &[u8]) -> bool {
    let early = matches!(raw.creator_version, 0x0000_0001 | 0x0001_0001);
    if !(raw.creator_application.starts_with(b"tap") && early && raw.hidden != 0) {
        return false;
    }
    let without = checksum(bytes, 0x40).wrapping_add(u32::from(raw.hidden));
    without == raw.checksum
}

/// One's complement of the sum of all bytes but the four at `field`.
pub(crate) fn checksum(bytes: &[u8], field: usize) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, &b| sum.wrapping_add(u32::from(b)));
    let own = array::<4>(bytes, field).map_or(0, |own| sum(&own));
    !sum(bytes).wrapping_sub(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_complement_of_the_sum_without_itself() {
        let mut bytes = [0u8; 512];
        bytes[0] = 200;
        bytes[511] = 100;
        bytes[0x40..0x44].copy_from_slice(&[9, 9, 9, 9]);
        assert_eq!(checksum(&bytes, 0x40), !300);
    }

    #[test]
    fn only_early_tap_footers_may_be_hidden_behind_an_old_checksum() {
        let mut raw = RawFooter::read(&[0; 512]).unwrap();
        raw.cookie = *COOKIE;
        raw.version = 0x0001_0000;
        raw.disk_type = 3;
        raw.creator_application = *b"tap\0";
        raw.creator_version = 0x0001_0001;
        let mut bytes = [0; 512];
        raw.write(&mut bytes).unwrap();
        raw.checksum = checksum(&bytes, 0x40);
        raw.hidden = 1;
        raw.write(&mut bytes).unwrap();
        assert!(parse(&bytes, FooterPlace::End).unwrap().is_ok());
        raw.creator_version = 0x0001_0003;
        raw.hidden = 0;
        raw.write(&mut bytes).unwrap();
        raw.checksum = checksum(&bytes, 0x40);
        raw.hidden = 1;
        raw.write(&mut bytes).unwrap();
        assert!(parse(&bytes, FooterPlace::End).unwrap().is_err());
    }
}
