//! Walks a locator, layer by layer.

use crate::describe::{files_layer, lvm_layer, trailed, unrecognised};
use crate::formats::{Format, Recognised, recognise, recognise_image};
use crate::locator::split_snapshot;
use crate::opened::{At, Fact, Files, LayerInfo, Opened, Origin};
use crate::pool::BTRFS;
use crate::select::{no_such_volume, select_volume};
use crate::source::Source;
use crate::system::split_step;
use crate::{Guest, Locator, OpenOptions, images, span};
use adit_core::{
    Disk, Error, FileSystem, FileSystemExt, FindOptions, Finding, Kind, NodeKind, Place, Problem,
    Result, Volume, VolumeTable,
};
use adit_vmfs::Vmfs;
use adit_vmfs_lvm::Member;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Opens places by name.
#[derive(Clone, Debug, Default)]
pub struct Opener {
    options: OpenOptions,
}

impl Opener {
    /// An opener with these options.
    pub fn new(options: OpenOptions) -> Self {
        Opener { options }
    }

    /// What it was made with.
    pub fn options(&self) -> &OpenOptions {
        &self.options
    }

    pub(crate) fn options_mut(&mut self) -> &mut OpenOptions {
        &mut self.options
    }

    /// Opens the place that `text` names, leaving out no step but those with one choice.
    ///
    /// Errors: those of every layer, with the locator of that layer in the trail; `Invalid`
    /// with the choices where a left-out step has several.
    pub fn open(&self, text: &OsStr) -> Result<Opened> {
        let locator = Locator::parse(text);
        let mut here = self.open_host(&locator.host)?;
        for step in &locator.steps {
            let name = here.locator.to_string();
            if let Some((which, path)) = split_step(step) {
                here = self.in_system(here, which).map_err(|error| error.in_layer(name))?;
                here = self.select(here, path)?;
                continue;
            }
            here = self.enter(here).map_err(|error| error.in_layer(name))?;
            if !step.is_empty() {
                here = self.select(here, step)?;
            }
        }
        Ok(here)
    }

    fn open_host(&self, path: &Path) -> Result<Opened> {
        if let Some(disk) = crate::remote::open(path, &self.options.remotes) {
            return self.open_remote(path, disk);
        }
        let is_gone = path.symlink_metadata().is_err();
        match split_snapshot(path.as_os_str().as_bytes()) {
            Some((file, name)) if is_gone && !self.options.raw => {
                match self.open_host_file(Path::new(OsStr::from_bytes(file))) {
                    Ok(file) => self.snapshot(file, name, || self.open_host_file(path)),
                    Err(_) => self.open_host_file(path),
                }
            }
            _ => self.open_host_file(path),
        }
    }

    /// A server's disk: raw, never taken for an image, whatever its first bytes are.
    fn open_remote(&self, uri: &Path, disk: Result<Arc<dyn Disk>>) -> Result<Opened> {
        let locator = Locator { host: uri.to_path_buf(), steps: Vec::new() };
        let disk = disk.map_err(|error| error.in_layer(locator.to_string()))?;
        let geometry = disk.geometry();
        let facts = vec![
            ("size_bytes", Fact::Bytes(geometry.size_bytes)),
            ("sector_size_bytes", Fact::Count(geometry.sector_size_bytes.into())),
        ];
        let layers = vec![LayerInfo { format: "NBD".into(), locator: locator.clone(), facts }];
        let (at, notes) = (At::Disk { disk, origin: Origin::Inner }, Vec::new());
        Ok(Opened { locator, at, layers, notes, beside: Vec::new(), around: Vec::new() })
    }

