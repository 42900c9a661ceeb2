//! Replacing footers and header so that one valid set stands at every moment.

use super::state::{State, set_size, write};
use crate::footer::checksum;
use crate::layout::{RawFooter, RawHeader, SECTOR_BYTES};
use adit_core::{Result, Stage};
use std::time::{SystemTime, UNIX_EPOCH};

/// Fields of the checksums.
const FOOTER_CHECKSUM: usize = 0x40;
const HEADER_CHECKSUM: usize = 0x24;
/// 2000-01-01 UTC. Unit: seconds since 1970.
const EPOCH_SECONDS: u64 = 946_684_800;

/// Now, as footers say it. Unit: seconds since 2000-01-01 UTC.
pub(super) fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    u32::try_from(since.saturating_sub(EPOCH_SECONDS)).unwrap_or(u32::MAX)
}

/// The bytes of a footer, with its checksum; bytes without name are those of `base`.
pub(super) fn footer_bytes(raw: &mut RawFooter, base: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = base.to_vec();
    bytes.resize(RawFooter::SIZE, 0);
    raw.write(&mut bytes)?;
    raw.checksum = checksum(&bytes, FOOTER_CHECKSUM);
    raw.write(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of a dynamic header, with its checksum.
pub(super) fn header_bytes(raw: &mut RawHeader, base: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = base.to_vec();
    bytes.resize(RawHeader::SIZE, 0);
    raw.write(&mut bytes)?;
    raw.checksum = checksum(&bytes, HEADER_CHECKSUM);
    raw.write(&mut bytes)?;
    Ok(bytes)
}

impl State {
    /// The footer as it is now, in bytes.
    pub fn sealed_footer(&mut self) -> Result<Vec<u8>> {
        self.footer_bytes = footer_bytes(&mut self.footer, &self.footer_bytes)?;
        Ok(self.footer_bytes.clone())
    }

    /// Puts another footer in force: first the copy at offset 0, which does not count while the
    /// one at the end is right, then that.
    pub fn replace_footer(&mut self, footer: RawFooter) -> Result<Vec<Stage>> {
        self.footer = footer;
        let bytes = self.sealed_footer()?;
        let front = self.tables.is_some().then(|| vec![write(0, bytes.clone())]);
        let tail = self.tail.map(|tail| vec![write(tail, bytes)]);
        Ok(front.into_iter().chain(tail).collect())
    }

    /// The footer at the end behind everything, if something came to stand behind it.
    pub fn move_tail(&mut self) -> Result<Vec<Stage>> {
        if self.tail.is_none_or(|tail| tail >= self.end) {
            return Ok(Vec::new());
        }
        self.tail = Some(self.end);
        let bytes = self.sealed_footer()?;
        Ok(vec![vec![write(self.end, bytes)]])
    }

    /// Puts another header in force, whose change lies in its first sector.
    pub fn replace_header_sector(&mut self, mut raw: RawHeader) -> Result<Stage> {
        let tables = self.tables_mut()?;
        tables.header_bytes = header_bytes(&mut raw, &tables.header_bytes)?;
        tables.header.raw = raw;
        let sector = tables.header_bytes.get(..512).unwrap_or_default().to_vec();
        Ok(vec![write(tables.header.offset, sector)])
    }

    /// Puts another header and footer in force at once: a header has two sectors, so the new one
    /// is written behind everything, the footers name it there, and then it comes home.
    pub fn replace_headers(&mut self, mut raw: RawHeader, footer: RawFooter) -> Result<Vec<Stage>> {
        let old_footer = self.sealed_footer()?;
        let old_tail = self.tail.unwrap_or(self.end);
        let away = self.behind();
        let far_tail = away.saturating_add(1024);
        let tables = self.tables_mut()?;
        let home = tables.header.offset;
        tables.header_bytes = header_bytes(&mut raw, &tables.header_bytes)?;
        tables.header.raw = raw;
        let header = tables.header_bytes.clone();
        let mut via = RawFooter { data_offset: away, ..footer.clone() };
        let via = footer_bytes(&mut via, &self.footer_bytes)?;
        self.footer = RawFooter { data_offset: home, ..footer };
        let new = self.sealed_footer()?;
        self.tail = Some(old_tail);
        Ok(vec![
            vec![write(away, header.clone()), write(far_tail, old_footer)],
            vec![write(0, via.clone())],
            vec![write(far_tail, via)],
            vec![write(home, header)],
            vec![write(0, new.clone())],
            vec![write(far_tail, new.clone())],
            vec![write(old_tail, new)],
            vec![set_size(old_tail.saturating_add(SECTOR_BYTES))],
        ])
    }
}
