//! Members to a disk group.

use crate::member::Member;
use crate::objects::{
    Component, Kind as ComponentKind, Objects, Partition, VolumeObject, plain_guid,
};
use adit_core::bytes::wide;
use adit_core::{
    Concat, Disk, DiskExt, Error, Finding, Kind, Limits, Piece, Place, Problem, Result, Slice,
    Volume, VolumeTable,
};
use adit_md::raid::{Array, Leg, Level, Rotation, Turns};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A disk group over its members.
#[derive(Clone, Copy, Debug)]
pub struct Group;

impl Group {
    /// The volumes of a group, of members given in any order. The newest copy of the database
    /// decides; what lies on a disk that is missing is `Lost` unless redundancy gives it back.
    ///
    /// Errors: `Invalid` for members of different groups, and for one given twice; `Limit`.
    pub fn assemble(members: Vec<Member>, limits: &Limits) -> Result<VolumeTable> {
        if wide(members.len()) > limits.members_max {
            let detail = format!("{} members are given", members.len());
            return Err(Error::limit("members_max", detail));
        }
        check_belong(&members)?;
        let newest = members.iter().max_by_key(|member| member.committed);
        let newest = newest.ok_or_else(|| {
            Error::invalid(Problem::Missing, "a disk group needs at least one member")
        })?;
        let mut notes: Vec<Finding> =
            members.iter().flat_map(|member| member.notes.iter().cloned()).collect();
        let disks = place_members(&members, newest, &mut notes);
        let builder = Builder { objects: &newest.objects, disks };
        let mut volumes = Vec::new();
        for (&id, object) in &newest.objects.volumes {
            volumes.push(builder.volume(id, object, &mut notes));
        }
        Ok(VolumeTable {
            format: "LDM",
            uuid: newest.group_id.clone(),
            sector_size_bytes: 512,
            volumes,
            notes,
        })
    }
}

fn check_belong(members: &[Member]) -> Result<()> {
    let mut rest = members;
    while let Some((one, others)) = rest.split_first() {
        for other in others {
            if !one.group_id.eq_ignore_ascii_case(&other.group_id) {
                let detail = format!(
                    "{} belongs to disk group {} ({}), but {} to {} ({})",
                    one.label,
                    one.group_name,
                    one.group_id,
                    other.label,
                    other.group_name,
                    other.group_id
                );
                return Err(Error::invalid(Problem::Mismatch, detail)
                    .advise("give only the members of one disk group"));
            }
            if one.disk_id == other.disk_id {
                let detail =
                    format!("{} and {} are the same disk, {}", one.label, other.label, one.disk_id);
                return Err(Error::invalid(Problem::Ambiguous, detail)
                    .advise("give each disk once; of two copies choose the right one"));
            }
        }
        rest = others;
    }
    Ok(())
}

/// A disk of the group.
enum Located {
    /// Its logical part, and whether it took part in the last change of the group.
    There {
        disk: Arc<dyn Disk>,
        current: bool,
    },
    Missing(Error),
}

fn place_members(
    members: &[Member],
    newest: &Member,
    notes: &mut Vec<Finding>,
) -> BTreeMap<u64, Located> {
    let mut places = BTreeMap::new();
    for (&id, object) in &newest.objects.disks {
        let member = members.iter().find(|member| member.disk_id == object.guid);
        let place = match member {
            Some(member) => {
                let current = member.committed >= newest.committed;
                if !current {
                    let text = format!(
                        "{} was last changed with the group at {}, others at {}; copies on it \
                         may be old, and are used only where there is no other",
                        member.label, member.committed, newest.committed
                    );
                    notes.push(Finding::warning("ldm-member-old", text));
                }
                let size = member.disk.size_bytes().saturating_sub(member.logical_start);
                note_short(member, newest, id, size, notes);
                let name = format!("dynamic disk {}", object.name);
                let disk = Slice::open(name, Arc::clone(&member.disk), member.logical_start, size);
                Located::There { disk, current }
            }
            None => {
                let error =
                    Error::lost(format!("disk {} ({}) is not given", object.name, object.guid))
                        .at(Place::new("disk group").field(object.name.clone()))
                        .advise("give the missing disk as a further member");
                notes.push(Finding::from_error("ldm-member-missing", &error));
                Located::Missing(error)
            }
        };
        places.insert(id, place);
    }
    for member in members {
        if !newest.objects.disks.values().any(|disk| disk.guid == member.disk_id) {
            let text = format!("{} is no longer part of the group and is not used", member.label);
            notes.push(Finding::warning("ldm-member-removed", text));
        }
    }
    places
}