    fn open_host_file(&self, path: &Path) -> Result<Opened> {
        let locator = Locator { host: path.to_path_buf(), steps: Vec::new() };
        let named = |error: Error| error.in_layer(locator.to_string());
        let options = &self.options;
        let mut notes = Vec::new();
        let split = if options.raw {
            None
        } else {
            adit_io::open_split(path, &options.reads, &options.limits).map_err(named)?
        };
        let mut facts = Vec::new();
        let disk = match split {
            Some(split) => {
                let pieces = split.pieces.iter().map(|piece| piece.display().to_string());
                facts.push(("pieces", Fact::List(pieces.collect())));
                notes.extend(split.notes);
                split.disk
            }
            None => adit_io::open(path, &options.reads).map_err(named)?,
        };
        let geometry = disk.geometry();
        facts.push(("size_bytes", Fact::Bytes(geometry.size_bytes)));
        facts.push(("sector_size_bytes", Fact::Count(geometry.sector_size_bytes.into())));
        let layers = vec![LayerInfo { format: "raw".into(), locator: locator.clone(), facts }];
        let origin = Origin::Host(path.to_path_buf());
        Ok(Opened {
            locator,
            at: At::Disk { disk, origin },
            layers,
            notes,
            beside: Vec::new(),
            around: Vec::new(),
        })
    }

    /// The file at a place, unopened.
    ///
    /// Errors: `Invalid` where there is something else.
    pub(crate) fn file(&self, place: &OsStr) -> Result<Source> {
        // The parents that were named are for the image that asks.
        let mut plain = self.clone();
        plain.options.parents.clear();
        let here = plain.follow(plain.open(place)?)?;
        Source::of(&here)?.ok_or_else(|| {
            let detail = format!("{} is no file", here.locator);
            Error::invalid(Problem::BadValue, detail)
        })
    }

    /// The snapshot `name` of the image in the file that is here; `otherwise` if it can have none.
    fn snapshot(
        &self,
        mut here: Opened,
        name: &[u8],
        otherwise: impl FnOnce() -> Result<Opened>,
    ) -> Result<Opened> {
        let Some(file) = Source::of(&here)? else { return otherwise() };
        let Some(format) = recognise_image(&file.disk)?.filter(|format| format.name == "qcow")
        else {
            return otherwise();
        };
        let name = String::from_utf8_lossy(name);
        let of_file = here.locator.to_string();
        here.locator = here.locator.at_snapshot(name.as_bytes());
        self.in_image(here, file, format, Some(&name)).map_err(|error| error.in_layer(of_file))
    }

    /// Opens what is here: a disk gives its volumes, its file system or an image's contents; a
    /// file is opened as a disk first. A directory or table is already open.
    ///
    /// Errors: `Unsupported` when nothing is recognised, saying what it looks like.
    pub fn enter(&self, here: Opened) -> Result<Opened> {
        if let At::Disk { disk, origin: Origin::Snapshot } = &here.at {
            // Naming a snapshot has opened the image already.
            let (disk, locator) = (Arc::clone(disk), here.locator.step(b""));
            return Ok(Opened { at: At::Disk { disk, origin: Origin::Inner }, locator, ..here });
        }
        let Some(Source { disk, origin, locator }) = Source::of(&here)? else { return Ok(here) };
        let may_be_image = !matches!(origin, Origin::Inner) && !self.options.raw;
        let Some(found) = recognise(&disk, may_be_image, &self.options.limits)? else {
            return Err(unrecognised(&disk, may_be_image));
        };
        match found {
            Recognised::Image(format) => {
                self.in_image(here, Source { disk, origin, locator }, format, None)
            }
            Recognised::Table(table) => Ok(self.in_table(here, table, disk, origin)),
            Recognised::VmfsMember => self.in_member(here, disk, &origin),
            Recognised::Vmfs => self.in_vmfs(here, disk, None, Vec::new()),
            Recognised::Luks => self.in_luks(here, disk),
            Recognised::BitLocker => self.in_bitlocker(here, disk),
            Recognised::Group(format) => {
                let group = self.in_group(&here, Arc::clone(&disk), format)?;
                let mut here = self.in_table(here, group.table, disk, Origin::Inner);
                if let Some(layer) = here.layers.last_mut().filter(|_| !group.name.is_empty()) {
                    layer.facts.insert(0, ("name", Fact::Text(group.name)));
                }
                Ok(here)
            }
            Recognised::Guest(format) => {
                let guest = (format.open)(disk, &self.options.limits)?;
                Ok(in_guest(here, guest))
            }
            Recognised::Pool => {
                let guest = self.in_pool(&here, disk)?;
                Ok(in_guest(here, guest))
            }
        }
    }

