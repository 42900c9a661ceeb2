//! Header extensions: typed blocks between the header and the end of the first cluster.

use crate::layout::{BitmapsExtension, ExtensionHead, FeatureName, extension};
use crate::power::Power;
use adit_core::bytes::{narrow, u64_be, wide};
use adit_core::{Error, Place, Problem, Result};
use std::ops::Range;

/// What the extensions say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions {
    pub(crate) backing_format: Option<Vec<u8>>,
    pub(crate) data_file: Option<Vec<u8>>,
    pub(crate) feature_names: Vec<FeatureName>,
    pub(crate) bitmaps: Option<BitmapsExtension>,
    /// Where the LUKS header stands. Unit: bytes.
    pub(crate) luks: Option<Range<u64>>,
    /// Types that nobody here knows; they may be ignored.
    pub(crate) unknown: Vec<u32>,
}

const PADDING: Power = Power::new(3);

/// Reads the extensions that lie from `start` on; `area` is the file from byte 0 to where they
/// must end.
///
/// Errors: `Corrupt` for a block that leaves the area.
pub(crate) fn parse(area: &[u8], start: u64) -> Result<Extensions> {
    let mut found = Extensions::default();
    let mut at = start;
    while let Some((head, data)) = next(area, at)? {
        let end = PADDING.times(PADDING.count(wide(data.len())));
        at = at.saturating_add(wide(ExtensionHead::SIZE)).saturating_add(end);
        match head.kind {
            extension::BACKING_FORMAT => found.backing_format = Some(data.to_vec()),
            extension::DATA_FILE => found.data_file = Some(data.to_vec()),
            extension::BITMAPS => found.bitmaps = Some(BitmapsExtension::read(data)?),
            extension::FEATURE_NAMES => {
                found.feature_names = data
                    .chunks_exact(FeatureName::SIZE)
                    .map(FeatureName::read)
                    .collect::<Result<_>>()?;
            }
            extension::LUKS => {
                let at = |start: usize| u64_be(data, start).unwrap_or(0);
                found.luks = Some(at(0)..at(0).saturating_add(at(8)));
            }
            kind => found.unknown.push(kind),
        }
    }
    Ok(found)
}

/// The extension at `at`, or nothing at the end of the list or of the area.
fn next(area: &[u8], at: u64) -> Result<Option<(ExtensionHead, &[u8])>> {
    let rest = narrow(at).and_then(|at| area.get(at..)).unwrap_or_default();
    if rest.len() < ExtensionHead::SIZE {
        return Ok(None);
    }
    let head = ExtensionHead::read(rest)?;
    if head.kind == extension::END {
        return Ok(None);
    }
    let room = rest.get(ExtensionHead::SIZE..).unwrap_or_default();
    let data = narrow(u64::from(head.length)).and_then(|length| room.get(..length));
    let data = data.ok_or_else(|| {
        Error::corrupt(
            Problem::OutOfRange,
            format!("type {:#010x} has {} bytes of {} left", head.kind, head.length, room.len()),
        )
        .at(Place::new("QCOW2 header extension").field("length").byte(at))
    })?;
    Ok(Some((head, data)))
}

/// Whether the end of the list shows inside `area`.
pub(crate) fn ends_inside(area: &[u8], start: u64) -> bool {
    let mut at = start;
    loop {
        let Some(rest) = narrow(at).and_then(|at| area.get(at..)) else { return false };
        let Ok(head) = ExtensionHead::read(rest) else { return false };
        if head.kind == extension::END {
            return true;
        }
        let data = PADDING.times(PADDING.count(u64::from(head.length)));
        at = at.saturating_add(wide(ExtensionHead::SIZE)).saturating_add(data);
    }
}
