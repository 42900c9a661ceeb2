//! The file systems of a guest under one root, as the guest itself mounts them.

use crate::model::{Family, System, Volume};
use adit_core::{
    Cursor, Detail, DirEntry, DirPage, Disk, Error, FileSystem, FileSystemExt, FindOptions,
    Finding, Fork, Identity, Metadata, Name, NodeId, NodeKind, Problem, Result, Space, Xattr,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Nodes below this number keep it, with their volume in front; others get a number as they are
/// met.
const PLAIN_BITS: u32 = 56;
/// In place of a volume: nodes that were given a number.
const NUMBERED: u64 = 0xff;
/// In place of a volume: the root above drive letters.
const DRIVES: u64 = 0xfe;
/// Most volumes of one system.
const VOLUMES_MAX: usize = 0xfe;

/// One tree over all volumes of a system.
#[derive(Debug)]
pub struct OsTree {
    volumes: Vec<Arc<dyn FileSystem>>,
    root: Place,
    /// What covers a directory: where another file system is mounted.
    mounted: HashMap<Place, Place>,
    /// The directory that a mounted root covers, and its parent.
    above: HashMap<Place, Place>,
    /// The drives, by their letters.
    drives: Vec<(Name, Place)>,
    title: String,
    notes: Vec<Finding>,
    numbered: Mutex<Numbered>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    volume: usize,
    node: NodeId,
}

#[derive(Debug, Default)]
struct Numbered {
    numbers: HashMap<Place, u64>,
    places: Vec<Place>,
}

impl OsTree {
    /// Mounts the volumes of a system where it mounts them. What it names and is not there is
    /// in the notes, and its directory is then as its own file system has it: usually empty.
    ///
    /// Errors: `Limit` where a system has too many volumes.
    pub fn open(system: &System, volumes: &[Volume]) -> Result<Arc<OsTree>> {
        if volumes.len() > VOLUMES_MAX {
            return Err(Error::limit("volumes_max", "a system has too many volumes"));
        }
        let all: Vec<_> = volumes.iter().map(|volume| Arc::clone(&volume.fs)).collect();
        let at = |volume: usize, path: &[u8]| -> Result<Place> {
            let missing = || Error::invalid(Problem::OutOfRange, "the volume is not given");
            let fs = all.get(volume).ok_or_else(missing)?;
            let options = FindOptions { follow: false, ..FindOptions::default() };
            Ok(Place { volume, node: fs.find(path, &options)? })
        };
        let mut tree = OsTree {
            root: at(system.root, &system.root_path)?,
            mounted: HashMap::new(),
            above: HashMap::new(),
            drives: Vec::new(),
            title: system.name.clone(),
            notes: Vec::new(),
            numbered: Mutex::default(),
            volumes: all.clone(),
        };
        if system.family == Family::Windows {
            for mount in &system.mounts {
                if let Some(place) = mount.found.volume().and_then(|v| at(v, &mount.path).ok()) {
                    tree.drives.push((Name::new(mount.at.clone())?, place));
                }
            }
            tree.root = Place { volume: DRIVES as usize, node: NodeId(0) };
            return Ok(Arc::new(tree));
        }
        let mut mounts: Vec<_> = system.mounts.iter().filter(|mount| mount.at != b"/").collect();
        // What lies above is mounted first.
        mounts.sort_by_key(|mount| mount.at.iter().filter(|&&byte| byte == b'/').count());
        for mount in mounts {
            let name = String::from_utf8_lossy(&mount.at).into_owned();
            match mount.found.volume().map(|volume| at(volume, &mount.path)) {
                Some(Ok(place)) => tree.mount(&mount.at, place)?,
                Some(Err(error)) => {
                    let path = String::from_utf8_lossy(&mount.path);
                    let text = format!("{name} is {path} of {}: {error}", mount.source);
                    tree.notes.push(Finding::warning("os-mount-missing", text));
                }
                None if mount.found == crate::Found::Missing && mount.at.starts_with(b"/") => {
                    let text = format!("{name} is on {}, which is not there", mount.source);
                    tree.notes.push(Finding::warning("os-mount-missing", text));
                }
                None => {}
            }
        }
        Ok(Arc::new(tree))
    }

    fn mount(&mut self, at: &[u8], root: Place) -> Result<()> {
        let roots = [Vec::new()];
        let options = FindOptions { link_roots: &roots, ..FindOptions::default() };
        let covered = match self.find(at, &options) {
            Ok(node) => self.place(node)?,
            Err(error) => {
                let text = format!(
                    "{} has no directory to mount it on: {error}",
                    String::from_utf8_lossy(at)
                );
                self.notes.push(Finding::warning("os-mount-point", text));
                return Ok(());
            }
        };
        // Its parent as the guest sees it, which may itself be mounted.
        let cut = at.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let parent = self.place(self.find(&at[..cut], &options)?)?;
        if covered != root && !self.above.contains_key(&root) && root != self.root {
            self.mounted.insert(covered, root);
            self.above.insert(root, parent);
        } else {
            let text = format!(
                "{} is not mounted: its file system is in the tree already",
                String::from_utf8_lossy(at)
            );
            self.notes.push(Finding::info("os-mounted-twice", text));
        }
        Ok(())
    }

    fn file_system(&self, place: Place) -> Result<&Arc<dyn FileSystem>> {
        self.volumes
            .get(place.volume)
            .ok_or_else(|| Error::not_found("there is no node of that number"))
    }

    fn node(&self, place: Place) -> NodeId {
        let place = self.mounted.get(&place).copied().unwrap_or(place);
        if place.node.0 >> PLAIN_BITS == 0 {
            return NodeId((place.volume as u64) << PLAIN_BITS | place.node.0);
        }
        let mut numbered = self.numbered.lock().unwrap_or_else(PoisonError::into_inner);
        let next = numbered.places.len() as u64;
        let number = *numbered.numbers.entry(place).or_insert(next);
        if number == next {
            numbered.places.push(place);
        }
        NodeId(NUMBERED << PLAIN_BITS | number)
    }

    fn place(&self, node: NodeId) -> Result<Place> {
        let (volume, rest) = (node.0 >> PLAIN_BITS, node.0 & ((1 << PLAIN_BITS) - 1));
        if volume != NUMBERED {
            return Ok(Place { volume: volume as usize, node: NodeId(rest) });
        }
        let numbered = self.numbered.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(rest).ok().and_then(|rest| numbered.places.get(rest).copied());
        place.ok_or_else(|| Error::not_found("there is no node of that number"))
    }

    fn is_drives(&self, place: Place) -> bool {
        place.volume as u64 == DRIVES
    }

    fn no_such(&self, name: &Name) -> Error {
        let letters: Vec<String> = self.drives.iter().map(|(name, _)| name.to_string()).collect();
        Error::not_found(format!("there is no drive {name}"))
            .advise(format!("the drives: {}", letters.join(", ")))
    }
}

impl FileSystem for OsTree {
    fn identity(&self) -> Identity {
        Identity { format: self.title.clone(), ..Identity::default() }
    }

    fn notes(&self) -> Vec<Finding> {
        let below = self.volumes.iter().flat_map(|fs| fs.notes());
        self.notes.iter().cloned().chain(below).collect()
    }

    fn root(&self) -> NodeId {
        self.node(self.root)
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<NodeId> {
        let mut place = self.place(dir)?;
        if self.is_drives(place) {
            let same = |own: &Name| own.as_bytes().eq_ignore_ascii_case(name.as_bytes());
            return match self.drives.iter().find(|(own, _)| same(own)) {
                _ if name.is_dots() => Ok(dir),
                Some((_, drive)) => Ok(self.node(*drive)),
                None => Err(self.no_such(name)),
            };
        }
        if name.as_bytes() == b".." {
            if place == self.root {
                return Ok(dir);
            }
            if let Some(parent) = self.above.get(&place) {
                return Ok(self.node(*parent));
            }
            if self.drives.iter().any(|(_, drive)| *drive == place) {
                return Ok(self.root());
            }
        }
        place.node = self.file_system(place)?.lookup(place.node, name)?;
        Ok(self.node(place))
    }

    fn read_dir(&self, dir: NodeId, from: Cursor) -> Result<DirPage> {
        let place = self.place(dir)?;
        if self.is_drives(place) {
            let entries = self.drives.iter().enumerate().skip(from.0 as usize);
            let entry = |(index, (name, drive)): (usize, &(Name, Place))| DirEntry {
                name: name.clone(),
                node: self.node(*drive),
                kind: NodeKind::Directory,
                after: Cursor(index as u64 + 1),
            };
            return Ok(DirPage { entries: entries.map(entry).collect(), ..DirPage::default() });
        }
        let mut page = self.file_system(place)?.read_dir(place.node, from)?;
        for entry in &mut page.entries {
            entry.node = self.node(Place { node: entry.node, ..place });
        }
        Ok(page)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let place = self.place(node)?;
        if self.is_drives(place) {
            return Ok(Metadata {
                node,
                kind: NodeKind::Directory,
                size_bytes: 0,
                allocated_bytes: 0,
                block_size_bytes: 512,
                links: 2,
                mode: 0o555,
                uid: 0,
                gid: 0,
                modified: None,
                changed: None,
                accessed: None,
                created: None,
                generation: 0,
            });
        }
        let metadata = self.file_system(place)?.metadata(place.node)?;
        Ok(Metadata { node: self.node(place), ..metadata })
    }

    fn read_link(&self, link: NodeId) -> Result<Vec<u8>> {
        let place = self.place(link)?;
        let target = self.file_system(place)?.read_link(place.node)?;
        // On Windows, a link from the root means the root of its own drive.
        let has_drive = target.get(2) == Some(&b':') || target.starts_with(b"//");
        let own = self.drives.iter().find(|(_, drive)| drive.volume == place.volume);
        match own {
            Some((drive, _)) if target.starts_with(b"/") && !has_drive => {
                Ok([b"/", drive.as_bytes(), &target].concat())
            }
            _ => Ok(target),
        }
    }

    fn open(&self, file: NodeId, fork: &Fork) -> Result<Arc<dyn Disk>> {
        let place = self.place(file)?;
        if self.is_drives(place) {
            return Err(Error::invalid(Problem::BadValue, "the list of drives is a directory"));
        }
        self.file_system(place)?.open(place.node, fork)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let place = self.place(node)?;
        if self.is_drives(place) {
            return Ok(Vec::new());
        }
        self.file_system(place)?.xattrs(place.node)
    }

    fn details(&self, node: NodeId) -> Result<Vec<Detail>> {
        let place = self.place(node)?;
        if self.is_drives(place) {
            return Ok(Vec::new());
        }
        self.file_system(place)?.details(place.node)
    }

    /// That of the root's own file system, as `df /` has it.
    fn space(&self) -> Result<Space> {
        match self.is_drives(self.root) {
            true => Err(Error::unsupported("each drive has its own space")),
            false => self.file_system(self.root)?.space(),
        }
    }
}
