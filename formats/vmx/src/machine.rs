//! A `.vmx` file.

use crate::devices::{VmxDisk, drives};
use crate::dictionary::Dictionary;
use crate::notes::Notes;
use adit_core::{Error, Finding, Limits, Place, Problem, Result};

/// The settings of a machine. Texts are empty where the file is silent.
///
/// Source: `.vmx` files of ESXi and Workstation.
#[derive(Clone, Debug)]
pub struct Vmx {
    /// The name people know it by.
    pub display_name: String,
    /// Guest operating system, in VMware's word: `windows8srv-64`.
    pub guest_os: String,
    /// Identity the guest sees: `42 00 93 72 17 da be 73-77 9d 00 7c cf 1b d2 28`.
    pub uuid_bios: String,
    /// Identity that changes when the machine is moved.
    pub uuid_location: String,
    /// Version of the virtual hardware.
    pub hw_version: Option<u64>,
    /// Memory of the guest. Unit: MiB.
    pub memory_mib: Option<u64>,
    /// Number of virtual processors; 1 where the file is silent.
    pub vcpus: u64,
    /// `bios` or `efi`; `bios` where the file is silent.
    pub firmware: String,
    /// Every drive: disks, CD and floppy drives, in the order of their slots.
    pub disks: Vec<VmxDisk>,
    /// File that holds the firmware's variables.
    pub nvram: Option<Vec<u8>>,
    /// Whether changed blocks are tracked.
    pub ctk: bool,
    /// Notes that people wrote about the machine.
    pub annotations: String,
    /// Where snapshots, swap and suspend files go, if not beside the `.vmx`.
    pub working_dir: Option<Vec<u8>>,
    /// Swap file of the last or present run.
    pub swap_file: Option<Vec<u8>>,
    /// Suspend file: the machine was suspended, and goes on from there.
    pub suspend_file: Option<Vec<u8>>,
    /// Whether settings or disks are encrypted.
    pub encrypted: bool,
    /// What is odd about the file.
    pub notes: Vec<Finding>,
    /// Every entry, in order.
    pub raw: Dictionary,
}

impl Vmx {
    /// Reads a `.vmx`.
    ///
    /// Errors: those of [`Dictionary::parse`]; `Corrupt` for a dictionary that describes no
    /// machine.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Vmx> {
        let layer = |error: Error| error.in_layer(".vmx");
        let raw = Dictionary::parse(bytes, limits).map_err(layer)?;
        if !["config.version", "virtualHW.version", "displayName", "guestOS", "memSize"]
            .iter()
            .any(|key| raw.entry(key).is_some())
        {
            let detail = "no line of it describes a virtual machine";
            return Err(layer(Error::corrupt(Problem::BadMagic, detail)));
        }
        let mut notes = Notes::default();
        raw.notes.iter().cloned().for_each(|note| notes.push(note));
        let encrypted = encrypted(&raw, &mut notes);
        Ok(Vmx {
            display_name: text(&raw, "displayName"),
            guest_os: text(&raw, "guestOS"),
            uuid_bios: text(&raw, "uuid.bios"),
            uuid_location: text(&raw, "uuid.location"),
            hw_version: number(&raw, "virtualHW.version", &mut notes),
            memory_mib: number(&raw, "memSize", &mut notes),
            vcpus: number(&raw, "numvcpus", &mut notes).unwrap_or(1),
            firmware: raw.text("firmware").map_or("bios".to_owned(), |text| text.into_owned()),
            disks: drives(&raw, &mut notes),
            nvram: file(&raw, "nvram"),
            ctk: raw.flag("ctkEnabled").unwrap_or(false),
            annotations: text(&raw, "annotation"),
            working_dir: file(&raw, "workingDir"),
            swap_file: file(&raw, "sched.swap.derivedName"),
            suspend_file: file(&raw, "checkpoint.vmState"),
            encrypted,
            notes: notes.into_list(),
            raw,
        })
    }
}

fn text(raw: &Dictionary, key: &str) -> String {
    raw.text(key).unwrap_or_default().into_owned()
}

fn file(raw: &Dictionary, key: &str) -> Option<Vec<u8>> {
    raw.bytes(key).map(<[u8]>::to_vec)
}

fn number(raw: &Dictionary, key: &str, notes: &mut Notes) -> Option<u64> {
    let entry = raw.entry(key).filter(|entry| !entry.value.is_empty())?;
    let number = raw.number(key);
    if number.is_none() {
        let text = format!("{key} is {:?}, which is no number", entry.text());
        notes.push(Finding::warning("vmx-number", text).at(Place::new("line").index(entry.line)));
    }
    number
}

fn encrypted(raw: &Dictionary, notes: &mut Notes) -> bool {
    let keys = ["encryption.keySafe", "encryption.data", "encryption.bundle"];
    let found = keys.iter().any(|key| raw.entry(key).is_some());
    if found {
        let text = if raw.entry("encryption.data").is_some() {
            "the settings are encrypted: drives may be missing from this list"
        } else {
            "the machine is encrypted: its disks hold ciphertext"
        };
        notes.push(
            Finding::warning("vmx-encrypted", text).advise("read it with the product and its key"),
        );
    }
    found
}
