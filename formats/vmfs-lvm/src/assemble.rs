//! Members to a volume: one disk, with a reasoned hole for every device that is not there.

use crate::cover::{Cover, Segment, cover};
use crate::header::VolumeIdentity;
use crate::member::Member;
use adit_core::bytes::{all_zero, wide};
use adit_core::{
    Concat, Disk, DiskExt, Error, Finding, Kind, Limits, Piece, Place, Problem, Result, Slice,
    vmware_uuid,
};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

/// A volume over its devices.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its bytes. Those of a device that was not given fail with `Lost` and its name.
    pub disk: Arc<dyn Disk>,
    /// What its members share.
    pub identity: VolumeIdentity,
    /// UUID as VMware prints it.
    pub uuid: String,
    /// Name in the descriptor, normally the printed UUID.
    pub name: String,
    /// Unit: bytes.
    pub size_bytes: u64,
    /// Its devices in volume order, missing ones included.
    pub members: Vec<MemberInfo>,
    /// What was noticed: missing members, disagreements, devices cut short.
    pub notes: Vec<Finding>,
}

impl Volume {
    /// Whether bytes of it are out of reach because a device was not given.
    pub fn is_degraded(&self) -> bool {
        self.members.iter().any(MemberInfo::is_missing)
    }
}

/// A device of a volume, or a stretch of it whose device or devices were not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Position among the devices, from 1. Several where one stretch lacks several devices,
    /// none where it cannot be told how many.
    pub positions: Option<RangeInclusive<u32>>,
    /// How a person knows the device; none when it is missing.
    pub label: Option<String>,
    /// Name in the volume's own table of devices, empty if unknown.
    pub device_name: String,
    /// UUID of the device as VMware prints it; none when it is missing.
    pub device_uuid: Option<String>,
    /// First extent, counted over the volume. Unit: 256 MiB.
    pub first_pe: u64,
    /// Last extent. Unit: 256 MiB.
    pub last_pe: u64,
    /// What it holds. Unit: bytes of the volume.
    pub range: Range<u64>,
}

impl MemberInfo {
    /// Whether it was not given.
    pub fn is_missing(&self) -> bool {
        self.label.is_none()
    }
}

/// Makes the volume of its members, given in any order.
///
/// The extent tables decide what lies where; descriptors that disagree are noted. A missing
/// member leaves a `Lost` stretch and the finding `lvm-member-missing`.
///
/// Errors: `Invalid` for a member of another volume, and for a device given twice; `Corrupt`
/// when two members claim one place or are of different LVM versions; `Limit`.
pub fn assemble(members: Vec<Member>, limits: &Limits) -> Result<Volume> {
    let mut members = members;
    if wide(members.len()) > limits.members_max {
        return Err(Error::limit("members_max", format!("{} members are given", members.len())));
    }
    check_belong(&members)?;
    members.sort_by_key(|member| member.volume.pe_first);
    let latest = latest(&members)
        .ok_or_else(|| Error::invalid(Problem::Missing, "a volume needs at least one member"))?;
    let identity = latest.identity();
    let uuid = vmware_uuid(&identity.uuid);
    let cover = cover(&members, latest)?;
    let mut notes: Vec<Finding> =
        members.iter().flat_map(|member| member.notes.iter().cloned()).collect();
    notes.extend(disagreements(&members, latest));
    notes.extend(cover.notes.iter().cloned());
    let disk = Concat::open(format!("VMFS volume {uuid}"), pieces(&members, &cover))?;
    let name = Some(latest.volume_name()).filter(|name| !name.is_empty());
    Ok(Volume {
        size_bytes: disk.size_bytes(),
        disk,
        identity,
        name: name.unwrap_or_else(|| uuid.clone()),
        uuid,
        members: cover.members,
        notes,
    })
}

/// The member that knows the newest state of the volume.
pub(crate) fn latest(members: &[Member]) -> Option<&Member> {
    let newest = members.iter().map(|member| member.volume.generation).max()?;
    members.iter().find(|member| member.volume.generation == newest)
}

/// Checks that all members are different devices of one volume.
pub(crate) fn check_belong(members: &[Member]) -> Result<()> {
    let Some((first, others)) = members.split_first() else { return Ok(()) };
    for other in others {
        if other.identity() != first.identity() {
            let detail = format!(
                "{} belongs to volume {}, but {} to volume {}",
                first.label,
                first.identity(),
                other.label,
                other.identity()
            );
            return Err(Error::invalid(Problem::Mismatch, detail)
                .advise("give only the members of one volume"));
        }
        if other.version().0 != first.version().0 {
            let detail = format!(
                "{} is of LVM {}, but {} of LVM {}",
                first.label,
                first.version().0,
                other.label,
                other.version().0
            );
            return Err(Error::corrupt(Problem::Mismatch, detail)
                .at(Place::new("LVM header").field("version_major")));
        }
    }
    let mut rest = members;
    while let Some((one, others)) = rest.split_first() {
        let uuid = one.device_uuid();
        let twin = others.iter().find(|other| other.device_uuid() == uuid);
        if let Some(twin) = twin.filter(|_| !all_zero(&uuid)) {
            let detail = format!(
                "{} and {} are the same member, device {}",
                one.label,
                twin.label,
                vmware_uuid(&uuid)
            );
            return Err(Error::invalid(Problem::Ambiguous, detail)
                .advise("give each device once; of two copies choose the right one"));
        }
        rest = others;
    }
    Ok(())
}

/// Where descriptors differ from the newest one.
pub(crate) fn disagreements<'a>(
    members: &'a [Member],
    latest: &'a Member,
) -> impl Iterator<Item = Finding> + 'a {
    members.iter().flat_map(move |member| {
        let (a, b) = (&member.volume, &latest.volume);
        let facts = [
            ("size_bytes", a.size_bytes, b.size_bytes),
            ("generation", a.generation, b.generation),
            ("device_count", u64::from(a.device_count), u64::from(b.device_count)),
        ];
        facts.into_iter().filter(|(_, own, other)| own != other).map(move |(field, own, other)| {
            let text = format!(
                "{} says {field} is {own}, {} says {other}; the extent tables decide",
                member.label, latest.label
            );
            Finding::warning("lvm-members-disagree", text)
                .at(Place::new("LVM volume descriptor").field(field))
        })
    })
}

fn pieces(members: &[Member], cover: &Cover) -> Vec<Piece> {
    let total = members.len().max(adit_core::bytes::index(cover.device_count));
    let disks: Vec<Arc<dyn Disk>> = members
        .iter()
        .zip(cover.members.iter().filter(|info| !info.is_missing()))
        .map(|(member, info)| {
            // As long as its extents say, so that what was cut off is lost with a good reason.
            let end = member.runs.iter().map(|run| run.physical_end()).max().unwrap_or(0);
            let size = member.disk.size_bytes().max(end);
            let name = match &info.positions {
                Some(at) => format!("member {} of {total}, {}", at.start(), member.label),
                None => format!("a member of {total}, {}", member.label),
            };
            Slice::open(name, Arc::clone(&member.disk), 0, size)
        })
        .collect();
    let piece = |segment: &Segment| match segment {
        Segment::Stored { member, run } => match disks.get(*member) {
            Some(disk) => Piece::part(Arc::clone(disk), run.physical, run.length),
            None => Piece::lost(run.length, Error::new(Kind::Lost, Problem::Missing, "no member")),
        },
        Segment::Lost { range, reason } => {
            Piece::lost(range.end.saturating_sub(range.start), reason.clone())
        }
    };
    cover.segments.iter().map(piece).collect()
}
