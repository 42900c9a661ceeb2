//! What partition type numbers and GUIDs mean.
//!
//! Source: UEFI specification; Discoverable Partitions Specification; partition types as the
//! systems that own them document them.

use adit_core::guid;

/// Boot record types that hold a chain of further boot records.
pub(crate) fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

/// `"VMFS (0xfb)"`.
pub(crate) fn mbr_kind(kind: u8) -> String {
    let name = MBR.iter().find(|(number, _)| *number == kind).map_or("unknown", |(_, name)| name);
    format!("{name} ({kind:#04x})")
}

/// `"VMFS (AA31E02A-400F-11DB-9590-000C2911D1B8)"`.
pub(crate) fn gpt_kind(type_guid: &[u8; 16]) -> String {
    let text = guid(type_guid);
    let name = GPT.iter().find(|(id, _)| *id == text).map_or("unknown", |(_, name)| name);
    format!("{name} ({text})")
}

/// `"4.2BSD (7)"`.
pub(crate) fn bsd_kind(kind: u8) -> String {
    let name = BSD.iter().find(|(number, _)| *number == kind).map_or("unknown", |(_, name)| name);
    format!("{name} ({kind})")
}

/// `"root (2)"`.
pub(crate) fn sun_kind(tag: u16) -> String {
    let name = SUN.iter().find(|(number, _)| *number == tag).map_or("unknown", |(_, name)| name);
    format!("{name} ({tag})")
}

const MBR: &[(u8, &str)] = &[
    (0x00, "empty"),
    (0x01, "FAT12"),
    (0x04, "FAT16 below 32 MiB"),
    (0x05, "extended"),
    (0x06, "FAT16"),
    (0x07, "NTFS/exFAT"),
    (0x0b, "FAT32"),
    (0x0c, "FAT32 LBA"),
    (0x0e, "FAT16 LBA"),
    (0x0f, "extended LBA"),
    (0x11, "hidden FAT12"),
    (0x12, "diagnostics"),
    (0x14, "hidden FAT16 below 32 MiB"),
    (0x16, "hidden FAT16"),
    (0x17, "hidden NTFS"),
    (0x1b, "hidden FAT32"),
    (0x1c, "hidden FAT32 LBA"),
    (0x1e, "hidden FAT16 LBA"),
    (0x27, "Windows recovery"),
    (0x39, "Plan 9"),
    (0x41, "PReP boot"),
    (0x42, "Windows dynamic disk"),
    (0x63, "GNU HURD"),
    (0x82, "swap"),
    (0x83, "Linux filesystem"),
    (0x84, "hibernation"),
    (0x85, "Linux extended"),
    (0x8e, "Linux LVM"),
    (0xa0, "hibernation"),
    (0xa5, "FreeBSD"),
    (0xa6, "OpenBSD"),
    (0xa8, "Darwin UFS"),
    (0xa9, "NetBSD"),
    (0xab, "Darwin boot"),
    (0xaf, "HFS+"),
    (0xbe, "Solaris boot"),
    (0xbf, "Solaris"),
    (0xda, "no file system"),
    (0xde, "Dell utility"),
    (0xea, "Linux boot"),
    (0xeb, "BeOS"),
    (0xee, "GPT protective"),
    (0xef, "EFI system"),
    (0xfb, "VMFS"),
    (0xfc, "VMKCORE"),
    (0xfd, "Linux RAID"),
];

