//! RAID volumes: images with data, and metadata devices that say which images are good.

use crate::build::{Area, Builder, Built, bad};
use crate::layout::{RAID_MAGIC, RaidSuperblock};
use crate::metadata::{Lv, Segment, bytes};
use crate::text::Value;
use adit_core::bytes::wide;
use adit_core::{DiskExt, Error, Finding, Place, Problem, Result};
use adit_md::raid::{Array, Leg, Level, Rotation, Turns};

/// A RAID type by LVM's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RaidKind {
    Zero,
    One,
    Four,
    Five(Rotation),
    Six(Rotation),
    Ten,
}

impl RaidKind {
    /// Source: lvmraid(7), which names the rotations.
    pub fn parse(kind: &str) -> Option<Self> {
        use Rotation::*;
        Some(match kind {
            "raid0" | "raid0_meta" => RaidKind::Zero,
            "raid1" => RaidKind::One,
            "raid4" => RaidKind::Four,
            "raid5" | "raid5_ls" => RaidKind::Five(LeftSymmetric),
            "raid5_la" => RaidKind::Five(LeftAsymmetric),
            "raid5_ra" => RaidKind::Five(RightAsymmetric),
            "raid5_rs" => RaidKind::Five(RightSymmetric),
            "raid5_n" => RaidKind::Five(Last),
            "raid6" | "raid6_zr" => RaidKind::Six(ZeroRestart),
            "raid6_nr" => RaidKind::Six(NRestart),
            "raid6_nc" => RaidKind::Six(NContinue),
            "raid6_la_6" => RaidKind::Six(LeftAsymmetric6),
            "raid6_ra_6" => RaidKind::Six(RightAsymmetric6),
            "raid6_ls_6" => RaidKind::Six(LeftSymmetric6),
            "raid6_rs_6" => RaidKind::Six(RightSymmetric6),
            "raid6_n_6" => RaidKind::Six(Last),
            "raid10" | "raid10_near" => RaidKind::Ten,
            _ => return None,
        })
    }

    /// How many images hold data that others do not.
    fn data_images(self, images: u64, copies: u64) -> Option<u64> {
        match self {
            RaidKind::Zero => Some(images),
            RaidKind::One => Some(1),
            RaidKind::Four | RaidKind::Five(_) => images.checked_sub(1),
            RaidKind::Six(_) => images.checked_sub(2),
            RaidKind::Ten => images.checked_div(copies),
        }
    }

    fn level(self, chunk_bytes: u64, copies: u64, trusted: bool, layout: Option<u32>) -> Level {
        let parity = |rotation, q| Level::Parity { chunk_bytes, rotation, q, trusted };
        match self {
            RaidKind::Zero => Level::Stripes { chunk_bytes, turns: Turns::Unknown },
            RaidKind::One => Level::Mirror,
            // Parity stands on the first image; 5 in the superblock says it stands on the last.
            RaidKind::Four if layout == Some(5) => parity(Rotation::Last, false),
            RaidKind::Four => parity(Rotation::First, false),
            RaidKind::Five(rotation) => parity(rotation, false),
            RaidKind::Six(rotation) => parity(rotation, true),
            RaidKind::Ten => Level::Ten {
                chunk_bytes,
                near: u32::try_from(copies).unwrap_or(u32::MAX),
                far: 1,
                offset: false,
                far_set: None,
            },
        }
    }
}

/// One image with what its metadata device says; `state` is none where it says nothing.
struct Image {
    name: String,
    area: Area,
    state: Option<RaidSuperblock>,
}

