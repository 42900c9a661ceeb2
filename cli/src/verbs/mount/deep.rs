//! What `mount --deep` finds inside files.

use super::named;
use adit_core::{Error, Kind, NodeKind, Result};
use adit_fuse::{FileAt, Inside, Level, Source};
use adit_open::{At, Opened, Opener, Origin};
use std::sync::Arc;

/// A place whose files can be opened: a tree, or a disk with its volumes.
#[derive(Debug)]
struct Within {
    opener: Opener,
    here: Opened,
}

/// A place as a level of a deep mount.
pub fn level(opener: &Opener, source: Source, here: &Opened) -> Level {
    // Every file of the tree is named from where the tree begins.
    let inside = Within { opener: opener.clone(), here: here.clone() };
    Level { source, place: here.locator.to_string(), inside: Arc::new(inside) }
}

impl Inside for Within {
    fn enter(&self, file: &FileAt) -> Result<Option<Level>> {
        let Some(file) = self.file(file) else { return Ok(None) };
        let place = file.locator.to_string();
        self.inside_of(file).map_err(|error| error.in_layer(place))
    }
}

impl Within {
    /// A file of this level as a place.
    fn file(&self, file: &FileAt) -> Option<Opened> {
        let mut here = self.here.clone();
        match &self.here.at {
            At::Node { files, path, .. } => {
                let full = match path.is_empty() {
                    true => file.path.clone(),
                    false => [path, &b"/"[..], &file.path].concat(),
                };
                if !path.is_empty() {
                    here.locator.steps.pop();
                }
                here.locator = here.locator.step(&full);
                let (files, node, parent) = (files.clone(), file.node, file.dir);
                here.at = At::Node { files, node, parent, path: full };
            }
            At::Volumes { table, .. } => {
                let names =
                    |volume: &&adit_core::Volume| named(volume).name.as_bytes() == file.path;
                let volume = table.volumes.iter().find(names)?;
                here.locator = here.locator.step(volume.name.as_bytes());
                here.at = At::Disk { disk: Arc::clone(&volume.disk), origin: Origin::Inner };
            }
            // The whole of a disk in which nothing is recognised.
            At::Disk { .. } => return None,
        }
        Some(here)
    }

    /// What is in a file; nothing if that is not known.
    fn inside_of(&self, file: Opened) -> Result<Option<Level>> {
        let is_image = self.opener.is_image(&file)?;
        let mut here = file;
        for layer in 0..self.opener.options().limits.layers_max {
            let inside = match self.opener.enter(here.clone()) {
                Ok(inside) => inside,
                // An image that holds nothing known is still a disk.
                Err(error) if error.kind() == Kind::Unsupported && layer > 0 && is_image => {
                    let At::Disk { disk, .. } = &here.at else { return Ok(None) };
                    let source = Source::Disk { disk: Arc::clone(disk), partitions: Vec::new() };
                    return Ok(Some(level(&self.opener, source, &here)));
                }
                Err(error) if error.kind() == Kind::Unsupported && !is_image => return Ok(None),
                Err(error) => return Err(error),
            };
            let source = match &inside.at {
                At::Disk { .. } => {
                    here = inside;
                    continue;
                }
                At::Volumes { table, disk, .. } => {
                    let partitions = table.volumes.iter().map(named).collect();
                    Source::Disk { disk: Arc::clone(disk), partitions }
                }
                At::Node { files, node, .. } => {
                    if files.fs.metadata(*node)?.kind != NodeKind::Directory {
                        return Ok(None);
                    }
                    Source::Files(Arc::clone(&files.fs))
                }
            };
            return Ok(Some(level(&self.opener, source, &inside)));
        }
        Err(Error::limit("layers_max", "too many layers"))
    }
}