/// Notes a disk that ends before its partitions do.
fn note_short(member: &Member, newest: &Member, id: u64, size: u64, notes: &mut Vec<Finding>) {
    let parts = newest.objects.partitions.values().filter(|part| part.disk == id);
    let end = parts.map(|part| part.start.saturating_add(part.size)).max().unwrap_or(0);
    if size < end {
        let text = format!(
            "{} ends after {size} bytes of {end}; what lies past its end is lost",
            member.label
        );
        notes.push(Finding::error("ldm-member-short", text));
    }
}

struct Builder<'a> {
    objects: &'a Objects,
    disks: BTreeMap<u64, Located>,
}

/// One copy of a volume.
struct Replica {
    disk: Arc<dyn Disk>,
    kind: &'static str,
    /// Whether all of its disks are there and current.
    good: bool,
    lost_bytes: u64,
}

impl Builder<'_> {
    fn volume(&self, id: u64, object: &VolumeObject, notes: &mut Vec<Finding>) -> Volume {
        let built = self.copies(id, object, notes);
        self.note_parity(id, object, notes);
        let (disk, kind) = built.unwrap_or_else(|error| {
            let code = match error.kind() {
                Kind::Unsupported => "ldm-volume-unsupported",
                _ => "ldm-volume-unreadable",
            };
            let mut note = Finding::from_error(code, &error);
            note.text = format!("{}: {}", object.name, note.text);
            notes.push(note);
            let pieces = vec![Piece::lost(object.size, error)];
            let disk = Concat::open(format!("volume {}", object.name), pieces);
            (disk.unwrap_or_else(|_| adit_core::MemoryDisk::open("nothing", vec![])), "damaged")
        });
        if !object.state.is_empty() && object.state != "ACTIVE" {
            let text = format!("{} is in state {}", object.name, object.state);
            notes.push(Finding::warning("ldm-volume-state", text));
        }
        Volume {
            name: object.name.clone(),
            label: object.hint.clone(),
            uuid: plain_guid(&object.guid),
            kind: format!("{kind} volume"),
            offset: None,
            disk,
        }
    }

    /// Says where data are computed: whether parity is current is recorded nowhere.
    fn note_parity(&self, id: u64, object: &VolumeObject, notes: &mut Vec<Finding>) {
        let components = self.objects.components.iter();
        let raid5 = components
            .filter(|(_, component)| component.volume == id)
            .find(|(_, component)| component.kind == ComponentKind::Raid5);
        let Some((&number, _)) = raid5 else { return };
        let mut parts = self.objects.partitions.values().filter(|part| part.component == number);
        if parts.any(|part| !self.disk(part).is_ok_and(|(_, current)| current)) {
            let text = format!(
                "{}: what a disk that is missing or old held is computed from parity, which may \
                 be behind if Windows was not shut down",
                object.name
            );
            notes.push(Finding::warning("ldm-parity-used", text));
        }
    }

    /// All copies of a volume; several make a mirror.
    fn copies(
        &self,
        id: u64,
        object: &VolumeObject,
        notes: &mut Vec<Finding>,
    ) -> Result<(Arc<dyn Disk>, &'static str)> {
        let title = format!("volume {}", object.name);
        let mut copies = Vec::new();
        let components = self.objects.components.iter();
        for (&number, component) in components.filter(|(_, component)| component.volume == id) {
            let mut copy = self.component(number, component, object)?;
            copy.good &= component.state.is_empty() || component.state == "ACTIVE";
            copies.push(copy);
        }
        let alone = match copies.as_slice() {
            [] => {
                let detail = format!("{} has no component", object.name);
                return Err(Error::corrupt(Problem::Missing, detail).at(Place::new("LDM volume")));
            }
            [_] => true,
            _ => false,
        };
        // Good copies first, then those that are whole, then the rest; order kept otherwise.
        copies.sort_by_key(|copy| (!copy.good, copy.lost_bytes > 0));
        if let Some(first) = copies.first().filter(|copy| copy.lost_bytes > 0) {
            let text = format!("{}: {} bytes lie on missing disks", object.name, first.lost_bytes);
            notes.push(Finding::error("ldm-volume-degraded", text));
        }
        if !alone && copies.first().is_some_and(|copy| !copy.good) {
            let text = format!("{}: no copy is known to be current", object.name);
            notes.push(Finding::warning("ldm-mirror-old", text));
        }
        if alone {
            let only = copies.into_iter().next();
            return only
                .map(|copy| (copy.disk, copy.kind))
                .ok_or_else(|| Error::not_found("no component"));
        }
        let leg = |copy: Replica| match copy.lost_bytes {
            0 => Leg::present(copy.disk, 0, object.size),
            // A copy with holes: whether one is needed elsewhere cannot be told by place.
            _ => Leg::missing(object.size, Error::lost("a copy lies on missing disks")),
        };
        let usable = copies.iter().any(|copy| copy.lost_bytes == 0);
        if !usable {
            let first = copies.into_iter().next();
            return first
                .map(|copy| (copy.disk, "mirrored"))
                .ok_or_else(|| Error::not_found("no component"));
        }
        let legs = copies.into_iter().map(leg).collect();
        Ok((Array::open(title, Level::Mirror, legs, Some(object.size))?, "mirrored"))
    }

    fn component(&self, id: u64, component: &Component, object: &VolumeObject) -> Result<Replica> {
        let mut parts: Vec<&Partition> =
            self.objects.partitions.values().filter(|part| part.component == id).collect();
        let title = format!("volume {}", object.name);
        let bad = |problem, detail: String| {
            Err(Error::corrupt(problem, detail).at(Place::new("LDM component").index(id)))
        };
        if component.kind == ComponentKind::Concat {
            parts.sort_by_key(|part| part.offset);
            return self.concat(title, &parts, object.size, id);
        }
        parts.sort_by_key(|part| part.column);
        let columns = wide(parts.len());
        let in_order = (0u64..).zip(&parts).all(|(column, part)| part.column == Some(column));
        if columns != component.columns || !in_order || parts.is_empty() {
            // Columns of several partitions, as after extending, have no known order.
            let detail = format!("{columns} partitions for {} columns", component.columns);
            return Err(Error::unsupported(detail).at(Place::new("LDM component").index(id)));
        }
        let legs: Vec<Leg> = parts.iter().map(|part| self.leg(part, component.kind)).collect();
        let gone = wide(legs.iter().filter(|leg| !leg.is_present()).count());
        let chunk_bytes = component.chunk;
        let (level, kind, spare) = match component.kind {
            ComponentKind::Raid5 => {
                let rotation = Rotation::LeftSymmetric;
                let level = Level::Parity { chunk_bytes, rotation, q: false, trusted: true };
                (level, "RAID-5", 1)
            }
            _ => {
                let sizes: Vec<u64> = parts.iter().map(|part| part.size).collect();
                if sizes.windows(2).any(|pair| pair.first() != pair.last()) {
                    return bad(Problem::Mismatch, "columns of different sizes".into());
                }
                (Level::Stripes { chunk_bytes, turns: Turns::Unknown }, "striped", 0)
            }
        };
        let disk = Array::open(title, level, legs, Some(object.size))?;
        let lost_bytes = match gone > spare {
            true => object.size.checked_div(columns).unwrap_or(0).saturating_mul(gone),
            false => 0,
        };
        Ok(Replica { disk, kind, good: gone == 0 && self.current(&parts), lost_bytes })
    }

    fn concat(&self, title: String, parts: &[&Partition], size: u64, id: u64) -> Result<Replica> {
        let mut pieces = Vec::new();
        let (mut at, mut lost_bytes) = (0u64, 0u64);
        for part in parts {
            if part.offset != at {
                let detail =
                    format!("a part begins at byte {} of the volume, not {at}", part.offset);
                return Err(Error::corrupt(Problem::Overlaps, detail)
                    .at(Place::new("LDM component").index(id)));
            }
            let length = part.size.min(size.saturating_sub(at));
            at = at.saturating_add(part.size);
            pieces.push(match self.disk(part) {
                Ok((disk, _)) => Piece::part(disk, part.start, length),
                Err(reason) => {
                    lost_bytes = lost_bytes.saturating_add(length);
                    Piece::lost(length, reason)
                }
            });
        }
        if at < size {
            let detail = format!("parts of {at} bytes make no volume of {size}");
            return Err(Error::corrupt(Problem::Truncated, detail)
                .at(Place::new("LDM component").index(id)));
        }
        let kind = if parts.len() > 1 { "spanned" } else { "simple" };
        let good = lost_bytes == 0 && self.current(parts);
        Ok(Replica { disk: Concat::open(title, pieces)?, kind, good, lost_bytes })
    }

    fn disk(&self, part: &Partition) -> Result<(Arc<dyn Disk>, bool)> {
        match self.disks.get(&part.disk) {
            Some(Located::There { disk, current }) => Ok((Arc::clone(disk), *current)),
            Some(Located::Missing(error)) => Err(error.clone()),
            None => Err(Error::corrupt(
                Problem::Missing,
                format!("a partition lies on disk {}, which the database does not know", part.disk),
            )
            .at(Place::new("LDM partition"))),
        }
    }

    fn current(&self, parts: &[&Partition]) -> bool {
        parts.iter().all(|part| self.disk(part).is_ok_and(|(_, current)| current))
    }

    fn leg(&self, part: &Partition, kind: ComponentKind) -> Leg {
        match self.disk(part) {
            // A column that missed the last change may be behind its parity.
            Ok((_, false)) if kind == ComponentKind::Raid5 => {
                Leg::missing(part.size, Error::lost("a disk is behind the others of the group"))
            }
            Ok((disk, _)) => Leg::present(disk, part.start, part.size),
            Err(reason) => Leg::missing(part.size, reason),
        }
    }
}
