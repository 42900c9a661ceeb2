//! Members to a volume group.

use crate::build::{Builder, Built};
use crate::member::Member;
use crate::metadata::{Lv, Vg};
use adit_core::bytes::wide;
use adit_core::{
    Concat, Disk, DiskExt, Error, Finding, Kind, Limits, Piece, Place, Problem, Result, Volume,
    VolumeTable,
};
use std::sync::Arc;

/// A volume group over its members.
#[derive(Debug)]
pub struct Group {
    table: VolumeTable,
    hidden: Vec<Volume>,
    name: String,
    seqno: u64,
}

impl Group {
    /// The volumes that users see, of members given in any order.
    ///
    /// Errors: as [`Group::open`].
    pub fn assemble(members: Vec<Member>, limits: &Limits) -> Result<VolumeTable> {
        Ok(Group::open(members, limits)?.table)
    }

    /// Reads the group. The newest metadata text among the members decides; a volume that cannot
    /// be read at all is listed, and says why when it is read.
    ///
    /// Errors: `Invalid` for members of different groups, and for one given twice; `NotFound`
    /// where no member holds metadata; `Limit`.
    pub fn open(members: Vec<Member>, limits: &Limits) -> Result<Group> {
        if wide(members.len()) > limits.members_max {
            let detail = format!("{} members are given", members.len());
            return Err(Error::limit("members_max", detail));
        }
        check_belong(&members)?;
        let newest = members.iter().filter_map(|member| member.vg.as_ref());
        let vg = Arc::clone(newest.max_by_key(|vg| vg.seqno).ok_or_else(|| {
            Error::not_found("none of the physical volumes holds metadata of its group")
                .advise("give the other members: at least one holds the metadata")
        })?);
        let mut notes: Vec<Finding> =
            members.iter().flat_map(|member| member.notes.iter().cloned()).collect();
        let disks = place_members(&vg, &members, &mut notes);
        let mut builder = Builder::new(&vg, disks, limits);
        let (mut volumes, mut hidden) = (Vec::new(), Vec::new());
        for lv in vg.lvs.iter().filter(|lv| !lv.segments.is_empty()) {
            let Some((kind, built)) = builder.present(lv) else { continue };
            // LVM lists a snapshot under the name of its store, visible or not.
            let visible = lv.visible || kind == "snapshot";
            let volume = volume(&vg, lv, kind, built, &mut notes);
            let list = if visible { &mut volumes } else { &mut hidden };
            list.push(volume);
        }
        notes.append(&mut builder.notes);
        let table = VolumeTable {
            format: "LVM2",
            uuid: vg.uuid.clone(),
            sector_size_bytes: 512,
            volumes,
            notes,
        };
        Ok(Group { table, hidden, name: vg.name.clone(), seqno: vg.seqno })
    }

    /// Name of the volume group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of the metadata's last change.
    pub fn seqno(&self) -> u64 {
        self.seqno
    }

    /// The volumes that users see.
    pub fn table(&self) -> &VolumeTable {
        &self.table
    }

    /// The parts of other volumes: RAID images, pool data, stores of snapshots.
    pub fn hidden(&self) -> &[Volume] {
        &self.hidden
    }
}

/// A volume of the table; one that cannot be built is lost as a whole, with the reason.
fn volume(
    vg: &Vg,
    lv: &Lv,
    kind: String,
    built: Result<Built>,
    notes: &mut Vec<Finding>,
) -> Volume {
    let built = built.unwrap_or_else(|error| {
        let code = match error.kind() {
            Kind::Unsupported => "lvm2-lv-unsupported",
            _ => "lvm2-lv-unreadable",
        };
        let mut note = Finding::from_error(code, &error);
        note.text = format!("{}: {}", lv.name, note.text);
        notes.push(note);
        let size = vg.extents(lv.extents).unwrap_or(0);
        let pieces = vec![Piece::lost(size, error)];
        let disk = Concat::open(format!("LV {}/{}", vg.name, lv.name), pieces);
        Built::whole(disk.unwrap_or_else(|_| empty()))
    });
    let lost = built.lost_bytes;
    if lost > 0 && lv.visible {
        let text = format!("{}: {lost} bytes lie on physical volumes that are missing", lv.name);
        notes.push(Finding::error("lvm2-lv-degraded", text));
    }
    Volume {
        name: lv.name.clone(),
        label: String::new(),
        uuid: lv.uuid.clone(),
        kind: format!("{kind} LV"),
        offset: None,
        disk: built.disk,
    }
}

