//! Disks that nobody names.

use crate::Problems;
use crate::catalogue::{Catalogue, File};
use crate::images::Images;
use crate::model::{FileInfo, Image, Role};
use adit_core::{Interrupt, Kind, Problem, Result};
use std::sync::Arc;

/// Descriptors that no machine reaches, and data that no descriptor names.
///
/// Errors: `Interrupted`.
pub(crate) fn find(
    catalogue: &Catalogue,
    images: &mut Images<'_>,
    interrupt: &Interrupt,
    problems: &mut Problems,
) -> Result<(Vec<Arc<Image>>, Vec<FileInfo>)> {
    let mut files: Vec<&File> = catalogue.files().filter(|file| file.role == Role::Disk).collect();
    // Descriptors first: once they have named their extents, what a guest wrote at the front
    // of one is not taken for a descriptor.
    files.sort_by_key(|file| (looks_like_extent(file), &file.path));
    let (mut orphans, mut data) = (Vec::new(), Vec::new());
    for file in files {
        interrupt.check()?;
        if images.used.contains(&file.node) || images.named.contains(&file.node) {
            continue;
        }
        match images.image(file.node, &file.path) {
            Ok(image) => orphans.push(image),
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            // A list of changed blocks is nothing anybody would miss.
            Err(error) if error.kind() == Kind::Invalid => {}
            Err(error) if error.problem() == Problem::BadMagic => data.push(file),
            Err(error) => problems.push(error.in_layer(file.path.to_string())),
        }
    }
    orphans.retain(|image| !images.named.contains(&image.node));
    orphans.sort_by(|a, b| a.path.cmp(&b.path));
    data.retain(|file| !images.named.contains(&file.node));
    data.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((orphans, data.into_iter().map(File::info).collect()))
}

/// Whether the name is one that products give to extents and lists of changed blocks.
fn looks_like_extent(file: &File) -> bool {
    let stem = file.stem();
    let ends = [&b"-flat"[..], b"-delta", b"-sesparse", b"-rdm", b"-rdmp", b"-ctk"];
    if ends.iter().any(|end| stem.ends_with(end)) {
        return true;
    }
    // -s001, -f001: pieces of split disks.
    let digits = stem.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let front = stem.get(..stem.len().saturating_sub(digits)).unwrap_or_default();
    digits >= 3 && (front.ends_with(b"-s") || front.ends_with(b"-f"))
}
