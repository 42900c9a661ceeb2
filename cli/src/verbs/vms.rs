//! `adit vms`: the virtual machines in a datastore.

use super::shown;
use crate::exit;
use crate::output::{self, Out};
use crate::session::{Session, code_of};
use crate::units::{human_bytes, moment};
use adit_core::{Result, Severity, Timestamp};
use adit_inventory::{
    Inventory, Location, LockHint, Machine, MachineDisk, PowerState, SnapshotInfo, machines,
};
use serde_json::{Value, json};
use std::ffi::OsStr;

/// Lists the machines of one datastore.
pub fn run(session: &Session, path: &OsStr) -> u8 {
    match list(session, path) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("list the machines of {}", shown(path)), &error),
    }
}

fn list(session: &Session, path: &OsStr) -> Result<u8> {
    let (opened, files) = session.open_files(path)?;
    let lock_state = |node| {
        let lock = files.vmfs.as_ref()?.lock(node).ok()?;
        let owner = lock.holder().map(|holder| format!("{} {}", holder.host_uuid, holder.ip));
        let held = lock.state == adit_vmfs::lock::Hold::Held;
        Some(LockHint { held, owner: owner.unwrap_or_default().trim_end().to_owned() })
    };
    let limits = &session.opener.options().limits;
    let inventory = machines(&*files.fs, limits, &session.interrupt, &lock_state)?;
    let mut out = Out::new();
    if session.common.json {
        let mut document = match serde_json::to_value(&inventory) {
            Ok(Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        };
        document.insert("schema".into(), "adit.vms/1".into());
        document.insert("path".into(), opened.locator.to_string().into());
        document.insert("notes".into(), output::notes_json(&opened.notes));
        out.json(&json!(document));
    } else {
        text(&mut out, &inventory);
        for problem in &inventory.problems {
            output::fail(false, "read all of the datastore", problem);
        }
    }
    out.finish();
    let missing =
        |machine: &Machine| machine.disks.iter().any(|disk| disk.present && !disk.complete);
    let partial = !inventory.problems.is_empty() || inventory.machines.iter().any(missing);
    Ok(exit::worse(code_of(&opened.notes), if partial { exit::PARTIAL } else { exit::GOOD }))
}

fn text(out: &mut Out, inventory: &Inventory) {
    for machine in &inventory.machines {
        let power = match machine.power.state {
            PowerState::On => "on",
            PowerState::Off => "off",
            PowerState::Suspended => "suspended",
            PowerState::Unknown => "power unknown",
        };
        out.line(format!("{}  [{power}]", printable(&machine.display_name)));
        let mut line = |name: &str, value: String| out.line(format!("  {name:<10} {value}"));
        line("settings", machine.path.to_string());
        let memory = machine.memory_mib.map_or("?".into(), |mib| human_bytes(mib << 20));
        line(
            "guest",
            format!("{}, {} CPU, {memory} memory", printable(&machine.guest_os), machine.vcpus),
        );
        line(
            "space",
            format!(
                "{} provisioned, {} taken",
                human_bytes(machine.provisioned_bytes),
                human_bytes(machine.allocated_bytes)
            ),
        );
        if let Some(evidence) = machine.power.evidence.first() {
            line("power", evidence.clone());
        }
        machine.disks.iter().for_each(|disk| line(&disk.controller, disk_line(disk)));
        if let Some(tree) = &machine.snapshots {
            for root in &tree.roots {
                snapshot_lines(out, root, tree.current, 2);
            }
        }
        for note in machine.notes.iter().filter(|note| note.severity > Severity::Info) {
            out.line(format!("  {note}"));
        }
        out.line("");
    }
    for disk in &inventory.orphan_disks {
        out.line(format!(
            "no machine names  {}  ({}, {} taken)",
            disk.path,
            human_bytes(disk.size_bytes),
            human_bytes(disk.allocated_bytes)
        ));
    }
    for file in &inventory.orphan_extents {
        out.line(format!(
            "no descriptor for {}  ({}, {} taken)",
            file.path,
            human_bytes(file.size_bytes),
            human_bytes(file.allocated_bytes)
        ));
    }
    let count = inventory.machines.len();
    out.line(format!("{count} machine{}", if count == 1 { "" } else { "s" }));
}

fn disk_line(disk: &MachineDisk) -> String {
    let place = match &disk.location {
        Location::Here { path } => path.to_string(),
        Location::Beside { path } => format!("{path} (found beside the settings)"),
        Location::Elsewhere { datastore } => {
            format!("{} on {}", printable(&disk.file_name), printable(datastore))
        }
        Location::Missing { path } => format!("{path} is MISSING"),
    };
    let size = disk.size_bytes.map_or("?".into(), human_bytes);
    let mut text = format!("{place}  {size}, {} taken", human_bytes(disk.allocated_bytes));
    if disk.chain.len() > 1 {
        text.push_str(&format!(", chain of {}", disk.chain.len()));
    }
    if !disk.present {
        text.push_str(", detached");
    }
    if !disk.complete
        && !matches!(disk.location, Location::Missing { .. } | Location::Elsewhere { .. })
    {
        text.push_str(", INCOMPLETE");
    }
    text
}

fn snapshot_lines(out: &mut Out, snapshot: &SnapshotInfo, current: Option<u64>, depth: usize) {
    let here = if current == Some(snapshot.uid) { "  <- you are here" } else { "" };
    let when = moment(snapshot.created.map(Timestamp::from_seconds));
    let indent = " ".repeat(depth);
    out.line(format!("{indent}snapshot   {}  {when}{here}", printable(&snapshot.name)));
    for child in &snapshot.children {
        snapshot_lines(out, child, current, depth + 2);
    }
}

/// Text out of an image, harmless on a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}
