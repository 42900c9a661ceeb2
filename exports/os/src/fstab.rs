//! `/etc/fstab`, and which volume each line means.

use crate::model::{Found, Mount, Volume};

/// The lines of a mount table, and of the table of encrypted volumes that it may lean on.
pub(crate) fn parse(text: &[u8], crypttab: &[u8], volumes: &[Volume]) -> Vec<Mount> {
    let crypts = crypts(crypttab);
    let text = String::from_utf8_lossy(text);
    lines(&text).filter_map(|line| mount(line, &crypts, volumes)).collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Names under `/dev/mapper`, and the identity of the encrypted volume each one stands for.
///
/// Source: crypttab(5).
fn crypts(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let crypt = |line: &str| {
        let mut fields = line.split_whitespace();
        let (name, source) = (fields.next()?, fields.next()?);
        let uuid = source.strip_prefix("UUID=").map(|id| id.trim_matches('"'));
        let uuid = uuid.or_else(|| source.strip_prefix("/dev/disk/by-uuid/"))?;
        Some((unescape(name), uuid.to_owned()))
    };
    lines(&text).filter_map(crypt).collect()
}

fn mount(line: &str, crypts: &[(String, String)], volumes: &[Volume]) -> Option<Mount> {
    let mut fields = line.split_whitespace();
    let (source, at) = (fields.next()?, fields.next()?);
    let format = fields.next().unwrap_or_default();
    let options = fields.next().unwrap_or_default();
    let is_bind = options.split(',').any(|option| matches!(option, "bind" | "rbind"));
    let found = match format {
        "swap" => Found::NotOnDisk,
        _ if is_bind => Found::NotOnDisk,
        _ => find(&unescape(source), format, crypts, volumes),
    };
    let at = unescape(at).into_bytes();
    let subvolume = options.split(',').find_map(|option| option.strip_prefix("subvol="));
    let path = unescape(subvolume.unwrap_or_default()).trim_matches('/').as_bytes().to_vec();
    Some(Mount { at, source: unescape(source), format: format.to_owned(), found, path })
}

/// Spaces and the like stand in a table as `\040`.
fn unescape(field: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), field.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (byte, code) {
            (b'\\', Some(code)) => {
                out.push(code);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn find(source: &str, format: &str, crypts: &[(String, String)], volumes: &[Volume]) -> Found {
    const NOT_ON_DISK: &[&str] = &[
        "proc",
        "sysfs",
        "tmpfs",
        "devpts",
        "devtmpfs",
        "cgroup",
        "cgroup2",
        "debugfs",
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "9p",
        "virtiofs",
        "securityfs",
        "fdescfs",
        "linprocfs",
        "overlay",
        "none",
        "procfs",
        "mqueue",
        "hugetlbfs",
        "binfmt_misc",
        "efivarfs",
        "fuse.sshfs",
    ];
    if NOT_ON_DISK.contains(&format) {
        return Found::NotOnDisk;
    }
    let quoted = |value: &str| value.trim_matches('"').to_owned();
    let by = |matches: &dyn Fn(&Volume) -> bool| sole(volumes, matches, Found::Volume);
    if let Some((key, value)) = source.split_once('=') {
        let value = quoted(value);
        return match key {
            "UUID" => by(&|volume| same_id(&volume.fs.identity().uuid, &value)),
            "LABEL" => by(&|volume| volume.fs.identity().label == value),
            "PARTUUID" => by(&|volume| same_id(&volume.part_uuid, &value)),
            "PARTLABEL" => by(&|volume| volume.part_label == value),
            _ => Found::Missing,
        };
    }
    let by_link = |folder: &str| source.strip_prefix(folder).map(str::to_owned);
    if let Some(value) = by_link("/dev/disk/by-uuid/") {
        return by(&|volume| same_id(&volume.fs.identity().uuid, &value));
    }
    if let Some(value) = by_link("/dev/disk/by-label/") {
        return by(&|volume| volume.fs.identity().label == value);
    }
    if let Some(value) = by_link("/dev/disk/by-partuuid/") {
        return by(&|volume| same_id(&volume.part_uuid, &value));
    }
    if let Some(value) = by_link("/dev/disk/by-partlabel/") {
        return by(&|volume| volume.part_label == value);
    }
    if let Some(value) = by_link("/dev/mapper/") {
        // A hyphen in either name is doubled, a single one stands between them.
        let doubled = |name: &str| name.replace('-', "--");
        let found = by(&|volume| {
            !volume.group.is_empty()
                && format!("{}-{}", doubled(&volume.group), doubled(&volume.name)) == value
        });
        if found != Found::Missing {
            return found;
        }
        // Installers name encrypted volumes after their identity.
        let listed = crypts.iter().find(|(name, _)| *name == value).map(|(_, uuid)| uuid.as_str());
        let uuid = listed.or_else(|| value.strip_prefix("luks-")).unwrap_or_default();
        return by(&|volume| same_id(&volume.crypt_uuid, uuid));
    }
    let Some(device) = source.strip_prefix("/dev/") else { return Found::Missing };
    if let Some((group, name)) = device.split_once('/') {
        let found = by(&|volume| volume.group == group && volume.name == name);
        if found != Found::Missing {
            return found;
        }
    }
    if let Some(number) = device.strip_prefix("md").filter(|text| text.parse::<u32>().is_ok()) {
        // Arrays are numbered as they start; the name in their superblock is often that number.
        let is_array = |volume: &Volume| volume.group == "md";
        let named = sole(volumes, &|v| is_array(v) && v.name == number, Found::Likely);
        return match named {
            Found::Missing => sole(volumes, &is_array, Found::Likely),
            found => found,
        };
    }
    match partition(device) {
        Some((disk, number)) => {
            let name = number.map_or(String::new(), |number| format!("p{number}"));
            let matches = |volume: &Volume| {
                volume.group.is_empty() && volume.disk == disk && volume.name == name
            };
            sole(volumes, &matches, Found::Likely)
        }
        None => Found::Missing,
    }
}

/// The volume that matches, if exactly one does.
fn sole(volumes: &[Volume], matches: &dyn Fn(&Volume) -> bool, found: fn(usize) -> Found) -> Found {
    let mut all = volumes.iter().enumerate().filter(|(_, volume)| matches(volume));
    match (all.next(), all.next()) {
        (Some((index, _)), None) => found(index),
        _ => Found::Missing,
    }
}

fn same_id(a: &str, b: &str) -> bool {
    let plain = |id: &str| id.replace('-', "").to_ascii_lowercase();
    !a.is_empty() && plain(a) == plain(b)
}

/// `sda1`, `vdb`, `xvda2`, `nvme0n1p3`, `mmcblk0p1`, `da0p2`: which disk, which partition.
fn partition(device: &str) -> Option<(usize, Option<u32>)> {
    let number = |text: &str| match text {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    for prefix in ["sd", "vd", "xvd", "hd"] {
        if let Some(rest) = device.strip_prefix(prefix) {
            let letter = rest.bytes().next().filter(u8::is_ascii_lowercase)?;
            return Some((usize::from(letter - b'a'), number(rest.get(1..)?)?));
        }
    }
    let (rest, mark) = match device.strip_prefix("nvme") {
        Some(rest) => (rest.replacen("n1", "", 1), 'p'),
        None => (
            ["mmcblk", "vtbd", "ada", "da", "nda", "nvd"]
                .iter()
                .find_map(|prefix| device.strip_prefix(prefix))?
                .to_owned(),
            'p',
        ),
    };
    match rest.split_once(mark) {
        Some((disk, part)) => Some((disk.parse().ok()?, number(part)?)),
        None => Some((rest.parse().ok()?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_disks_and_partitions() {
        for (name, disk, part) in [
            ("sda1", 0, Some(1)),
            ("vdb", 1, None),
            ("xvdc15", 2, Some(15)),
            ("nvme0n1p3", 0, Some(3)),
            ("nvme1n1", 1, None),
            ("mmcblk0p2", 0, Some(2)),
            ("da1p4", 1, Some(4)),
        ] {
            assert_eq!(partition(name), Some((disk, part)), "{name}");
        }
        for bad in ["", "sd", "loop0", "md0", "sda1x", "tty", "nvmep"] {
            assert_eq!(partition(bad), None, "{bad}");
        }
    }

    #[test]
    fn spaces_are_octal_and_lines_without_a_mount_point_are_none() {
        assert_eq!(unescape("/with\\040space\\011x"), "/with space\tx");
        assert_eq!(unescape("\\04"), "\\04");
        let mounts =
            parse(b"# comment\n\nproc /proc proc\nlonely\n/dev/sdz9 /x\\040y ext4", b"", &[]);
        assert_eq!(mounts.len(), 2);
        assert_eq!((&mounts[0].found, &mounts[1].found), (&Found::NotOnDisk, &Found::Missing));
        assert_eq!(mounts[1].at, b"/x y");
    }
}