    /// Goes in for as long as there is one choice: to a file system's root, or to a table of
    /// several volumes. A node stays where it is.
    pub fn descend(&self, mut here: Opened) -> Result<Opened> {
        for _ in 0..self.options.limits.layers_max {
            here = match &here.at {
                At::Node { .. } => return Ok(here),
                At::Disk { .. } => {
                    let name = here.locator.to_string();
                    self.enter(here).map_err(|error| error.in_layer(name))?
                }
                At::Volumes { table, .. } => match self.sole_choice(table)? {
                    Some(volume) => pick(here, &volume),
                    None => return Ok(here),
                },
            };
        }
        Err(Error::limit("layers_max", "too many layers"))
    }

    /// The volumes of a table that hold something this program opens.
    pub fn choices(&self, table: &VolumeTable) -> Result<Vec<Volume>> {
        let mut choices = Vec::new();
        for volume in &table.volumes {
            // A volume that cannot be read is no choice, and is still listed by its table.
            if let Ok(Some(_)) = recognise(&volume.disk, false, &self.options.limits) {
                choices.push(volume.clone());
            }
        }
        Ok(choices)
    }

    fn sole_choice(&self, table: &VolumeTable) -> Result<Option<Volume>> {
        let mut choices = self.choices(table)?;
        if choices.len() > 1 {
            // Members of one volume on one disk are one choice.
            let mut identities = choices.iter().map(|volume| self.span_of(volume));
            let first = identities.next().flatten();
            if first.is_none() || identities.any(|identity| identity != first) {
                return Ok(None);
            }
        }
        choices.truncate(1);
        Ok(choices.pop())
    }

    /// The volume over several disks that this one is a member of, if any.
    fn span_of(&self, volume: &Volume) -> Option<String> {
        let limits = &self.options.limits;
        match recognise(&volume.disk, false, limits).ok()?? {
            Recognised::VmfsMember => {
                let disk = Arc::clone(&volume.disk);
                let member = Member::read(disk, volume.name.clone(), limits).ok()?;
                Some(format!("{:?}", member.identity()))
            }
            Recognised::Group(format) => self.group_of(&volume.disk, format),
            Recognised::Pool => self.group_of(&volume.disk, &BTRFS),
            _ => None,
        }
    }

    fn select(&self, here: Opened, step: &[u8]) -> Result<Opened> {
        match &here.at {
            At::Disk { .. } => {
                let inside = self.enter(here)?;
                self.select(inside, step)
            }
            At::Node { .. } => self.find_or_snapshot(here, step),
            At::Volumes { table, .. } => {
                if let Some(volume) = select_volume(table, step)? {
                    return Ok(pick(here, &volume));
                }
                let Some(volume) = self.sole_choice(table)? else {
                    return Err(no_such_volume(table, step, &self.choices(table)?)
                        .in_layer(here.locator.to_string()));
                };
                let inside = self.enter(pick(here, &volume))?;
                self.select(inside, step)
            }
        }
    }

    fn find_or_snapshot(&self, here: Opened, step: &[u8]) -> Result<Opened> {
        let error = match self.find(here.clone(), step) {
            Err(error) if error.kind() == Kind::NotFound && !self.options.raw => error,
            found => return found,
        };
        let Some((file, name)) = split_snapshot(step) else { return Err(error) };
        match self.find(here, file) {
            Ok(file) => self.snapshot(file, name, || Err(error)),
            Err(_) => Err(error),
        }
    }

