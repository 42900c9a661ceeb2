//! Windows, by its registry.

use crate::files::Files;
use crate::hive::{Hive, Value};
use crate::model::{Family, Found, Mount, System, Volume};
use adit_core::bytes::{array, u32_le, u64_le};
use adit_core::{Finding, Fork, Kind, Result, guid};

/// Where the registry is.
const FOLDERS: [&str; 2] = ["Windows/System32/config", "WINNT/System32/config"];
const CURRENT: &str = "Microsoft\\Windows NT\\CurrentVersion";

/// The Windows whose system drive this is, if it is one.
pub(crate) fn look(files: &Files<'_>, root: usize, volumes: &[Volume]) -> Option<System> {
    let folder =
        FOLDERS.iter().find(|folder| files.find_any_case(&format!("{folder}/SOFTWARE")).is_ok())?;
    let mut notes = Vec::new();
    let software = hive(files, folder, "SOFTWARE", &mut notes);
    let system = hive(files, folder, "SYSTEM", &mut notes);
    let mut found = System {
        family: Family::Windows,
        name: "Windows".into(),
        id: "windows".into(),
        version: String::new(),
        hostname: String::new(),
        architecture: String::new(),
        machine_id: String::new(),
        kernels: Vec::new(),
        root,
        root_path: Vec::new(),
        mounts: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(hive) = software
        && let Err(error) = read_software(&hive, &mut found)
    {
        notes.push(Finding::from_error("os-registry", &error));
    }
    if let Some(hive) = system
        && let Err(error) = read_system(&hive, volumes, &mut found)
    {
        notes.push(Finding::from_error("os-registry", &error));
    }
    if found.mounts.iter().all(|mount| mount.found.volume() != Some(root)) {
        let (source, format) = (String::new(), String::new());
        // Windows calls its system drive C: unless its registry says otherwise.
        let taken = found.mounts.iter().any(|mount| mount.at == b"C:");
        let at = if taken { b"system".to_vec() } else { b"C:".to_vec() };
        let (found_at, path) = (Found::Likely(root), Vec::new());
        found.mounts.push(Mount { at, source, format, found: found_at, path });
    }
    found.mounts.sort_by(|a, b| a.at.cmp(&b.at));
    found.notes = notes;
    Some(found)
}

fn hive(files: &Files<'_>, folder: &str, name: &str, notes: &mut Vec<Finding>) -> Option<Hive> {
    let opened = files
        .find_any_case(&format!("{folder}/{name}"))
        .and_then(|node| files.fs.open(node, &Fork::Data))
        .and_then(Hive::open);
    match opened {
        Ok(hive) => {
            if !hive.is_settled() {
                let text = format!(
                    "the registry file {name} was being written; its log, which is not applied, \
                     may know newer values"
                );
                notes.push(Finding::info("os-registry-log", text));
            }
            Some(hive)
        }
        Err(error) => {
            let code = if error.kind() == Kind::NotFound { "os-missing" } else { "os-registry" };
            let mut note = Finding::from_error(code, &error);
            note.text = format!("the registry file {name} cannot be read: {}", note.text);
            notes.push(note);
            None
        }
    }
}

fn read_software(hive: &Hive, system: &mut System) -> Result<()> {
    let Some(key) = hive.key(CURRENT)? else { return Ok(()) };
    let text = |name: &str| -> Result<String> {
        Ok(match key.value(name)? {
            Some(Value::Text(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        })
    };
    let build = match text("CurrentBuild")? {
        build if build.is_empty() => text("CurrentBuildNumber")?,
        build => build,
    };
    let number =
        |name| -> Result<Option<u64>> { Ok(key.value(name)?.and_then(|value| value.number())) };
    let base = match (number("CurrentMajorVersionNumber")?, number("CurrentMinorVersionNumber")?) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        _ => text("CurrentVersion")?,
    };
    let parts = [base, build.clone(), text("UBR")?];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    system.version = parts.join(".");
    let mut name = text("ProductName")?;
    // Windows 11 kept the old name there.
    if build.parse::<u32>().is_ok_and(|build| build >= 22_000)
        && let Some(edition) = name.strip_prefix("Windows 10")
    {
        name = format!("Windows 11{edition}");
    }
    for more in ["DisplayVersion", "ReleaseId", "CSDVersion"] {
        let text = text(more)?;
        if !name.is_empty() && !text.is_empty() {
            name = format!("{name} {text}");
            break;
        }
    }
    if !name.is_empty() {
        system.name = name;
    }
    let machine = hive.value("Microsoft\\Cryptography", "MachineGuid")?;
    system.machine_id = machine.and_then(|id| id.text().map(str::to_owned)).unwrap_or_default();
    Ok(())
}

fn read_system(hive: &Hive, volumes: &[Volume], system: &mut System) -> Result<()> {
    let current = hive.value("Select", "Current")?.and_then(|value| value.number()).unwrap_or(1);
    let set = format!("ControlSet{current:03}\\Control");
    let text = |path: &str, name: &str| -> Result<String> {
        let value = hive.value(&format!("{set}\\{path}"), name)?;
        Ok(value.and_then(|value| value.text().map(str::to_owned)).unwrap_or_default())
    };
    system.hostname = text("ComputerName\\ComputerName", "ComputerName")?;
    let machine = text("Session Manager\\Environment", "PROCESSOR_ARCHITECTURE")?;
    system.architecture = match machine.as_str() {
        "AMD64" => "x86_64".to_owned(),
        "x86" => "i386".to_owned(),
        "ARM64" => "aarch64".to_owned(),
        other => other.to_lowercase(),
    };
    let Some(key) = hive.key("MountedDevices")? else { return Ok(()) };
    for (name, value) in key.values()? {
        let (Some(letter), Value::Bytes(data)) = (name.strip_prefix("\\DosDevices\\"), value)
        else {
            continue;
        };
        let (source, found) = device(&data, volumes);
        let at = letter.as_bytes().to_vec();
        let (format, path) = (String::new(), Vec::new());
        system.mounts.push(Mount { at, source, format, found, path });
    }
    Ok(())
}

/// What a drive letter stands for: a partition by the signature of its disk and its offset, or by
/// its GUID; anything else is text.
fn device(data: &[u8], volumes: &[Volume]) -> (String, Found) {
    let find = |matches: &dyn Fn(&Volume) -> bool| {
        let mut all = volumes.iter().enumerate().filter(|(_, volume)| matches(volume));
        match (all.next(), all.next()) {
            (Some((index, _)), None) => Found::Volume(index),
            _ => Found::Missing,
        }
    };
    if let Some(id) = data.strip_prefix(b"DMIO:ID:").and_then(|id| array::<16>(id, 0)) {
        let id = guid(&id);
        let found = find(&|volume| volume.part_uuid.eq_ignore_ascii_case(&id));
        return (format!("partition {id}"), found);
    }
    if data.len() == 12 {
        let (signature, offset) = (u32_le(data, 0).unwrap_or(0), u64_le(data, 4).unwrap_or(0));
        let id = format!("{signature:08x}");
        let found = find(&|volume| {
            volume.offset == Some(offset) && volume.disk_uuid.eq_ignore_ascii_case(&id)
        });
        return (format!("disk {id}, byte {offset:#x}"), found);
    }
    let units = data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String =
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    (text.chars().filter(|c| !c.is_control()).collect(), Found::NotOnDisk)
}