impl Builder<'_> {
    pub fn raid(&mut self, lv: &Lv, segment: &Segment, kind: RaidKind) -> Result<Built> {
        let body = &segment.body;
        if body.optional("data_offset")?.unwrap_or(0) > 0 || body.value("delta_disks").is_some() {
            return Err(Error::unsupported("a reshape of the RAID volume has not ended")
                .at(Place::new("segment").field("data_offset")));
        }
        let mut images = self.images(lv, segment)?;
        let count = wide(images.len());
        let copies = body.optional("data_copies")?.unwrap_or(2);
        let data = kind.data_images(count, copies).filter(|&data| data > 0);
        let data = data.ok_or_else(|| bad("raids", "too few images for this kind of RAID"))?;
        let each = segment.length.div_ceil(data);
        // RAID 10 over an odd number of images uses them evenly all the same.
        let each = match kind {
            RaidKind::Ten => {
                let room =
                    segment.length.checked_mul(copies).ok_or_else(|| bad("raids", "too large"))?;
                room.div_ceil(count)
            }
            _ => each,
        };
        let chunk = match kind {
            RaidKind::One => 512,
            _ => bytes(body.number("stripe_size")?)?,
        };
        let trusted = self.judge(lv, &mut images, kind)?;
        self.note_parts(lv, &images, each);
        let layout = images.iter().find_map(|image| image.state.as_ref()).map(|state| state.layout);
        let legs: Vec<Leg> = images.into_iter().map(|image| image_leg(image, each)).collect();
        let level = kind.level(chunk, copies, trusted, layout);
        let gone = gone(&legs, kind, copies, segment.length);
        let name = format!("{} LV {}/{}", segment.kind, self.vg.name, lv.name);
        let disk = Array::open(name, level, legs, Some(segment.length))?;
        Ok(Built::without(disk, segment.length, gone))
    }

    /// Notes images of which only parts are there: whether redundancy gives the rest back
    /// differs from place to place.
    fn note_parts(&mut self, lv: &Lv, images: &[Image], each: u64) {
        for image in images {
            let Ok(built) = &image.area.source else { continue };
            let whole =
                built.lost.first().is_some_and(|range| range.start == 0 && range.end >= each);
            if !built.lost.is_empty() && !whole {
                let text = format!(
                    "{}: parts of {} lie on physical volumes that are missing; where other images \
                     lack the same parts, data are lost",
                    lv.name, image.name
                );
                self.notes.push(Finding::error("lvm2-raid-image-partial", text));
            }
        }
    }

    fn images(&mut self, lv: &Lv, segment: &Segment) -> Result<Vec<Image>> {
        let alone = segment.body.list("raid0_lvs");
        let pairs = segment.body.list("raids");
        let named = |value: &Value| {
            value.text().map(str::to_owned).ok_or_else(|| bad("raids", "an image without a name"))
        };
        let names: Vec<(Option<String>, String)> = if alone.is_empty() {
            let pair = |pair: &[Value]| match pair {
                [metadata, data] => Ok((Some(named(metadata)?), named(data)?)),
                _ => Err(bad("raids", "an image without a metadata device")),
            };
            pairs.chunks(2).map(pair).collect::<Result<_>>()?
        } else {
            alone.iter().map(|name| Ok((None, named(name)?))).collect::<Result<_>>()?
        };
        if wide(names.len()) > self.limits.members_max.saturating_mul(8) {
            return Err(Error::limit("members_max", format!("{} images", names.len())));
        }
        let mut images = Vec::new();
        for (metadata, name) in names {
            let built = self.lv(&name)?;
            let state = metadata.and_then(|metadata| self.superblock(lv, &metadata));
            images.push(Image {
                name,
                area: Area { source: Ok(built), offset: 0, reason: None },
                state,
            });
        }
        Ok(images)
    }

    /// What a metadata device says; nothing where it is lost, empty or damaged.
    fn superblock(&mut self, lv: &Lv, name: &str) -> Option<RaidSuperblock> {
        let read = self.lv(name).and_then(|built| built.disk.read_vec(0, RaidSuperblock::SIZE));
        match read.and_then(|raw| RaidSuperblock::read(&raw)) {
            Ok(raw) => (raw.magic == RAID_MAGIC).then_some(raw),
            Err(error) => {
                let mut note = Finding::from_error("lvm2-raid-metadata", &error);
                note.severity = adit_core::Severity::Warning;
                note.text = format!("{}: {name} cannot be read: {}", lv.name, note.text);
                self.notes.push(note);
                None
            }
        }
    }

    /// Takes out the images that are behind the others, and tells whether parity can be trusted.
    fn judge(&mut self, lv: &Lv, images: &mut [Image], kind: RaidKind) -> Result<bool> {
        if kind == RaidKind::Zero {
            return Ok(true);
        }
        let newest = images.iter().filter_map(|image| image.state.as_ref());
        let Some(newest) = newest.max_by_key(|state| state.events).cloned() else {
            let text = format!(
                "{}: no image says whether it is good, as in a volume that was never active; \
                 the first copy is read, and nothing is computed from parity",
                lv.name
            );
            self.notes.push(Finding::warning("lvm2-raid-unknown", text));
            return Ok(false);
        };
        if newest.features & 1 != 0 && newest.flags & 1 != 0 {
            return Err(Error::unsupported("a reshape of the RAID volume has not ended"));
        }
        self.check_shape(lv, &newest, kind, wide(images.len()))?;
        for (number, image) in images.iter_mut().enumerate() {
            let Some(problem) = verdict(image.state.as_ref(), &newest, wide(number)) else {
                continue;
            };
            let reason = Error::lost(format!("{} {problem}", image.name));
            let text = format!("{}: {} {problem}; it is not read", lv.name, image.name);
            self.notes.push(Finding::warning("lvm2-raid-image-out", text));
            image.area.source = Err(reason);
        }
        // A volume made without synchronising has parity only where it was written.
        let trusted = newest.resynced == u64::MAX && !lv.unsynchronised;
        if !trusted {
            let text = format!(
                "{}: the array was not synchronised; copies and parity may differ from the data",
                lv.name
            );
            self.notes.push(Finding::warning("lvm2-raid-unsynchronised", text));
        }
        Ok(trusted)
    }

    fn check_shape(
        &self,
        lv: &Lv,
        newest: &RaidSuperblock,
        kind: RaidKind,
        images: u64,
    ) -> Result<()> {
        let layout = match kind {
            RaidKind::Five(rotation) => (0..8).find(|&n| Rotation::of_level5(n) == Some(rotation)),
            RaidKind::Six(rotation) => (0..32).find(|&n| Rotation::of_level6(n) == Some(rotation)),
            _ => None,
        };
        let differs = layout.is_some_and(|layout| layout != newest.layout)
            || u64::from(newest.devices) != images;
        if differs {
            let detail = format!(
                "{} has {images} images by the group's metadata; its own say {} of layout {}",
                lv.name, newest.devices, newest.layout
            );
            return Err(Error::new(adit_core::Kind::Unsupported, Problem::Mismatch, detail)
                .at(Place::new("RAID superblock").field("layout"))
                .advise("let a conversion of the volume end on a host that has it active"));
        }
        Ok(())
    }
}