fn empty() -> Arc<dyn Disk> {
    adit_core::MemoryDisk::open("nothing", Vec::new())
}

/// Checks that all members are different devices of one group.
fn check_belong(members: &[Member]) -> Result<()> {
    let mut rest = members;
    while let Some((one, others)) = rest.split_first() {
        for other in others {
            if other.uuid == one.uuid {
                let detail = format!(
                    "{} and {} are the same physical volume, {}",
                    one.label, other.label, one.uuid
                );
                return Err(Error::invalid(Problem::Ambiguous, detail)
                    .advise("give each device once; of two copies choose the right one"));
            }
            let (Some(a), Some(b)) = (&one.vg, &other.vg) else { continue };
            if a.uuid != b.uuid {
                let detail = format!(
                    "{} belongs to volume group {} ({}), but {} to {} ({})",
                    one.label, a.name, a.uuid, other.label, b.name, b.uuid
                );
                return Err(Error::invalid(Problem::Mismatch, detail)
                    .advise("give only the members of one volume group"));
            }
        }
        rest = others;
    }
    Ok(())
}

/// The device of each physical volume of the group, or why there is none.
fn place_members(
    vg: &Vg,
    members: &[Member],
    notes: &mut Vec<Finding>,
) -> Vec<Result<Arc<dyn Disk>, Error>> {
    for member in members {
        if !vg.pvs.iter().any(|pv| pv.uuid == member.uuid) {
            let text = format!("{} is no longer part of the group and is not used", member.label);
            notes.push(Finding::warning("lvm2-pv-removed", text));
        } else if member.seqno().is_some_and(|seqno| seqno < vg.seqno) {
            let text = format!(
                "{} holds metadata {}, older than {}; the newest decides",
                member.label,
                member.seqno().unwrap_or(0),
                vg.seqno
            );
            notes.push(Finding::warning("lvm2-metadata-old", text));
        }
    }
    let place = |pv: &crate::metadata::Pv| {
        if let Some(member) = members.iter().find(|member| member.uuid == pv.uuid) {
            note_member(vg, pv, member, notes);
            return Ok(Arc::clone(&member.disk));
        }
        let known = match pv.device.as_str() {
            "" => String::new(),
            device => format!(", last seen as {device}"),
        };
        let error =
            Error::lost(format!("physical volume {} ({}{known}) is not given", pv.name, pv.uuid))
                .at(Place::new("volume group").field(pv.name.clone()))
                .advise("give the missing device as a further member");
        notes.push(Finding::from_error("lvm2-pv-missing", &error));
        Err(error)
    };
    vg.pvs.iter().map(place).collect()
}

/// Notes a device that ends too early, or was away when the group changed.
fn note_member(vg: &Vg, pv: &crate::metadata::Pv, member: &Member, notes: &mut Vec<Finding>) {
    let end = vg.extents(pv.extents).unwrap_or(u64::MAX).saturating_add(pv.start);
    let there = member.disk.size_bytes();
    if there < end {
        let text = format!(
            "{} ends after {there} bytes of {end}; what lies past its end is lost",
            member.label
        );
        notes.push(
            Finding::error("lvm2-pv-short", text)
                .advise("the image or device is shorter than its group says; get a complete copy"),
        );
    }
    if pv.was_missing {
        let text = format!(
            "{} was missing when the group was last changed; mirrors may have gone on without it",
            member.label
        );
        notes.push(Finding::warning("lvm2-pv-was-missing", text));
    }
}
