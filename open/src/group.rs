//! Volumes that lie on several disks or partitions: LVM2, Linux md, Windows LDM.
//!
//! One member leads to the others: those the user named, and the other partitions of the table
//! it was found in. What is still missing then, the format itself says, range by range.

use crate::{At, Opened, Opener};
use adit_core::{Disk, Error, Limits, Result, VolumeTable};
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

/// A format of such volumes.
#[derive(Clone, Copy)]
pub(crate) struct GroupFormat {
    /// What a member is called in text.
    pub member: &'static str,
    /// Whether a disk is a member.
    pub probe: fn(&Arc<dyn Disk>) -> Result<bool>,
    /// Reads one member; the text is what to call it.
    pub read: ReadMember,
    /// Puts the members together.
    pub assemble: Assemble,
}

type ReadMember = fn(Arc<dyn Disk>, String, &Limits) -> Result<Box<dyn GroupMember>>;
type Assemble = fn(Vec<Box<dyn GroupMember>>, &Limits) -> Result<Assembled>;

/// A group that was put together.
pub(crate) struct Assembled {
    /// Its volumes.
    pub table: VolumeTable,
    /// Its name, empty if it has none.
    pub name: String,
}

impl From<VolumeTable> for Assembled {
    fn from(table: VolumeTable) -> Self {
        Assembled { table, name: String::new() }
    }
}

impl Debug for GroupFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.member)
    }
}

/// A member of such a volume.
pub(crate) trait GroupMember: Debug {
    /// What group it belongs to; members of one group say the same.
    fn group(&self) -> String;
    /// Which member it is.
    fn identity(&self) -> String;
    /// How many members the group has, as far as this one knows.
    fn members(&self) -> usize;
    /// The member in its format's own type.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl GroupFormat {
    /// Reads a disk that may be a member.
    fn member_of(
        &self,
        disk: &Arc<dyn Disk>,
        name: String,
        limits: &Limits,
    ) -> Result<Option<Box<dyn GroupMember>>> {
        match (self.probe)(disk)? {
            true => (self.read)(Arc::clone(disk), name, limits).map(Some),
            false => Ok(None),
        }
    }
}

impl Opener {
    /// The volumes of the group that the disk here belongs to.
    pub(crate) fn in_group(
        &self,
        here: &Opened,
        disk: Arc<dyn Disk>,
        format: &GroupFormat,
    ) -> Result<Assembled> {
        let members = self.members_of(here, disk, format)?;
        (format.assemble)(members, &self.options().limits)
    }

    /// The members of the group that the disk here belongs to, as far as they are known.
    pub(crate) fn members_of(
        &self,
        here: &Opened,
        disk: Arc<dyn Disk>,
        format: &GroupFormat,
    ) -> Result<Vec<Box<dyn GroupMember>>> {
        let limits = &self.options().limits;
        let first = (format.read)(disk, here.locator.to_string(), limits)?;
        let (group, wanted) = (first.group(), first.members());
        let mut members = vec![first];
        for place in &self.options().members {
            let name = place.display().to_string();
            let given = self.members_at(place.as_os_str(), format);
            let given = given.map_err(|error| error.in_layer(name.clone()))?;
            if given.is_empty() {
                return Err(Error::not_found(format!("it holds no {}", format.member))
                    .in_layer(name)
                    .advise("`adit info` tells what it holds"));
            }
            add(&mut members, given);
        }
        for volume in here.beside.iter().chain(&here.around) {
            if members.len() >= wanted {
                break;
            }
            // A partition nobody named may be anything; what cannot be read is not a member.
            let found = format.member_of(&volume.disk, volume.name.clone(), limits);
            let found = found.ok().flatten().filter(|member| member.group() == group);
            add(&mut members, found.into_iter().collect());
        }
        // One named for another group of the same format on this command line is not for this one.
        members.retain(|member| member.group() == group);
        Ok(members)
    }

    /// The group a disk belongs to, if any.
    pub(crate) fn group_of(&self, disk: &Arc<dyn Disk>, format: &GroupFormat) -> Option<String> {
        let found = format.member_of(disk, String::new(), &self.options().limits);
        found.ok().flatten().map(|member| member.group())
    }