const GPT: &[(&str, &str)] = &[
    ("AA31E02A-400F-11DB-9590-000C2911D1B8", "VMFS"),
    ("4EB2EA39-7855-4790-A79E-FAE495E21F8D", "VMFS-L"),
    ("9D275380-40AD-11DB-BF97-000C2911D1B8", "VMKCORE"),
    ("9198EFFC-31C0-11DB-8F78-000C2911D1B8", "VMware reserved"),
    ("381CFCCC-7288-11E0-92EE-000C2911D0B2", "vSAN"),
    ("77719A0C-A4A0-11E3-A47E-000C29745A24", "VMware VirSTO"),
    ("00000000-0000-0000-0000-000000000000", "unused"),
    ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "EFI system"),
    ("21686148-6449-6E6F-744E-656564454649", "BIOS boot"),
    ("024DEE41-33E7-11D3-9D69-0008C781F39F", "MBR partition scheme"),
    ("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "Microsoft basic data"),
    ("E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "Microsoft reserved"),
    ("DE94BBA4-06D1-4D40-A16A-BFD50179D6AC", "Windows recovery"),
    ("5808C8AA-7E8F-42E0-85D2-E1E90434CFB3", "Windows dynamic disk metadata"),
    ("AF9B60A0-1431-4F62-BC68-3311714A69AD", "Windows dynamic disk data"),
    ("E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D", "Windows Storage Spaces"),
    ("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "Linux filesystem"),
    ("E6D6D379-F507-44C2-A23C-238F2A3DF928", "Linux LVM"),
    ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "swap"),
    ("A19D880F-05FC-4D3B-A006-743F0F84911E", "Linux RAID"),
    ("CA7D7CCB-63ED-4C53-861C-1742536059CC", "LUKS"),
    ("7FFEC5C9-2D00-49B7-8941-3EA10A5586B7", "dm-crypt"),
    ("44479540-F297-41B2-9AF7-D131D5F0458A", "Linux root (x86)"),
    ("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "Linux root (x86-64)"),
    ("B921B045-1DF0-41C3-AF44-4C6F280D3FAE", "Linux root (ARM64)"),
    ("BC13C2FF-59E6-4262-A352-B275FD6F7172", "Linux extended boot"),
    ("933AC7E1-2EB4-4F13-B844-0E14E2AEF915", "Linux home"),
    ("3B8F8425-20E0-4F3B-907F-1A25A76F98E8", "Linux server data"),
    ("8DA63339-0007-60C0-C436-083AC8230908", "Linux reserved"),
    ("9E1A2D38-C612-4316-AA26-8B49521E5A8B", "PReP boot"),
    ("83BD6B9D-7F41-11DC-BE0B-001560B84F0F", "FreeBSD boot"),
    ("516E7CB4-6ECF-11D6-8FF8-00022D09712B", "FreeBSD disklabel"),
    ("516E7CB5-6ECF-11D6-8FF8-00022D09712B", "FreeBSD swap"),
    ("516E7CB6-6ECF-11D6-8FF8-00022D09712B", "FreeBSD UFS"),
    ("516E7CBA-6ECF-11D6-8FF8-00022D09712B", "FreeBSD ZFS"),
    ("824CC7A0-36A8-11E3-890A-952519AD3F61", "OpenBSD"),
    ("49F48D5A-B10E-11DC-B99B-0019D1879648", "NetBSD FFS"),
    ("48465300-0000-11AA-AA11-00306543ECAC", "Apple HFS+"),
    ("7C3457EF-0000-11AA-AA11-00306543ECAC", "Apple APFS"),
    ("426F6F74-0000-11AA-AA11-00306543ECAC", "Apple boot"),
    ("53746F72-6167-11AA-AA11-00306543ECAC", "Apple Core Storage"),
    ("6A898CC3-1DD2-11B2-99A6-080020736631", "ZFS"),
    ("6A945A3B-1DD2-11B2-99A6-080020736631", "Solaris reserved"),
    ("FE3A2A5D-4F32-41A7-B725-ACCC3285A309", "ChromeOS kernel"),
    ("3CB8E202-3B7E-47DD-8A3C-7FF2A13CFCEC", "ChromeOS root"),
];

const BSD: &[(u8, &str)] = &[
    (0, "unused"),
    (1, "swap"),
    (7, "4.2BSD"),
    (8, "FAT"),
    (9, "4.4LFS"),
    (12, "ISO9660"),
    (13, "boot"),
    (14, "vinum"),
    (15, "RAID"),
    (17, "Linux filesystem"),
    (18, "NTFS"),
    (27, "ZFS"),
];

const SUN: &[(u16, &str)] = &[
    (0, "unassigned"),
    (1, "boot"),
    (2, "root"),
    (3, "swap"),
    (4, "usr"),
    (5, "whole disk"),
    (6, "stand"),
    (7, "var"),
    (8, "home"),
    (9, "alternate sectors"),
    (10, "cache"),
    (11, "reserved"),
    (0x82, "Linux swap"),
    (0x83, "Linux filesystem"),
    (0x8e, "Linux LVM"),
    (0xfd, "Linux RAID"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_number_and_name() {
        assert_eq!(mbr_kind(0xfb), "VMFS (0xfb)");
        assert_eq!(mbr_kind(0x7e), "unknown (0x7e)");
        let vmfs = *b"\x2a\xe0\x31\xaa\x0f\x40\xdb\x11\x95\x90\x00\x0c\x29\x11\xd1\xb8";
        assert_eq!(gpt_kind(&vmfs), "VMFS (AA31E02A-400F-11DB-9590-000C2911D1B8)");
    }

    #[test]
    fn no_type_is_listed_twice() {
        let mut numbers: Vec<_> = MBR.iter().map(|(number, _)| number).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), MBR.len());
        let mut guids: Vec<_> = GPT.iter().map(|(id, _)| id).collect();
        guids.sort();
        guids.dedup();
        assert_eq!(guids.len(), GPT.len());
    }
}