/// Why an image must not be read, by its own superblock and the newest one.
fn verdict(state: Option<&RaidSuperblock>, newest: &RaidSuperblock, number: u64) -> Option<String> {
    let Some(state) = state else {
        return Some("has no superblock while others have".into());
    };
    // Each superblock is written on its own: one event behind is as good.
    if state.events.saturating_add(1) < newest.events {
        return Some(format!("stopped at event {}, others at {}", state.events, newest.events));
    }
    let word = match number {
        0..=63 => newest.failed,
        _ if newest.features & 1 == 0 => 0,
        _ => {
            let more = adit_core::bytes::narrow(number.saturating_sub(64) >> 6);
            more.and_then(|at| newest.failed_more.get(at)).copied().unwrap_or(0)
        }
    };
    if word >> (number & 63) & 1 != 0 {
        return Some("is marked as failed".into());
    }
    if state.recovered != u64::MAX {
        return Some(format!("is rebuilt only up to sector {}", state.recovered));
    }
    None
}

fn image_leg(image: Image, each: u64) -> Leg {
    let reason = Error::lost(format!("{} lies on a physical volume that is missing", image.name));
    Area { reason: Some(reason), ..image.area }.leg(each)
}

/// How many bytes redundancy cannot give back, as far as whole images are gone.
fn gone(legs: &[Leg], kind: RaidKind, copies: u64, length: u64) -> u64 {
    let images = wide(legs.len());
    let gone = wide(legs.iter().filter(|leg| !leg.is_present()).count());
    let spare = match kind {
        RaidKind::Zero => 0,
        RaidKind::One => images.saturating_sub(1),
        RaidKind::Four | RaidKind::Five(_) => 1,
        RaidKind::Six(_) => 2,
        RaidKind::Ten => copies.saturating_sub(1),
    };
    if gone > spare { length.saturating_mul(gone).checked_div(images).unwrap_or(0) } else { 0 }
}
