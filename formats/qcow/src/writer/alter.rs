//! What is done to an image as a whole.

use super::Writer;
use super::head::{Backing, Head};
use super::map::WriterMap;
use super::resize::Tail;
use super::state::State;
use crate::layout::compatible;
use adit_core::bytes::{all_zero, narrow};
use adit_core::{
    Change, Disk, DiskExt, Error, ParentRecord, Place, Problem, Result, Stage, WritableDisk,
    WritableImage,
};
use std::sync::atomic::Ordering;

/// Fields of the header that [`WritableImage::modify`] changes.
const FIELDS: &str = "version, size, compatible_features, autoclear_features, backing_file, \
                      backing_format";

impl Writer {
    /// Runs an operation on the tables, alone; if it breaks off, nothing is written any more.
    pub(super) fn alter<T>(
        &self,
        op: impl FnOnce(&WriterMap, &mut State) -> Result<(Vec<Stage>, T)>,
    ) -> Result<T> {
        self.0.alter(|map| {
            let mut state = map.write();
            state.is_sound()?;
            let done = op(map, &mut state);
            if let Err(error) = &done {
                state.failed = Some(error.clone());
            }
            done
        })
    }

    fn grow(&self, size_bytes: u64) -> Result<()> {
        let map = self.0.map();
        let old = self.size_bytes();
        let shows = map.backing.as_ref().is_some_and(|disk| disk.size_bytes() > old);
        if shows && map.read().header.version < 3 {
            let detail = "the backing file is longer than the disk, and version 2 cannot hide it";
            return Err(
                Error::unsupported(detail).advise("make it version 3 first: set `version` to 3")
            );
        }
        let tail = map.read().tail()?;
        if tail == Tail::Shared || (tail == Tail::Below && shows) {
            // Written back, the last sector gets a cluster of its own, with zeros behind it.
            let start = old.saturating_sub(1) & !511;
            let last = self.read_vec(start, narrow(old.saturating_sub(start)).unwrap_or(0))?;
            self.write_at(&last, start)?;
        }
        self.alter(|map, state| {
            let untrusted = map.give_up_bitmaps(state)?;
            let cluster = state.cluster();
            while state.cut(cluster.times(cluster.count(old)))? {}
            if let Tail::Here { offset, length } = state.tail()? {
                let bytes = vec![0; narrow(length).unwrap_or(0)];
                state.beside.push(Change::Write { file: map.data(), offset, bytes });
            }
            if map.writes_through {
                state.beside.push(Change::SetSize { file: map.data(), size_bytes });
            }
            state.change_size(size_bytes)?;
            if !map.writes_through {
                state.hide(old, size_bytes, |at| map.below(at))?;
            }
            let mut stages = vec![untrusted];
            stages.extend(state.record()?);
            Ok((stages, ()))
        })
    }

    fn shrink(&self, size_bytes: u64) -> Result<()> {
        self.check_zero(size_bytes)?;
        // The size first: what is cut off hides what is below, and all of it is zeros.
        self.alter(|map, state| {
            let mut stages = vec![map.give_up_bitmaps(state)?];
            state.change_size(size_bytes)?;
            stages.extend(state.record()?);
            if map.writes_through {
                stages.push(vec![Change::SetSize { file: map.data(), size_bytes }]);
            }
            Ok((stages, ()))
        })?;
        loop {
            let more = self.alter(|_, state| {
                let cluster = state.cluster();
                let more = state.cut(cluster.times(cluster.count(size_bytes)))?;
                Ok((state.record()?, more))
            })?;
            if !more {
                return Ok(());
            }
        }
    }

    /// What a smaller size cuts off must hold nothing.
    fn check_zero(&self, from: u64) -> Result<()> {
        const PIECE: u64 = 1 << 20;
        let end = self.size_bytes();
        let mut at = from;
        while at < end {
            let extent = self.extent_at(at)?;
            let stop = extent.end().min(end);
            while at < stop && !extent.kind.is_zero() {
                let length = stop.saturating_sub(at).min(PIECE);
                if !all_zero(&self.read_vec(at, narrow(length).unwrap_or(0))?) {
                    let detail = format!("the disk holds data behind {from:#x}");
                    return Err(Error::invalid(Problem::Refused, detail)
                        .at(Place::new("disk").byte(at))
                        .advise("discard what is to be cut off, if nobody needs it"));
                }
                at = at.saturating_add(length);
            }
            at = stop.max(at);
        }
        Ok(())
    }

    /// Rewrites the header cluster.
    fn rewrite_head(&self, change: impl FnOnce(&mut Head, &mut State) -> Result<()>) -> Result<()> {
        self.alter(|map, state| {
            let file = map.disks.first().ok_or_else(super::map::no_file)?;
            let mut head = Head::read(file.as_ref(), state)?;
            change(&mut head, state)?;
            let format = head.backing().map(|it| it.format.clone()).filter(|it| !it.is_empty());
            let (stages, name) = head.write()?;
            state.header.backing = name;
            state.header.extensions.backing_format = format;
            Ok((stages, ()))
        })
    }