    fn find(&self, mut here: Opened, step: &[u8]) -> Result<Opened> {
        let At::Node { files, path, .. } = &here.at else { return Ok(here) };
        let mut full = path.clone();
        if !full.is_empty() {
            full.push(b'/');
        }
        full.extend_from_slice(step);
        let trimmed: Vec<&[u8]> = full.split(|&b| b == b'/').filter(|p| !p.is_empty()).collect();
        let (dir, _) = trimmed.split_at(trimmed.len().saturating_sub(1));
        let find = FindOptions {
            follow: true,
            link_roots: &files.link_roots,
            symlinks_max: self.options.limits.symlinks_max,
        };
        let name = here.locator.to_string();
        let named = |error: Error| error.in_layer(name.clone());
        // The last part is not followed here: a link is a node of its own, and verbs decide.
        let last = FindOptions { follow: step.ends_with(b"/"), ..find };
        let node = files.fs.find(&full, &last).map_err(named)?;
        let parent = files.fs.find(&dir.join(&b'/'), &find).map_err(named)?;
        let path_was_empty = path.is_empty();
        let path = trimmed.join(&b'/');
        here.locator = here.locator.at_path(&path, path_was_empty);
        here.at = At::Node { files: files.clone(), node, parent, path };
        Ok(here)
    }

    /// Follows a symbolic link at the end of a place, as reading its bytes wants.
    pub fn follow(&self, mut here: Opened) -> Result<Opened> {
        let At::Node { files, node, parent, path } = &here.at else { return Ok(here) };
        if files.fs.metadata(*node)?.kind != NodeKind::Symlink {
            return Ok(here);
        }
        let find = FindOptions {
            follow: true,
            link_roots: &files.link_roots,
            symlinks_max: self.options.limits.symlinks_max,
        };
        let name = here.locator.to_string();
        match files.fs.find(path, &find) {
            Ok(node) => {
                let (files, parent, path) = (files.clone(), *parent, path.clone());
                here.at = At::Node { files, node, parent, path };
                Ok(here)
            }
            Err(error) => self.follow_elsewhere(files, *node, error).map_err(|e| e.in_layer(name)),
        }
    }

    /// Follows an absolute link into another datastore that the user named.
    fn follow_elsewhere(
        &self,
        files: &Files,
        link: adit_core::NodeId,
        error: Error,
    ) -> Result<Opened> {
        let target = files.fs.read_link(link)?;
        for datastore in &self.options.datastores {
            let elsewhere = self.descend(self.open(datastore.as_os_str())?)?;
            let At::Node { files, .. } = &elsewhere.at else { continue };
            let inside = files.link_roots.iter().find_map(|root| {
                target.strip_prefix(root.as_slice()).filter(|rest| rest.starts_with(b"/"))
            });
            if let Some(inside) = inside.map(<[u8]>::to_vec) {
                let found = self.find(elsewhere, &inside)?;
                let mut plain = self.clone();
                plain.options.datastores.clear();
                return plain.follow(found);
            }
        }
        Err(error.advise("`--datastore IMAGE` names another datastore that links may lead to"))
    }

    fn in_table(
        &self,
        mut here: Opened,
        table: VolumeTable,
        disk: Arc<dyn Disk>,
        origin: Origin,
    ) -> Opened {
        here.layers.push(LayerInfo {
            format: table.format.into(),
            locator: here.locator.step(b""),
            facts: vec![
                ("uuid", Fact::Text(table.uuid.clone())),
                ("sector_size_bytes", Fact::Count(table.sector_size_bytes.into())),
                ("volumes", Fact::Count(table.volumes.len() as u64)),
            ],
        });
        let notes = table.notes.iter().cloned();
        here.notes.extend(notes.map(|note| trailed(note, &here.locator)));
        here.beside = table.volumes.clone();
        here.at = At::Volumes { table, disk, origin };
        here
    }

