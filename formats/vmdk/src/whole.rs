//! A whole disk, to be checked: its descriptor and every extent.

use crate::check::check_sparse;
use crate::open::{check_readable, is_sparse, place};
use crate::sparse::ExtentHeader;
use crate::writer::descriptor_text;
use crate::{Access, Descriptor, ExtentLine, ExtentType, Purpose, Reference, SECTOR_BYTES};
use adit_core::{Check, Disk, DiskExt, Error, Finding, Interrupt, Kind, Limits, Result};
use std::sync::Arc;

/// A disk and its files, for [`Check`].
#[derive(Clone, Debug)]
pub struct Files {
    name: String,
    descriptor: Descriptor,
    /// The file of each extent; none where it holds nothing.
    extents: Vec<Option<Result<Arc<dyn Disk>>>>,
    limits: Limits,
}

impl Files {
    /// Finds the files of a disk. `file` is its descriptor, or the sparse file that holds one;
    /// `resolve` finds the files of the extents, and is asked for nothing else. One that is
    /// missing becomes a finding of the check.
    ///
    /// Errors: as [`Descriptor::parse`]; `Unsupported` for an extent without its descriptor,
    /// which [`check_sparse`] checks.
    pub fn open(
        name: &str,
        file: &Arc<dyn Disk>,
        resolve: &mut dyn FnMut(&Reference) -> Result<Arc<dyn Disk>>,
        limits: &Limits,
    ) -> Result<Files> {
        let text = descriptor_text(file, limits)?;
        let descriptor = Descriptor::parse(text.text.bytes(), limits)?;
        let own = if text.alone { None } else { crate::open::own_line(&descriptor)? };
        let mut find = |(index, line): (usize, &ExtentLine)| {
            let name = line.file.as_ref().filter(|_| line.access != Access::None)?;
            if own == Some(index) {
                return Some(Ok(Arc::clone(file)));
            }
            let reference = Reference { name: name.clone(), purpose: Purpose::Extent(index) };
            Some(resolve(&reference))
        };
        let extents = descriptor.extents.iter().enumerate().map(&mut find).collect();
        Ok(Files { name: name.to_owned(), descriptor, extents, limits: limits.clone() })
    }

    fn extent(
        &self,
        line: &ExtentLine,
        file: &Arc<dyn Disk>,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<()> {
        let name = String::from_utf8_lossy(line.file.as_deref().unwrap_or_default());
        if is_sparse(line) {
            check_sparse(&name, file, &self.limits, report, interrupt)?;
            let capacity = ExtentHeader::read(file).map_or(u64::MAX, |h| h.capacity_bytes());
            if capacity < line.size_bytes() {
                let text = format!(
                    "the header knows {capacity} bytes, the descriptor promises {}",
                    line.size_bytes()
                );
                report(Finding::error("vmdk-extent-damaged", text).at(place(line)));
            }
            return Ok(());
        }
        if matches!(line.kind, ExtentType::Flat | ExtentType::Vmfs) {
            let end = line.offset_sectors.saturating_mul(SECTOR_BYTES);
            let end = end.saturating_add(line.size_bytes());
            if file.size_bytes() < end {
                let text = format!("the file has {} of {end} bytes", file.size_bytes());
                report(Finding::error("vmdk-extent-short", text).at(place(line)));
            }
        }
        Ok(())
    }
}

impl Check for Files {
    /// Checks every extent: each table and grain of sparse ones, the length of flat ones.
    fn check(&self, report: &mut dyn FnMut(Finding), interrupt: &Interrupt) -> Result<()> {
        let layer = format!("VMDK {}", self.name);
        let mut report = |mut finding: Finding| {
            finding.trail.push(layer.clone());
            report(finding);
        };
        self.descriptor.notes.iter().cloned().for_each(&mut report);
        if let Err(error) = check_readable(&self.descriptor) {
            report(Finding::from_error("vmdk-unreadable", &error));
        }
        for (line, file) in self.descriptor.extents.iter().zip(&self.extents) {
            interrupt.check()?;
            match file {
                None => {}
                Some(Ok(file)) => self.extent(line, file, &mut report, interrupt)?,
                Some(Err(error)) => report(missing(line, error)),
            }
        }
        Ok(())
    }
}

fn missing(line: &ExtentLine, error: &Error) -> Finding {
    let what = if error.kind() == Kind::NotFound { "is missing" } else { "cannot be had" };
    let name = String::from_utf8_lossy(line.file.as_deref().unwrap_or_default());
    let text = format!("extent {name:?} {what}: {}", error.detail());
    Finding::error("vmdk-extent-missing", text).at(place(line))
}
