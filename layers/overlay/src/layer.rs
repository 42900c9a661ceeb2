//! One layer of a stack.

use adit_core::{Disk, Error, Kind, Problem, Result, WritableDisk, WritableImage};
use std::sync::Arc;

/// A disk of a stack, and what it is called.
#[derive(Clone, Debug)]
pub struct Layer {
    /// For people and programs: a path, or what it is.
    pub name: String,
    /// What can be done with it.
    pub access: Access,
    /// The same as a disk to be read: always this one object, so that others are told from it.
    disk: Arc<dyn Disk>,
}

/// What can be done with a layer.
#[derive(Clone, Debug)]
pub enum Access {
    /// It is read.
    ReadOnly,
    /// It is written.
    Writable(Arc<dyn WritableDisk>),
    /// It is an image: written, resized, given another parent.
    Image(Arc<dyn WritableImage>),
}

impl Layer {
    /// A layer that is only read.
    pub fn read_only(name: impl Into<String>, disk: Arc<dyn Disk>) -> Layer {
        Layer { name: name.into(), access: Access::ReadOnly, disk }
    }

    /// A layer that can be written.
    pub fn writable(name: impl Into<String>, disk: Arc<dyn WritableDisk>) -> Layer {
        let reader = Arc::clone(&disk) as Arc<dyn Disk>;
        Layer { name: name.into(), access: Access::Writable(disk), disk: reader }
    }

    /// An image that can be written.
    pub fn image(name: impl Into<String>, image: Arc<dyn WritableImage>) -> Layer {
        let reader = Arc::clone(&image) as Arc<dyn Disk>;
        Layer { name: name.into(), access: Access::Image(image), disk: reader }
    }

    /// To be read.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// To be written, if it can be.
    pub fn writer(&self) -> Option<Arc<dyn WritableDisk>> {
        match &self.access {
            Access::ReadOnly => None,
            Access::Writable(disk) => Some(Arc::clone(disk)),
            Access::Image(image) => Some(Arc::clone(image) as Arc<dyn WritableDisk>),
        }
    }

    /// As an image.
    ///
    /// Errors: `Unsupported` if it is none.
    pub fn as_image(&self) -> Result<&Arc<dyn WritableImage>> {
        match &self.access {
            Access::Image(image) => Ok(image),
            _ => Err(Error::unsupported(format!("{} is no image of its own", self.name))
                .advise("only layers kept in image files can do this")),
        }
    }

    pub(crate) fn to_write(&self) -> Result<Arc<dyn WritableDisk>> {
        self.writer().ok_or_else(|| {
            let detail = format!("{} was opened to be read only", self.name);
            Error::new(Kind::ReadOnly, Problem::Refused, detail)
        })
    }
}