    fn set_backing(&self, backing: Option<Backing>) -> Result<()> {
        if backing.is_some() && self.0.map().writes_through {
            let detail = "a raw data file holds the whole disk, and nothing can be below";
            return Err(Error::invalid(Problem::Refused, detail));
        }
        // Too long a name is the caller's mistake, not the image's end.
        let trial = self.head()?;
        let mut trial = trial;
        trial.set_backing(backing.clone())?;
        trial.write()?;
        self.rewrite_head(|head, _| head.set_backing(backing))
    }

    fn head(&self) -> Result<Head> {
        let map = self.0.map();
        let file = map.disks.first().ok_or_else(super::map::no_file)?;
        Head::read(file.as_ref(), &map.read())
    }

    fn set_features(&self, at: u64, value: u64) -> Result<()> {
        self.alter(|_, state| {
            let bytes = value.to_be_bytes().to_vec();
            match at {
                AUTOCLEAR => state.header.autoclear = value,
                _ => state.header.compatible = value,
            }
            Ok((vec![vec![Change::Write { file: 0, offset: at, bytes }]], ()))
        })
    }

    fn set_version(&self, value: &str) -> Result<()> {
        let now = self.0.map().read().header.version;
        match (value, now) {
            ("3" | "1.1", 2) => self.rewrite_head(|head, state| {
                head.make_version_3();
                state.header.version = 3;
                state.kind = crate::entry::EntryKind::new(&state.header);
                Ok(())
            }),
            ("3" | "1.1", 3) | ("2" | "0.10", 2) => Ok(()),
            _ => Err(Error::unsupported(format!("from version {now} to {value:?}"))
                .advise("version 2 can become 3; back, convert the image")),
        }
    }
}

const COMPATIBLE: u64 = 0x50;
const AUTOCLEAR: u64 = 0x58;

fn number(value: &str) -> Result<u64> {
    let parsed = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| Error::invalid(Problem::BadValue, format!("{value:?} is no number")))
}

impl WritableImage for Writer {
    fn resize(&self, size_bytes: u64) -> Result<()> {
        if size_bytes & 511 != 0 {
            let detail = format!("{size_bytes} bytes do not fill sectors of 512 bytes");
            return Err(Error::invalid(Problem::Misaligned, detail));
        }
        let old = self.size_bytes();
        self.0.map().read().check_size(size_bytes)?;
        match size_bytes.cmp(&old) {
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Greater => self.grow(size_bytes)?,
            std::cmp::Ordering::Less => self.shrink(size_bytes)?,
        }
        self.0.map().size_bytes.store(size_bytes, Ordering::Release);
        Ok(())
    }

    fn set_parent(&self, parent: Option<&ParentRecord>) -> Result<()> {
        self.set_backing(parent.map(|parent| Backing {
            name: parent.name.clone(),
            format: parent.format.clone().into_bytes(),
        }))
    }

    fn empty(&self) -> Result<()> {
        if self.0.map().writes_through {
            return Err(Error::unsupported("emptying an image whose data file is the raw disk")
                .advise("write zeros over the disk"));
        }
        loop {
            let more = self.alter(|map, state| {
                // Whether it reads the same is not known here.
                map.touch(0..state.header.size_bytes);
                let more = state.cut(0)?;
                Ok((state.record()?, more))
            })?;
            if !more {
                return Ok(());
            }
        }
    }

    fn modify(&self, field: &str, value: &str) -> Result<()> {
        let (version, autoclear) = {
            let state = self.0.map().read();
            (state.header.version, state.header.autoclear)
        };
        let backing = self.head()?.backing().cloned();
        let text = value.as_bytes().to_vec();
        match (field, backing) {
            ("version", _) => self.set_version(value),
            ("size", _) => self.resize(number(value)?),
            ("compatible_features", _) if version > 2 => {
                let wanted = number(value)?;
                if wanted & !compatible::LAZY_REFCOUNTS != 0 {
                    let detail = format!("{wanted:#x}: bit 0, lazy refcounts, is the only one");
                    return Err(Error::invalid(Problem::BadValue, detail));
                }
                self.set_features(COMPATIBLE, wanted)
            }
            ("autoclear_features", _) if version > 2 => {
                let wanted = number(value)?;
                if wanted & !autoclear != 0 {
                    let detail = format!("{wanted:#x}: these bits can only be cleared");
                    return Err(Error::invalid(Problem::BadValue, detail));
                }
                self.set_features(AUTOCLEAR, wanted)
            }
            ("backing_file", _) if value.is_empty() => self.set_backing(None),
            ("backing_file", held) => {
                let format = held.map(|it| it.format).unwrap_or_default();
                self.set_backing(Some(Backing { name: text, format }))
            }
            ("backing_format", Some(held)) => {
                self.set_backing(Some(Backing { format: text, ..held }))
            }
            _ => Err(Error::not_found(format!("{field:?} cannot be changed"))
                .advise(format!("these can: {FIELDS}"))),
        }
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }
}
