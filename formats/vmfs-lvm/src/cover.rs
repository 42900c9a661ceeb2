//! Covers a volume from end to end: extents where members have them, reasons where not.

use crate::assemble::MemberInfo;
use crate::layout::PE_BYTES;
use crate::member::Member;
use crate::pe::PeRun;
use adit_core::bytes::{index, wide};
use adit_core::{Error, Finding, Place, Problem, Result, vmware_uuid};
use std::ops::Range;

/// A stretch of the volume.
#[derive(Debug)]
pub(crate) enum Segment {
    /// On the member of this index.
    Stored { member: usize, run: PeRun },
    /// Nowhere, for this reason.
    Lost { range: Range<u64>, reason: Error },
}

/// The volume from 0 to its end.
#[derive(Debug)]
pub(crate) struct Cover {
    pub segments: Vec<Segment>,
    pub members: Vec<MemberInfo>,
    pub notes: Vec<Finding>,
    /// Devices of the volume by the newest descriptor.
    pub device_count: u32,
}

/// A stretch that no extent describes.
#[derive(Debug)]
struct Gap {
    range: Range<u64>,
    /// The given member whose own stretch it is in; none when its member is missing.
    member: Option<usize>,
}

/// Covers the volume of `members`, which are sorted by their first extent.
///
/// Errors: `Corrupt` when two members claim one place.
pub(crate) fn cover(members: &[Member], latest: &Member) -> Result<Cover> {
    let mut runs: Vec<(usize, PeRun)> = Vec::new();
    for (at, member) in members.iter().enumerate() {
        runs.extend(member.runs.iter().map(|run| (at, *run)));
    }
    runs.sort_by_key(|(_, run)| run.logical);
    check_overlap(members, &runs)?;
    let stored_end = runs.last().map_or(0, |(_, run)| run.logical_end());
    let size = stored_end.max(latest.volume.size_bytes);
    let absent = latest.volume.device_count.saturating_sub(count(members));
    let mut gaps = find_gaps(members, &runs, size, absent > 0);
    let stretches = gaps.iter().filter(|gap| gap.member.is_none()).count();
    if stretches > index(latest.volume.device_count) {
        // More holes than devices: no missing device explains them.
        gaps.iter_mut().for_each(|gap| gap.member = gap.member.or(Some(usize::MAX)));
    }
    let infos = place_members(members, &gaps, absent);
    let mut cover = Cover {
        segments: Vec::new(),
        members: infos,
        notes: Vec::new(),
        device_count: latest.volume.device_count.max(count(members)),
    };
    cover.note_counts(members, latest, stored_end);
    cover.fill(members, runs, gaps);
    Ok(cover)
}

fn count(members: &[Member]) -> u32 {
    u32::try_from(members.len()).unwrap_or(u32::MAX)
}

fn check_overlap(members: &[Member], runs: &[(usize, PeRun)]) -> Result<()> {
    for pair in runs.windows(2) {
        let [(a, run), (b, next)] = pair else { continue };
        if next.logical >= run.logical_end() {
            continue;
        }
        let label = |index: &usize| members.get(*index).map_or("", |member| member.label());
        let detail = format!(
            "volume byte {:#x} is said to be on {} and on {}",
            next.logical,
            label(a),
            label(b)
        );
        return Err(Error::corrupt(Problem::Overlaps, detail)
            .at(Place::new("LVM extent table"))
            .advise("one of them is not, or no longer, a member; leave it out"));
    }
    Ok(())
}

/// What no run covers, cut at the borders of the members' own stretches.
fn find_gaps(members: &[Member], runs: &[(usize, PeRun)], size: u64, absent: bool) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut at = 0;
    let ends = runs.iter().map(|(_, run)| (run.logical, run.logical_end()));
    for (start, end) in ends.chain([(size, size)]) {
        while at < start {
            let inside = members.iter().position(|member| member.volume_range().contains(&at));
            let border = match inside.and_then(|index| members.get(index)) {
                Some(member) => member.volume_range().end,
                None => members
                    .iter()
                    .map(|member| member.volume_range().start)
                    .find(|&border| border > at)
                    .unwrap_or(start),
            };
            let stop = border.min(start);
            // With every device at hand nothing is missing: some table is wrong.
            let member = inside.or((!absent).then_some(usize::MAX));
            gaps.push(Gap { range: at..stop, member });
            at = stop;
        }
        at = at.max(end);
    }
    gaps
}

/// Given members and missing stretches in volume order, with their positions where those can
/// be told: one device a stretch, or all missing devices in one stretch.
fn place_members(members: &[Member], gaps: &[Gap], absent: u32) -> Vec<MemberInfo> {
    let names = members.iter().map(Member::device_names).find(|names| !names.is_empty());
    let mut infos: Vec<MemberInfo> = members.iter().map(given).collect();
    let missing: Vec<&Gap> = gaps.iter().filter(|gap| gap.member.is_none()).collect();
    let stretches = wide(missing.len());
    let each = match stretches {
        1 => Some(absent),
        n if n == u64::from(absent) => Some(1),
        _ => None,
    };
    infos.extend(missing.into_iter().map(|gap| absent_one(&gap.range)));
    infos.sort_by_key(|info| info.range.start);
    let mut position = Some(1u32);
    for info in &mut infos {
        let devices = if info.is_missing() { each } else { Some(1) };
        let after = position.zip(devices).map(|(at, devices)| at.saturating_add(devices));
        info.positions = position.zip(after).map(|(at, after)| at..=after.saturating_sub(1));
        position = after;
        if let (Some(at), Some(names)) = (&info.positions, names) {
            let named = at.clone().filter_map(|k| names.get(index(k.saturating_sub(1))));
            info.device_name = named.cloned().collect::<Vec<_>>().join(", ");
        }
    }
    infos
}

