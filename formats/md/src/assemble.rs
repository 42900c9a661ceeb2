//! Members to an array: one volume.

use crate::member::Member;
use crate::raid::{Array, Leg, Level, Rotation, Turns};
use crate::superblock::{Role, Superblock, count, length};
use adit_core::bytes::{index, wide};
use adit_core::{
    DiskExt, Error, Finding, Kind, Limits, Place, Problem, Result, Volume, VolumeTable,
};

/// An array over its members.
#[derive(Clone, Copy, Debug)]
pub struct Group;

impl Group {
    /// Makes the array of its members, given in any order. Members that are behind, failed or
    /// spare are not read, and noted; missing ones are `Lost` unless redundancy gives them back.
    ///
    /// Errors: `Invalid` for members of different arrays, and for one given twice;
    /// `Unsupported` while a reshape goes on, for arrays with a journal, and for levels that are
    /// not read; `Corrupt`; `Limit`.
    pub fn assemble(members: Vec<Member>, limits: &Limits) -> Result<VolumeTable> {
        if wide(members.len()) > limits.members_max.saturating_mul(2) {
            let detail = format!("{} members are given", members.len());
            return Err(Error::limit("members_max", detail));
        }
        check_belong(&members)?;
        let newest = members.iter().max_by_key(|member| member.superblock.events);
        let newest = newest.map(|member| member.superblock.clone());
        let newest = newest.ok_or_else(|| {
            Error::invalid(Problem::Missing, "an array needs at least one member")
        })?;
        check_readable(&newest)?;
        let mut notes: Vec<Finding> =
            members.iter().flat_map(|member| member.notes.iter().cloned()).collect();
        let chosen = choose(&members, &newest, &mut notes)?;
        let (level, kind) = level(&newest)?;
        note_state(&newest, &mut notes);
        let legs = legs(&chosen, &newest, &mut notes)?;
        note_missing(&legs, level, &newest, &mut notes);
        let name = newest.name.rsplit(':').next().filter(|name| !name.is_empty());
        let name = name.unwrap_or("array").to_owned();
        let disk = Array::open(format!("{kind} array {}", newest.array_uuid), level, legs, None)?;
        if disk.size_bytes() == 0 {
            return Err(bad("size", "the array has no room for data".into()));
        }
        let volume = Volume {
            name,
            label: newest.name.clone(),
            uuid: newest.array_uuid.clone(),
            kind,
            offset: None,
            disk,
        };
        Ok(VolumeTable {
            format: "Linux md",
            uuid: newest.array_uuid,
            sector_size_bytes: 512,
            volumes: vec![volume],
            notes,
        })
    }
}

fn bad(field: &'static str, detail: String) -> Error {
    Error::corrupt(Problem::BadValue, detail).at(Place::new("md superblock").field(field))
}

/// Checks that all members are different devices of one array.
fn check_belong(members: &[Member]) -> Result<()> {
    let mut rest = members;
    while let Some((one, others)) = rest.split_first() {
        for other in others {
            if one.array_uuid() != other.array_uuid() {
                let detail = format!(
                    "{} belongs to array {}, but {} to {}",
                    one.label,
                    one.array_uuid(),
                    other.label,
                    other.array_uuid()
                );
                return Err(Error::invalid(Problem::Mismatch, detail)
                    .advise("give only the members of one array"));
            }
            if one.device_uuid() == other.device_uuid() {
                let detail = format!(
                    "{} and {} are the same member, {}",
                    one.label,
                    other.label,
                    one.device_uuid()
                );
                return Err(Error::invalid(Problem::Ambiguous, detail)
                    .advise("give each device once; of two copies choose the right one"));
            }
        }
        rest = others;
    }
    Ok(())
}

fn check_readable(newest: &Superblock) -> Result<()> {
    let refuse = |detail: &str, advice: &str| {
        Err(Error::unsupported(detail).at(Place::new("md superblock")).advise(advice))
    };
    if newest.reshape {
        return refuse(
            "a reshape of the array has not ended",
            "let it end on a host that has the array active",
        );
    }
    if newest.journal {
        return refuse(
            "the array has a write journal, which may be ahead of its members",
            "stop the array on a host that has its journal",
        );
    }
    if newest.raid_disks == 0 {
        return Err(bad("raid_disks", "an array of no members".into()));
    }
    Ok(())
}

