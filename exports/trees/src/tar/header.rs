//! Headers of a POSIX archive: the ustar block and the pax records before it.

use adit_core::Timestamp;

/// Size of a block. Unit: bytes.
pub(crate) const BLOCK_BYTES: usize = 512;

/// What one member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    File = b'0' as isize,
    HardLink = b'1' as isize,
    Symlink = b'2' as isize,
    CharDevice = b'3' as isize,
    BlockDevice = b'4' as isize,
    Directory = b'5' as isize,
    Fifo = b'6' as isize,
}

/// One member, before its data.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub name: Vec<u8>,
    pub kind: Type,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Length of what follows the header. Unit: bytes.
    pub size_bytes: u64,
    pub modified: Option<Timestamp>,
    pub link: Vec<u8>,
    pub device: (u64, u64),
}

/// Records of a pax extended header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(Vec<u8>);

impl Records {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds `LENGTH KEY=VALUE\n`; the length counts itself.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// Says that names are bytes, where some are no UTF-8. Must come before them.
    fn put_names(&mut self, names: &[(&[u8], &[u8])]) {
        if names.iter().any(|(_, name)| std::str::from_utf8(name).is_err()) {
            self.put(b"hdrcharset", b"BINARY");
        }
        for (key, name) in names {
            self.put(key, name);
        }
    }
}

/// The blocks of a member up to its data: an extended header where ustar is too small.
///
/// Source: POSIX.1-2017, `pax`, "pax Interchange Format" and "ustar Interchange Format".
pub(crate) fn blocks(member: &Member, more: Records) -> Vec<u8> {
    let mut records = Records::default();
    let mut names: Vec<(&[u8], &[u8])> = Vec::new();
    let place = place(&member.name);
    if place.is_none() {
        names.push((b"path", &member.name));
    }
    let is_plain = member.link.is_ascii() || std::str::from_utf8(&member.link).is_err();
    if member.link.len() > 100 || !is_plain {
        names.push((b"linkpath", &member.link));
    }
    records.put_names(&names);
    for (key, value) in [("uid", member.uid), ("gid", member.gid)] {
        if u64::from(value) > octal_max(8) {
            records.put(key.as_bytes(), value.to_string().as_bytes());
        }
    }
    if member.size_bytes > octal_max(12) {
        records.put(b"size", member.size_bytes.to_string().as_bytes());
    }
    if let Some(time) = member.modified
        && (time.nanos != 0 || u64::try_from(time.seconds).map_or(true, |s| s > octal_max(12)))
    {
        records.put(b"mtime", decimal(time).as_bytes());
    }
    records.0.extend_from_slice(&more.0);
    let mut blocks = Vec::new();
    if !records.is_empty() {
        let name = [b"PaxHeaders/", last(&member.name)].concat();
        let extended = Member {
            name: name.into_iter().take(100).filter(u8::is_ascii).collect(),
            size_bytes: records.0.len() as u64,
            link: Vec::new(),
            device: (0, 0),
            mode: 0o644,
            ..member.clone()
        };
        blocks.extend_from_slice(&ustar(&extended, b'x', (&extended.name, b"")));
        blocks.extend_from_slice(&records.0);
        blocks.resize(blocks.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    let cut = &member.name[..member.name.len().min(100)];
    let place = place.unwrap_or((cut, b""));
    blocks.extend_from_slice(&ustar(member, member.kind as u8, place));
    blocks
}

/// The name as ustar holds it, in a name and a prefix; nothing if it holds it not. A name that
/// is no text stands there as it is: every reader takes its bytes, while some complain of
/// the record that would announce it.
fn place(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() && std::str::from_utf8(name).is_ok() {
        return None;
    }
    if name.len() <= 100 {
        return Some((name, b""));
    }
    let slash = (0..name.len().min(156))
        .rev()
        .find(|&at| name[at] == b'/' && at > 0 && (1..=100).contains(&(name.len() - at - 1)))?;
    Some((&name[slash + 1..], &name[..slash]))
}

fn ustar(member: &Member, kind: u8, (name, prefix): (&[u8], &[u8])) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, &octal(u64::from(member.mode & 0o7777), 8));
    put(108, &octal(member.uid.into(), 8));
    put(116, &octal(member.gid.into(), 8));
    put(124, &octal(member.size_bytes, 12));
    let seconds = member.modified.map_or(0, |time| u64::try_from(time.seconds).unwrap_or(0));
    put(136, &octal(seconds, 12));
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &member.link[..member.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, &octal(member.device.0, 8));
    put(337, &octal(member.device.1, 8));
    put(345, prefix);
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The largest number of a field of this width. Unit of `width`: bytes.
pub(crate) fn octal_max(width: u32) -> u64 {
    (1 << (3 * (width - 1))) - 1
}

/// Octal digits and a zero byte; 0 where they do not fit, and a pax record has the number.
fn octal(number: u64, width: u32) -> Vec<u8> {
    let number = if number > octal_max(width) { 0 } else { number };
    let digits = width as usize - 1;
    format!("{number:0digits$o}\0").into_bytes()
}

/// Seconds since 1970 with their fraction, also before it.
fn decimal(time: Timestamp) -> String {
    let nanos = time.nanos.min(999_999_999);
    let (sign, whole, nanos) = match time.seconds < 0 && nanos > 0 {
        true => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
        false => (if time.seconds < 0 { "-" } else { "" }, time.seconds.unsigned_abs(), nanos),
    };
    let text = format!("{sign}{whole}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn last(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == b'/').rfind(|part| !part.is_empty()).unwrap_or(b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let record = |value: &str| {
            let mut records = Records::default();
            records.put(b"path", value.as_bytes());
            String::from_utf8(records.0).unwrap()
        };
        // The example of the standard has this form: "%d %s=%s\n".
        assert_eq!(record("a"), "9 path=a\n");
        assert_eq!(record("abc"), "12 path=abc\n");
        let long = record(&"x".repeat(90));
        assert_eq!(long.split(' ').next().unwrap().parse::<usize>().unwrap(), long.len());
        for length in 0..300 {
            let text = record(&"x".repeat(length));
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), text.len());
        }
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        let time = |seconds, nanos| decimal(Timestamp { seconds, nanos });
        assert_eq!(time(5, 250_000_000), "5.25");
        assert_eq!(time(-2, 500_000_000), "-1.5");
        assert_eq!(time(-1, 500_000_000), "-0.5");
        assert_eq!(time(-3, 0), "-3");
        assert_eq!(time(1 << 40, 0), (1u64 << 40).to_string());
    }

    #[test]
    fn a_long_name_is_split_at_a_slash_or_not_at_all() {
        let name = [vec![b'a'; 120], b"/".to_vec(), vec![b'b'; 90]].concat();
        assert_eq!(place(&name), Some((&name[121..], &name[..120])));
        assert_eq!(place(&[b'a'; 101]), None);
        assert_eq!(place("é".as_bytes()), None);
    }
}