fn given(member: &Member) -> MemberInfo {
    MemberInfo {
        positions: None,
        label: Some(member.label.clone()),
        device_name: String::new(),
        device_uuid: Some(vmware_uuid(&member.device_uuid())),
        first_pe: member.first_pe(),
        last_pe: member.last_pe(),
        range: member.volume_range(),
    }
}

fn absent_one(range: &Range<u64>) -> MemberInfo {
    let unit = |byte: u64| byte.checked_div(PE_BYTES).unwrap_or(0);
    MemberInfo {
        positions: None,
        label: None,
        device_name: String::new(),
        device_uuid: None,
        first_pe: unit(range.start),
        last_pe: unit(range.end.saturating_sub(1)),
        range: range.clone(),
    }
}

impl Cover {
    fn note_counts(&mut self, members: &[Member], latest: &Member, stored_end: u64) {
        let place = |field| Place::new("LVM volume descriptor").field(field);
        let (said, have) = (latest.volume.device_count, count(members));
        let nothing_missing = !self.members.iter().any(MemberInfo::is_missing);
        if said < have || (said > have && nothing_missing) {
            let text = format!("the volume counts {said} devices, {have} are given");
            self.notes.push(Finding::warning("lvm-device-count", text).at(place("device_count")));
        }
        let size = latest.volume.size_bytes;
        if size < stored_end || (size > stored_end && nothing_missing) {
            let text = format!("the volume says {size} bytes, its extents end at {stored_end}");
            self.notes.push(Finding::warning("lvm-size-differs", text).at(place("size_bytes")));
        }
    }

    fn fill(&mut self, members: &[Member], runs: Vec<(usize, PeRun)>, gaps: Vec<Gap>) {
        let mut segments: Vec<(u64, Segment)> = Vec::with_capacity(runs.len());
        for (member, run) in runs {
            segments.push((run.logical, Segment::Stored { member, run }));
        }
        let mut unmapped: Option<(Finding, u64)> = None;
        let mut absent = self.members.iter().filter(|info| info.is_missing());
        for gap in gaps {
            let reason = match gap.member {
                None => missing(absent.next(), self.device_count, &gap.range),
                Some(index) => not_mapped(members.get(index), &gap.range),
            };
            let bytes = gap.range.end.saturating_sub(gap.range.start);
            if gap.member.is_none() {
                self.notes.push(Finding::from_error("lvm-member-missing", &reason));
            } else {
                let first = || (Finding::from_error("lvm-extent-missing", &reason), 0);
                let (_, sum) = unmapped.get_or_insert_with(first);
                *sum = sum.saturating_add(bytes);
            }
            segments.push((gap.range.start, Segment::Lost { range: gap.range, reason }));
        }
        if let Some((mut finding, bytes)) = unmapped {
            finding.text = format!("{} ({bytes} bytes are lost in all)", finding.text);
            self.notes.push(finding);
        }
        segments.sort_by_key(|(start, _)| *start);
        self.segments = segments.into_iter().map(|(_, segment)| segment).collect();
    }
}

/// Why the bytes of a device that was not given cannot be had.
fn missing(info: Option<&MemberInfo>, total: u32, range: &Range<u64>) -> Error {
    let who = match info.and_then(|info| info.positions.clone()) {
        Some(at) if at.start() == at.end() => format!("member {} of {total}", at.start()),
        Some(at) => format!("members {} to {} of {total}", at.start(), at.end()),
        None => format!("one or more of its {total} members"),
    };
    let name = info.map_or("", |info| &info.device_name);
    let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
    Error::lost(format!(
        "bytes {:#x} to {:#x} of the volume are on {who}{name}, which was not given",
        range.start,
        range.end.saturating_sub(1)
    ))
    .at(Place::new("LVM volume").byte(range.start))
    .advise("give it with `--member FILE`")
}

/// Why bytes cannot be had although their device is there.
fn not_mapped(member: Option<&Member>, range: &Range<u64>) -> Error {
    let what = format!(
        "no extent describes bytes {:#x} to {:#x} of the volume",
        range.start,
        range.end.saturating_sub(1)
    );
    let detail = match member.map(|member| (&member.label, &member.damage)) {
        Some((label, Some(damage))) => {
            format!("{what}; the tables of {label} are damaged: {damage}")
        }
        Some((label, None)) => format!("{what}; {label} should"),
        None => what,
    };
    Error::lost(detail).at(Place::new("LVM volume").byte(range.start))
}
