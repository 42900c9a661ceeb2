//! An image by itself: verified, and shown structure by structure.

use crate::formats::recognise_image;
use crate::source::Source;
use crate::{Opened, Opener, Origin, images};
use adit_core::{Finding, Inspected, Interrupt, Result};

impl Opener {
    /// Checks the image in the file that is here, without what it stands on; false if there is
    /// none. Findings about space that nothing uses have codes that end in `-leak`.
    ///
    /// Errors: `Corrupt` where its headers say nothing any more; `Interrupted`.
    pub fn check_image(
        &self,
        here: &Opened,
        report: &mut dyn FnMut(Finding),
        interrupt: &Interrupt,
    ) -> Result<bool> {
        let Some((file, format)) = self.image_here(here)? else { return Ok(false) };
        images::check(self, &file, format, report, interrupt)?;
        Ok(true)
    }

    /// Whether the file that is here is an image of a format that is known, read or not: its own
    /// bytes are then no disk.
    pub fn is_image(&self, here: &Opened) -> Result<bool> {
        Ok(self.image_here(here)?.is_some())
    }

    /// What can be shown of the image in the file that is here: name and meaning.
    pub fn image_structures(&self, here: &Opened) -> Result<Vec<(String, String)>> {
        let Some((file, format)) = self.image_here(here)? else { return Ok(Vec::new()) };
        let image = images::headers(self, &file, format)?;
        Ok(image.inspect().map(|image| image.structures()).unwrap_or_default())
    }

    /// Decodes one structure of the image in the file that is here.
    ///
    /// Errors: `NotFound` when there is none of that name, or no image.
    pub fn inspect_image(&self, here: &Opened, name: &str) -> Result<Vec<Inspected>> {
        let none = || adit_core::Error::not_found(format!("there is no structure {name:?} here"));
        let Some((file, format)) = self.image_here(here)? else { return Err(none()) };
        images::headers(self, &file, format)?.inspect().ok_or_else(none)?.inspect(name)
    }

    fn image_here(&self, here: &Opened) -> Result<Option<(Source, &'static crate::Format)>> {
        let Some(file) = Source::of(here)? else { return Ok(None) };
        if self.options().raw || matches!(file.origin, Origin::Inner | Origin::Snapshot) {
            return Ok(None);
        }
        let format = recognise_image(&file.disk)?;
        Ok(format.map(|format| (file, format)))
    }
}