    fn in_member(&self, here: Opened, disk: Arc<dyn Disk>, origin: &Origin) -> Result<Opened> {
        let limits = &self.options.limits;
        let first = Member::read(disk, here.locator.to_string(), limits)?;
        let source = match origin {
            Origin::Host(path) => Some(path.as_path()),
            _ => Some(here.locator.host.as_path()).filter(|_| !in_file_system(&here)),
        };
        let members = span::gather(first, source, &self.options)?;
        let volume = adit_vmfs_lvm::assemble(members.clone(), limits)?;
        let disk = Arc::clone(&volume.disk);
        self.in_vmfs(here, disk, Some(volume), members)
    }

    fn in_vmfs(
        &self,
        mut here: Opened,
        disk: Arc<dyn Disk>,
        volume: Option<adit_vmfs_lvm::Volume>,
        members: Vec<Member>,
    ) -> Result<Opened> {
        if let Some(volume) = &volume {
            let notes = volume.notes.iter().cloned();
            here.notes.extend(notes.map(|note| trailed(note, &here.locator)));
            here.layers.push(lvm_layer(&here.locator, volume));
        }
        let vmfs = Vmfs::open(disk, &self.options.limits)?;
        if let (Some(volume), Some(named)) = (&volume, vmfs.superblock().lvm_uuid())
            && volume.uuid != named
        {
            let text =
                format!("the file system says it lies on volume {named}, not {}", volume.uuid);
            let note = Finding::warning("vmfs-lvm-uuid", text)
                .at(Place::new("VMFS superblock").field("LVM UUID"))
                .advise("a copy of a LUN that was given a new identity only in part looks so");
            here.notes.push(trailed(note, &here.locator));
        }
        let identity = vmfs.identity();
        let roots = [&identity.label, &identity.uuid];
        let link_roots = roots
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| format!("/vmfs/volumes/{name}").into_bytes())
            .collect();
        let files = Files {
            vmfs: Some(Arc::clone(&vmfs)),
            volume: volume.map(Arc::new),
            members: Arc::new(members),
            link_roots,
            ..Files::of(vmfs)
        };
        Ok(at_root(here, files))
    }

    fn in_image(
        &self,
        mut here: Opened,
        file: Source,
        format: &Format,
        snapshot: Option<&str>,
    ) -> Result<Opened> {
        let mut chain = images::open(self, file, format, snapshot)?;
        if let Some(image) = chain.layers.first_mut() {
            image.locator = here.locator.step(b"");
        }
        here.notes.extend(chain.notes);
        here.layers.extend(chain.layers);
        let (disk, origin) = match snapshot {
            None => {
                here.locator = here.locator.step(b"");
                (chain.disk, Origin::Inner)
            }
            Some(_) => (chain.disk, Origin::Snapshot),
        };
        here.at = At::Disk { disk, origin };
        Ok(here)
    }
}

/// The root of a guest's file system, whose absolute links start there.
fn in_guest(here: Opened, guest: Guest) -> Opened {
    let fs = Arc::clone(&guest.fs);
    let files = Files { link_roots: vec![Vec::new()], guest: Some(guest), ..Files::of(fs) };
    at_root(here, files)
}

/// The root of a file system that was just opened.
fn at_root(mut here: Opened, files: Files) -> Opened {
    here.layers.push(files_layer(&here.locator, &*files.fs));
    here.notes.extend(files.fs.notes().into_iter().map(|note| trailed(note, &here.locator)));
    let root = files.fs.root();
    here.locator = here.locator.step(b"");
    here.at = At::Node { files, node: root, parent: root, path: Vec::new() };
    here
}

fn in_file_system(here: &Opened) -> bool {
    matches!(here.at, At::Node { .. }) || here.layers.iter().any(|l| l.format.starts_with("VMFS"))
}

pub(crate) fn pick(mut here: Opened, volume: &Volume) -> Opened {
    here.locator = here.locator.step(volume.name.as_bytes());
    here.at = At::Disk { disk: Arc::clone(&volume.disk), origin: Origin::Inner };
    here
}
