//! Images on a medium that loses power.
#![allow(dead_code)]

use adit_core::{
    Disk, Error, Finding, ImageFile, Interrupt, Limits, MemoryDisk, ParentRecord, Result, Severity,
};
use adit_testkit::World;
use adit_vmdk::{
    CreateOptions, Descriptor, Kind, Opened, Purpose, Reference, Subformat, Writer, probe,
};
use std::cell::RefCell;
use std::sync::Arc;

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

/// Options of the usual small test disk.
pub fn options(size: usize, subformat: Subformat) -> CreateOptions {
    let adapter = "lsilogic".to_owned();
    CreateOptions { subformat, adapter, cid: Some(0x1234_abcd), ..CreateOptions::new(size as u64) }
}

/// A parent that is called `base.vmdk` and has this CID.
pub fn parent_record(cid: &str, size: usize) -> ParentRecord {
    ParentRecord {
        name: b"base.vmdk".to_vec(),
        absolute: None,
        format: "vmdk".to_owned(),
        identity: cid.as_bytes().to_vec(),
        size_bytes: size as u64,
    }
}

/// An image in a world, its files by name.
pub struct Image {
    pub world: World,
    pub names: RefCell<Vec<String>>,
    pub name: String,
    pub parent: Option<Arc<dyn Disk>>,
}

impl Image {
    pub fn create(options: &CreateOptions, parent: Option<Arc<dyn Disk>>) -> Image {
        Image::try_create(options, parent).unwrap()
    }

    pub fn try_create(options: &CreateOptions, parent: Option<Arc<dyn Disk>>) -> Result<Image> {
        let image = Image {
            world: World::new(0),
            names: RefCell::default(),
            name: "disk.vmdk".to_owned(),
            parent,
        };
        adit_vmdk::create(&image.name, options, &mut |name| Ok(image.add(name)))?;
        image.world.settle();
        Ok(image)
    }

    /// Files that another program made.
    pub fn of(name: &str, files: Vec<(String, Vec<u8>)>) -> Image {
        let (names, images): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let names = RefCell::new(names);
        Image { world: World::of(images), names, name: name.to_owned(), parent: None }
    }

    pub fn add(&self, name: &str) -> Arc<dyn ImageFile> {
        self.names.borrow_mut().push(name.to_owned());
        self.world.add_file()
    }

    pub fn file(&self, name: &str) -> Result<Arc<dyn ImageFile>> {
        let index = self.names.borrow().iter().position(|known| known == name);
        let index = index.ok_or_else(|| Error::not_found(format!("no {name}")))?;
        Ok(self.world.file(index))
    }

    pub fn try_writer(&self) -> Result<Writer> {
        let resolve = &mut |reference: &Reference| {
            assert!(matches!(reference.purpose, Purpose::Extent(_)));
            self.file(&reference.text())
        };
        let file = self.file(&self.name)?;
        Writer::open("x", file, self.parent.clone(), resolve, &Limits::default())
    }

    pub fn writer(&self) -> Writer {
        self.try_writer().unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// As the reader of this crate sees it now.
    pub fn read(&self) -> Arc<dyn Disk> {
        self.read_at(&self.world.images()).unwrap_or_else(|error| panic!("{error:?}")).disk
    }

    pub fn read_at(&self, images: &[Vec<u8>]) -> Result<Opened> {
        let disk = |name: &str| {
            let index = self.names.borrow().iter().position(|known| known == name);
            let bytes = index.and_then(|index| images.get(index));
            let bytes = bytes.ok_or_else(|| Error::not_found(format!("no {name}")))?;
            Ok(MemoryDisk::open(name, bytes.clone()))
        };
        let mut resolve = |reference: &Reference| match reference.purpose {
            Purpose::Parent => self.parent.clone().ok_or_else(|| Error::not_found("no parent")),
            _ => disk(&reference.text()),
        };
        let file = disk(&self.name)?;
        let limits = Limits::default();
        match probe(&adit_core::DiskExt::read_prefix(&*file, 0, 65536)?) {
            Some(Kind::Descriptor) => {
                let length = adit_core::DiskExt::size_bytes(&*file) as usize;
                let text = adit_core::DiskExt::read_vec(&*file, 0, length)?;
                adit_vmdk::open("x", &Descriptor::parse(&text, &limits)?, &mut resolve)
            }
            _ => adit_vmdk::open_sparse("x", file, &limits, &mut resolve),
        }
    }

    pub fn descriptor(&self) -> Descriptor {
        self.read_at(&self.world.images()).unwrap().descriptor.unwrap()
    }

    /// Errors that checking finds in these states of the files.
    pub fn damage(&self, images: &[Vec<u8>]) -> Vec<Finding> {
        let all = self.findings(images);
        all.into_iter().filter(|finding| finding.severity == Severity::Error).collect()
    }

    /// All that checking finds.
    pub fn findings(&self, images: &[Vec<u8>]) -> Vec<Finding> {
        let mut found = Vec::new();
        for (name, bytes) in self.names.borrow().iter().zip(images) {
            let kind = probe(&bytes[..bytes.len().min(65536)]);
            if !matches!(kind, Some(Kind::Sparse | Kind::Cowd | Kind::SeSparse)) {
                continue;
            }
            let file = MemoryDisk::open(name.clone(), bytes.clone());
            let mut report = |finding: Finding| found.push(finding);
            let (limits, interrupt) = (Limits::default(), Interrupt::default());
            adit_vmdk::check_sparse(name, &file, &limits, &mut report, &interrupt).unwrap();
        }
        found
    }

    /// Writes the files into a folder, for other programs.
    pub fn save(&self, folder: &std::path::Path) {
        for (name, bytes) in self.names.borrow().iter().zip(self.world.images()) {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

/// Bytes that are not zero and not alike.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8 | 1
        })
        .collect()
}
