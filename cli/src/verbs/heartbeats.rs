//! `adit heartbeats`: which hosts use or used a datastore.

use super::shown;
use crate::output::{self, Out};
use crate::session::{Session, code_of};
use adit_core::{DiskExt, Error, Leaf, LeafKind, Result};
use adit_vmfs::Vmfs;
use adit_vmfs::heartbeat::{Heartbeat, HeartbeatState};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::time::{Duration, Instant};

/// Shows the slots of one datastore.
pub fn run(session: &Session, path: &OsStr, all: bool, watch: Option<u64>) -> u8 {
    match show(session, path, all, watch) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("read the heartbeats of {}", shown(path)), &error),
    }
}

fn show(session: &Session, path: &OsStr, all: bool, watch: Option<u64>) -> Result<u8> {
    let (opened, files) = session.open_files(path)?;
    let Some(vmfs) = &files.vmfs else {
        return Err(Error::unsupported("only VMFS has heartbeats"));
    };
    let first = vmfs.heartbeats()?;
    let second = match watch {
        Some(seconds) => Some(read_again(session, vmfs, seconds)?),
        None => None,
    };
    let alive = |index: usize| {
        let second = second.as_ref()?;
        Some(first.get(index)?.slot != second.get(index)?.slot)
    };
    let latest = second.as_ref().unwrap_or(&first);
    let shown: Vec<(&Heartbeat, Option<bool>)> = latest
        .iter()
        .enumerate()
        .filter(|(_, heartbeat)| all || heartbeat.ever_used() || heartbeat.in_use())
        .map(|(index, heartbeat)| (heartbeat, alive(index)))
        .collect();
    let mut out = Out::new();
    if session.common.json {
        let list: Vec<Value> =
            shown.iter().map(|(heartbeat, alive)| row_json(heartbeat, *alive)).collect();
        out.json(&json!({
            "schema": "adit.heartbeats/1",
            "path": opened.locator.to_string(),
            "slots": first.len(),
            "heartbeats": list,
            "notes": output::notes_json(&opened.notes),
        }));
    } else {
        let rows: Vec<_> = shown.iter().map(|(heartbeat, alive)| row(heartbeat, *alive)).collect();
        let header = [
            "slot",
            "state",
            "alive",
            "host",
            "address",
            ">generation",
            ">host uptime",
            ">journal",
        ];
        output::table(&mut out, &header, &rows);
        let used = first.iter().filter(|heartbeat| heartbeat.in_use()).count();
        out.line(format!("{used} of {} slots in use", first.len()));
        if watch.is_none() && used > 0 {
            out.line("a copy keeps the slots it was made with; `--watch 16` tells who is alive on a live device");
        }
    }
    out.finish();
    Ok(code_of(&opened.notes))
}

/// Waits, drops what the kernel has cached of the region, and reads again.
fn read_again(session: &Session, vmfs: &Vmfs, seconds: u64) -> Result<Vec<Heartbeat>> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        session.interrupt.check()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let volume = vmfs.volume();
    let (mut at, end) = (0x30_0000, volume.size_bytes().min(0x70_0000));
    while at < end {
        let leaf = Leaf::find(volume, at)?;
        if let LeafKind::Stored { disk, offset } = &leaf.kind
            && let Some(file) = disk.as_file()
        {
            let length = std::num::NonZeroU64::new(leaf.length.min(end - at));
            // A kernel that keeps its cache shows a dead host; it never shows a live one.
            let _ = rustix::fs::fadvise(file, *offset, length, rustix::fs::Advice::DontNeed);
        }
        at += leaf.length.max(1);
    }
    vmfs.heartbeats()
}

fn state(heartbeat: &Heartbeat) -> String {
    match heartbeat.state() {
        HeartbeatState::Free => "free".into(),
        HeartbeatState::InUse => "in use".into(),
        HeartbeatState::Unknown(value) => format!("{value:#x}"),
    }
}

fn row(heartbeat: &Heartbeat, alive: Option<bool>) -> Vec<String> {
    let minutes = heartbeat.uptime().as_secs() / 60;
    vec![
        heartbeat.index.to_string(),
        state(heartbeat),
        alive.map_or("?", |alive| if alive { "yes" } else { "no" }).to_owned(),
        if heartbeat.in_use() { heartbeat.owner_uuid() } else { "-".into() },
        heartbeat.ip().chars().filter(|c| !c.is_control()).collect(),
        heartbeat.slot.generation.to_string(),
        format!("{}d {:02}:{:02}", minutes / 1440, minutes / 60 % 24, minutes % 60),
        heartbeat.journal_offset().map_or("-".into(), |offset| format!("{offset:#x}")),
    ]
}

fn row_json(heartbeat: &Heartbeat, alive: Option<bool>) -> Value {
    json!({
        "slot": heartbeat.index,
        "state": state(heartbeat),
        "alive": alive,
        "owner": heartbeat.owner_uuid(),
        "address": heartbeat.ip(),
        "generation": heartbeat.slot.generation,
        "uptime_us": u64::try_from(heartbeat.uptime().as_micros()).unwrap_or(u64::MAX),
        "journal_offset_bytes": heartbeat.journal_offset(),
        "volume_offset_bytes": heartbeat.offset,
    })
}