/// The member for each role, where there is a good one.
fn choose<'a>(
    members: &'a [Member],
    newest: &Superblock,
    notes: &mut Vec<Finding>,
) -> Result<Vec<Option<&'a Member>>> {
    let mut chosen: Vec<Option<&Member>> = vec![None; index(newest.raid_disks)];
    for member in members {
        let own = &member.superblock;
        let said = newest.roles.get(own.number).copied();
        let out = |reason: String| {
            let text = format!("{} {reason}; it is not read", member.label);
            Finding::warning("md-member-out", text)
        };
        let role = match own.role() {
            Role::Active(role) => role,
            Role::Spare => {
                let text = format!("{} is a spare", member.label);
                notes.push(Finding::info("md-spare", text));
                continue;
            }
            Role::Faulty => {
                notes.push(out("is marked as failed".into()));
                continue;
            }
            Role::Journal => {
                notes.push(out("holds a journal".into()));
                continue;
            }
        };
        // Superblocks are written one after the other: one event behind is as good.
        if own.events.saturating_add(1) < newest.events {
            notes
                .push(out(format!("stopped at event {}, others at {}", own.events, newest.events)));
            continue;
        }
        if said != Some(Role::Active(role)) {
            notes.push(out(format!("calls itself member {role}, others call it {said:?}")));
            continue;
        }
        if own.replacement {
            notes.push(out(format!("is to replace member {role}")));
            continue;
        }
        let Some(place) = chosen.get_mut(index(role)) else {
            return Err(bad("dev_roles", format!("{} is member {role}", member.label)));
        };
        if let Some(other) = place.replace(member) {
            let detail = format!("{} and {} are both member {role}", other.label, member.label);
            return Err(Error::invalid(Problem::Ambiguous, detail).advise("give one of them only"));
        }
        let differs = [
            ("level", i64::from(own.level), i64::from(newest.level)),
            ("layout", i64::from(own.layout), i64::from(newest.layout)),
            ("chunk", own.chunk.cast_signed(), newest.chunk.cast_signed()),
            ("raid_disks", i64::from(own.raid_disks), i64::from(newest.raid_disks)),
            ("size", own.size.cast_signed(), newest.size.cast_signed()),
        ];
        if let Some((field, own, other)) = differs.into_iter().find(|(_, own, new)| own != new) {
            let detail = format!("{}: {field} is {own}, others say {other}", member.label);
            return Err(Error::corrupt(Problem::Mismatch, detail)
                .at(Place::new("md superblock").field(field)));
        }
    }
    Ok(chosen)
}

/// The level of an array, and what a person calls it.
fn level(newest: &Superblock) -> Result<(Level, String)> {
    let (chunk_bytes, layout, trusted) = (newest.chunk, newest.layout, newest.clean);
    let no_layout = || {
        let detail = format!("layout {layout} of level {}", newest.level);
        Error::unsupported(detail).at(Place::new("md superblock").field("layout"))
    };
    let parity = |rotation: Option<Rotation>, q| {
        let rotation = rotation.ok_or_else(no_layout)?;
        Ok::<_, Error>(Level::Parity { chunk_bytes, rotation, q, trusted })
    };
    let level = match newest.level {
        -1 => Level::Linear,
        0 => {
            let turns = match layout {
                1 if newest.layout_known => Turns::Original,
                2 if newest.layout_known => Turns::Alternate,
                _ => Turns::Unknown,
            };
            Level::Stripes { chunk_bytes, turns }
        }
        1 => Level::Mirror,
        4 => parity(Some(Rotation::Last), false)?,
        5 => parity(Rotation::of_level5(layout), false)?,
        6 => parity(Rotation::of_level6(layout), true)?,
        10 => ten(newest).ok_or_else(no_layout)?,
        other => {
            return Err(Error::unsupported(format!("arrays of level {other}"))
                .at(Place::new("md superblock").field("level")));
        }
    };
    let kind = match level {
        Level::Linear => "linear".to_owned(),
        Level::Parity { rotation, .. } => format!("RAID {} ({rotation:?})", newest.level),
        _ => format!("RAID {}", newest.level),
    };
    Ok((level, kind))
}

/// Source: md(4): near copies in the lowest byte, far ones above, then the offset layout.
fn ten(newest: &Superblock) -> Option<Level> {
    let layout = newest.layout;
    let (near, far) = (layout & 0xff, layout >> 8 & 0xff);
    let far_set = match layout >> 17 {
        0 => None,
        1 => Some(newest.raid_disks.checked_div(far)?),
        2 => Some(near.checked_mul(far)?),
        _ => return None,
    };
    let offset = layout & 0x1_0000 != 0;
    Some(Level::Ten { chunk_bytes: newest.chunk, near, far, offset, far_set })
}