    /// The members at a place that the user named: itself, or the volumes of its table.
    fn members_at(
        &self,
        place: &std::ffi::OsStr,
        format: &GroupFormat,
    ) -> Result<Vec<Box<dyn GroupMember>>> {
        let limits = &self.options().limits;
        let mut plain = self.clone();
        plain.options_mut().members.clear();
        let mut here = plain.follow(plain.open(place)?)?;
        for _ in 0..limits.layers_max {
            let disk = match &here.at {
                At::Disk { disk, .. } => Arc::clone(disk),
                At::Node { .. } => match crate::source::Source::of(&here)? {
                    Some(file) => file.disk,
                    None => return Ok(Vec::new()),
                },
                At::Volumes { table, .. } => {
                    let volumes = table.volumes.iter();
                    let read = |volume: &adit_core::Volume| {
                        let name = here.locator.step(volume.name.as_bytes()).to_string();
                        format.member_of(&volume.disk, name, limits).transpose()
                    };
                    return volumes.filter_map(read).collect();
                }
            };
            if let Some(member) = format.member_of(&disk, here.locator.to_string(), limits)? {
                return Ok(vec![member]);
            }
            here = plain.enter(here)?;
        }
        Ok(Vec::new())
    }
}

fn add(members: &mut Vec<Box<dyn GroupMember>>, more: Vec<Box<dyn GroupMember>>) {
    for member in more {
        let (group, identity) = (member.group(), member.identity());
        if !members.iter().any(|have| have.group() == group && have.identity() == identity) {
            members.push(member);
        }
    }
}

/// LVM2.
pub(crate) const LVM2: GroupFormat = GroupFormat {
    member: "LVM2 physical volume",
    probe: adit_lvm2::probe,
    read: |disk, name, limits| {
        Ok(Box::new(adit_lvm2::Member::open(disk, limits)?.with_label(name)))
    },
    assemble: |members, limits| {
        let group = adit_lvm2::Group::open(own(members), limits)?;
        Ok(Assembled { table: group.table().clone(), name: group.name().to_owned() })
    },
};

impl GroupMember for adit_lvm2::Member {
    fn group(&self) -> String {
        // A volume without metadata belongs to whoever lists it; assembling sorts that out.
        self.vg_uuid().unwrap_or_default().to_owned()
    }

    fn identity(&self) -> String {
        self.pv_uuid().to_owned()
    }

    fn members(&self) -> usize {
        self.pv_uuids().len().max(1)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Linux md.
pub(crate) const MD: GroupFormat = GroupFormat {
    member: "Linux RAID member",
    probe: adit_md::probe,
    read: |disk, name, limits| Ok(Box::new(adit_md::Member::open(disk, limits)?.with_label(name))),
    assemble: |members, limits| Ok(adit_md::Group::assemble(own(members), limits)?.into()),
};

impl GroupMember for adit_md::Member {
    fn group(&self) -> String {
        self.array_uuid().to_owned()
    }

    fn identity(&self) -> String {
        // Old superblocks give devices no identity; their place in the array is one.
        format!("{} {:?}", self.device_uuid(), self.role())
    }

    fn members(&self) -> usize {
        usize::try_from(self.member_count()).unwrap_or(usize::MAX).max(1)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Dynamic disks of Windows.
pub(crate) const LDM: GroupFormat = GroupFormat {
    member: "dynamic disk of Windows",
    probe: adit_ldm::probe,
    read: |disk, name, limits| Ok(Box::new(adit_ldm::Member::open(disk, limits)?.with_label(name))),
    assemble: |members, limits| Ok(adit_ldm::Group::assemble(own(members), limits)?.into()),
};

impl GroupMember for adit_ldm::Member {
    fn group(&self) -> String {
        self.group_id().to_owned()
    }

    fn identity(&self) -> String {
        self.disk_id().to_owned()
    }

    fn members(&self) -> usize {
        self.disk_ids().len().max(1)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Members of one format in its own type.
pub(crate) fn own<M: 'static>(members: Vec<Box<dyn GroupMember>>) -> Vec<M> {
    members.into_iter().filter_map(|it| it.into_any().downcast().ok().map(|it| *it)).collect()
}
