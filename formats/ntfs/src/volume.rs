//! The volume's own account of itself: label, version, and in what state it was left.

use crate::layout::{VolumeInformationRaw, kind, record};
use crate::names::{to_text, units};
use crate::ntfs::Ntfs;
use crate::record::place;
use adit_core::{
    DiskExt, FileSystem, Finding, Fork, Identity, Name, NodeId, Place, Result, Timestamp,
};

/// What record `$Volume` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its label.
    pub label: String,
    /// NTFS version, major and minor; 3.1 since Windows XP.
    pub version: Option<(u8, u8)>,
    /// 1: dirty.
    pub flags: u16,
    /// Its GUID, if it was given one.
    pub guid: Option<[u8; 16]>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// Stale structures of one kind that are named in a note.
const LOG_NOTES_MAX: usize = 8;

const FLAGS: &[(u16, &str)] = &[
    (0x0002, "its log is to be resized"),
    (0x0004, "it is to be upgraded at the next mount"),
    (0x0008, "it was mounted by Windows NT 4"),
    (0x0010, "its change journal is being deleted"),
    (0x0020, "its object ids are to be repaired"),
];

impl Ntfs {
    pub(crate) fn read_volume_info(&self) -> VolumeInfo {
        let mut info = VolumeInfo::default();
        let read = |info: &mut VolumeInfo| -> Result<()> {
            let node = self.node(record::VOLUME)?;
            if let Some(name) = self.first(&node, kind::VOLUME_NAME)? {
                info.label = to_text(&units(name.value()?));
            }
            if let Some(raw) = self.first(&node, kind::VOLUME_INFORMATION)? {
                let raw = VolumeInformationRaw::read(raw.value()?)?;
                info.version = Some((raw.major, raw.minor));
                info.flags = raw.flags;
            }
            if let Some(id) = self.first(&node, kind::OBJECT_ID)? {
                info.guid = adit_core::bytes::array(id.value()?, 0);
            }
            info.created = self.standard(&node)?.and_then(|standard| standard.created);
            Ok(())
        };
        if let Err(error) = read(&mut info) {
            let mut note = Finding::from_error("ntfs-volume-record", &error);
            note.text = format!("the record $Volume cannot be read: {}", note.text);
            self.note(note);
        }
        info
    }

    pub(crate) fn identity_of(&self) -> Identity {
        let info = self.info();
        let format = match info.version {
            Some((major, minor)) => format!("NTFS {major}.{minor}"),
            None => "NTFS".into(),
        };
        // What `blkid` and Windows call the serial number.
        let uuid = format!("{:016X}", self.boot().raw.serial_number);
        Identity { format, label: info.label.clone(), uuid, created: info.created }
    }

    pub(crate) fn read_state_notes(&self) -> Vec<Finding> {
        let mut notes = Vec::new();
        let info = self.info();
        let at = || place(record::VOLUME).field("$VOLUME_INFORMATION");
        if info.flags & 1 != 0 {
            let text = "the volume is marked dirty: it was in use, or Windows found damage";
            notes.push(
                Finding::warning("ntfs-dirty", text)
                    .at(at())
                    .advise("run chkdsk on a copy where the contents matter"),
            );
        }
        for (_, text) in FLAGS.iter().filter(|(flag, _)| info.flags & flag != 0) {
            notes.push(Finding::info("ntfs-volume-flag", *text).at(at()));
        }
        notes.extend(self.log_findings(LOG_NOTES_MAX));
        notes.extend(self.hibernation_note());
        notes
    }

    /// Whether Windows sleeps on this volume.
    fn hibernation_note(&self) -> Option<Finding> {
        let name = Name::new(&b"hiberfil.sys"[..]).ok()?;
        let node = self.lookup(NodeId(self.root_reference()), &name).ok()?;
        let head = self.open(node, &Fork::Data).ok()?.read_prefix(0, 4).ok()?;
        let text = match head.to_ascii_lowercase().as_slice() {
            b"hibr" => "Windows is hibernated or was shut down by fast startup",
            b"rstr" => "Windows was waking from hibernation and did not finish",
            _ => return None,
        };
        let note = Finding::warning("ntfs-hibernated", text).at(Place::new("hiberfil.sys"));
        Some(note.advise(
            "the newest changes may stand in Windows's memory image alone; shut Windows down \
             fully (`shutdown /s /t 0`) and copy the volume again to have them",
        ))
    }
}