fn note_state(newest: &Superblock, notes: &mut Vec<Finding>) {
    let redundant = !matches!(newest.level, -1 | 0);
    if !newest.clean && redundant {
        let text = "the array was in use or not synchronised when it stopped; copies and parity \
                    may differ from the data, and nothing is computed from parity";
        notes.push(Finding::warning("md-unclean", text));
    }
    if newest.bitmap {
        let text = "a bitmap tells which parts were written to last; it is not needed to read";
        notes.push(Finding::info("md-bitmap", text));
    }
}

fn legs(
    chosen: &[Option<&Member>],
    newest: &Superblock,
    notes: &mut Vec<Finding>,
) -> Result<Vec<Leg>> {
    // Members of linear and striped arrays use all they have; others the same of each.
    let own_size = matches!(newest.level, -1 | 0);
    let sizes: Vec<u64> =
        chosen.iter().flatten().map(|member| length(&member.superblock.data)).collect();
    let first = sizes.first().copied();
    let even = sizes.iter().all(|size| Some(*size) == first);
    let mut legs = Vec::new();
    for (role, member) in chosen.iter().enumerate() {
        let Some(member) = member else {
            let reason = Error::lost(format!("member {role} of {} is not given", chosen.len()))
                .advise("give the missing device as a further member");
            let size = match (own_size, first) {
                (false, _) => newest.size,
                (true, Some(size)) if newest.level == 0 && even => {
                    let text = format!(
                        "member {role} is missing; it is taken to be as long as the others, \
                         which are all the same"
                    );
                    notes.push(Finding::warning("md-length-assumed", text));
                    size
                }
                _ => {
                    let detail = format!(
                        "member {role} is missing, and without its length no later byte of the \
                         array has a place"
                    );
                    return Err(Error::new(Kind::Lost, Problem::Missing, detail)
                        .advise("give the missing device as a further member"));
                }
            };
            legs.push(Leg::missing(size, reason));
            continue;
        };
        let own = &member.superblock;
        let room = length(&own.data);
        let size = if own_size { room } else { newest.size };
        if size > room {
            let detail = format!("{} has {room} bytes of {size}", member.label);
            return Err(Error::corrupt(Problem::OutOfRange, detail)
                .at(Place::new("md superblock").field("data_size")));
        }
        legs.push(leg(member, own, size, notes));
    }
    Ok(legs)
}

fn leg(member: &Member, own: &Superblock, size: u64, notes: &mut Vec<Finding>) -> Leg {
    let mut leg = Leg::present(member.disk.clone(), own.data.start, size);
    let end = own.data.start.saturating_add(size);
    let there = member.disk.size_bytes();
    if there < end {
        let text = format!(
            "{} ends after {there} bytes of {end}; its end is read elsewhere or lost",
            member.label
        );
        notes.push(Finding::error("md-member-short", text));
    }
    if let Some(rebuilt) = own.rebuilt.filter(|&rebuilt| rebuilt < size) {
        let text = format!("{} is rebuilt only up to byte {rebuilt} of its data", member.label);
        notes.push(Finding::warning("md-rebuilding", text.clone()));
        leg = leg.without(rebuilt..size, Error::lost(text));
    }
    let start = own.data.start;
    for range in &own.bad {
        let moved = |at: u64| at.saturating_sub(start).min(size);
        let range = moved(range.start)..moved(range.end);
        if !range.is_empty() {
            let text = format!("{} lists byte {} of its data as bad", member.label, range.start);
            notes.push(Finding::warning("md-bad-blocks", text.clone()));
            leg = leg.without(range, Error::lost(text));
        }
    }
    leg
}

fn note_missing(legs: &[Leg], level: Level, newest: &Superblock, notes: &mut Vec<Finding>) {
    let missing: Vec<u64> =
        (0u64..).zip(legs).filter(|(_, leg)| !leg.is_present()).map(|(role, _)| role).collect();
    if missing.is_empty() {
        return;
    }
    let spare = match level {
        Level::Linear | Level::Stripes { .. } => 0,
        Level::Mirror => legs.len().saturating_sub(1),
        Level::Ten { near, far, .. } => index(near.saturating_mul(far).saturating_sub(1)),
        Level::Parity { trusted: false, .. } => 0,
        Level::Parity { q, .. } => 1usize.saturating_add(usize::from(q)),
    };
    let roles = missing.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let known = count(&newest.roles);
    let text = format!("of {} members, {known} in use, these are missing: {roles}", legs.len());
    let note = match missing.len() <= spare {
        true => {
            let text = format!("{text}; redundancy gives back what they held");
            Finding::warning("md-member-missing", text)
        }
        false => {
            let text = format!("{text}; bytes they held are lost");
            Finding::error("md-member-missing", text)
                .advise("give the missing devices as further members")
        }
    };
    notes.push(note);
}
