//! The drives of a machine.

use crate::dictionary::Dictionary;
use crate::notes::Notes;
use adit_core::{Finding, Place};
use std::collections::BTreeMap;

/// More of either no virtual hardware has; what lies above is not a device but an attack.
const CONTROLLERS_MAX: u32 = 8;
const UNITS_MAX: u32 = 128;

/// What a drive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A hard disk: its file is a VMDK descriptor.
    Disk,
    /// A CD or DVD drive, of the host or an image.
    CdRom,
    /// A floppy drive.
    Floppy,
    /// A SCSI device of the host, passed through.
    Passthrough,
    /// Another type, in the file's own word.
    Other(String),
}

/// One drive of a `.vmx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmxDisk {
    /// Where it is attached: `scsi0:0`, `floppy0`.
    pub controller: String,
    /// Model of the controller (`pvscsi`, `lsilogic`), if the file tells.
    pub controller_model: Option<String>,
    /// The file it names, in the file's own bytes: relative to the `.vmx`, or absolute.
    pub file_name: Vec<u8>,
    /// `persistent`, `independent-nonpersistent` …; empty if not given.
    pub mode: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Whether it is attached. A drive that does not say, but names a file, counts as attached.
    pub present: bool,
    /// Whether changed blocks are tracked for it.
    pub ctk: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bus {
    Ide,
    Sata,
    Scsi,
    Nvme,
    Floppy,
}

const BUSES: [(&str, Bus); 5] = [
    ("ide", Bus::Ide),
    ("sata", Bus::Sata),
    ("scsi", Bus::Scsi),
    ("nvme", Bus::Nvme),
    ("floppy", Bus::Floppy),
];

/// Finds every drive, in the order of buses, controllers and units.
pub(crate) fn drives(dictionary: &Dictionary, notes: &mut Notes) -> Vec<VmxDisk> {
    let mut slots = BTreeMap::new();
    for (key, entry) in dictionary.effective() {
        let Some((bus, controller, unit, name)) = slot(&key) else { continue };
        if controller >= CONTROLLERS_MAX || unit >= UNITS_MAX {
            let text = format!("{name} is beyond any virtual hardware and was left out");
            notes.push(
                Finding::warning("vmx-device", text).at(Place::new("line").index(entry.line)),
            );
            continue;
        }
        slots.entry((bus, controller, unit)).or_insert_with(|| name.to_owned());
    }
    slots
        .into_iter()
        .filter_map(|((bus, _, _), name)| drive(dictionary, bus, name, notes))
        .collect()
}

/// `scsi0:1.filename` gives SCSI, 0, 1 and `scsi0:1`.
fn slot(key: &str) -> Option<(Bus, u32, u32, &str)> {
    let (name, _field) = key.split_once('.')?;
    let (word, bus) = BUSES.into_iter().find(|(word, _)| name.starts_with(word))?;
    let numbers = name.strip_prefix(word)?;
    if bus == Bus::Floppy {
        return Some((bus, 0, number(numbers)?, name));
    }
    let (controller, unit) = numbers.split_once(':')?;
    Some((bus, number(controller)?, number(unit)?, name))
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn drive(
    dictionary: &Dictionary,
    bus: Bus,
    controller: String,
    notes: &mut Notes,
) -> Option<VmxDisk> {
    let of = |field: &str| format!("{controller}.{field}");
    let file_name = dictionary.bytes(&of("fileName")).unwrap_or_default().to_vec();
    let device_type = dictionary.text(&of("deviceType")).unwrap_or_default().into_owned();
    let stated = dictionary.flag(&of("present"));
    // Keys that only tune a slot (`scsi0:1.redo = ""`) make no drive.
    if stated.is_none() && file_name.is_empty() {
        return None;
    }
    let kind = kind(bus, &device_type, &file_name);
    let adapter = controller.split(':').next().unwrap_or_default();
    let adapter_off =
        bus != Bus::Floppy && dictionary.flag(&format!("{adapter}.present")) == Some(false);
    if stated.is_none() && kind == DeviceKind::Disk {
        let text = format!("{controller} does not say whether it is present; taken as present");
        notes.push(Finding::info("vmx-present", text));
    }
    Some(VmxDisk {
        controller_model: dictionary
            .text(&format!("{adapter}.virtualDev"))
            .map(|model| model.into_owned()),
        mode: dictionary.text(&of("mode")).unwrap_or_default().into_owned(),
        present: stated.unwrap_or(true) && !adapter_off,
        ctk: dictionary.flag(&of("ctkEnabled")).unwrap_or(false),
        kind,
        file_name,
        controller,
    })
}

fn kind(bus: Bus, device_type: &str, file_name: &[u8]) -> DeviceKind {
    if bus == Bus::Floppy {
        return DeviceKind::Floppy;
    }
    let word = device_type.to_ascii_lowercase();
    let file = file_name.to_ascii_lowercase();
    match word.as_str() {
        // An absent type is a disk, unless the name says that no disk image can be meant.
        "" if file.ends_with(b".iso") || is_host_drive(&file) => DeviceKind::CdRom,
        "" | "disk" | "rawdisk" => DeviceKind::Disk,
        _ if word.contains("harddisk") || word.ends_with("-rdm") => DeviceKind::Disk,
        _ if word.contains("cdrom") => DeviceKind::CdRom,
        _ if word.contains("passthru") => DeviceKind::Passthrough,
        _ => DeviceKind::Other(device_type.to_owned()),
    }
}

fn is_host_drive(file: &[u8]) -> bool {
    matches!(file, b"emptybackingstring" | b"auto detect")
}
