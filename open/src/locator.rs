//! `lun.img//p1//web01/web01.vmdk`: a host path and the steps inside.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A place: a host path, then steps. `//` means "open what is here and step inside".
///
/// A step is a selector inside a volume table (`p2`, `label=EFI`) and a path inside a file
/// system. `disk.qcow2@daily`, where no file is called so, is a snapshot of that image. An empty last step (`disk.vmdk//`) opens what is there and stays at its top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// The file, device or first piece on the host.
    pub host: PathBuf,
    /// The steps inside, raw bytes.
    pub steps: Vec<Vec<u8>>,
}

impl Locator {
    /// Splits text into host path and steps.
    ///
    /// A host path may hold `//` of its own, so the host part is the shortest prefix before a
    /// `//` that is there and is no directory; with none, it is everything before the first `//`.
    pub fn parse(text: &OsStr) -> Locator {
        Self::parse_with(text, |path| match path.metadata() {
            Ok(found) => !found.is_dir(),
            Err(_) => has_snapshot(path),
        })
    }

    fn parse_with(text: &OsStr, is_source: impl Fn(&Path) -> bool) -> Locator {
        let bytes = text.as_bytes();
        let marks = || {
            // In "a///b" the mark is the first pair of slashes.
            let mut at = 0;
            std::iter::from_fn(move || {
                let found = bytes.get(at..)?.windows(2).position(|pair| pair == b"//")? + at;
                at = found + 2;
                Some(found)
            })
        };
        if let Some(start) =
            crate::remote::after_scheme(bytes).filter(|_| !is_source(Path::new(text)))
        {
            // The slashes of a URI are its own; the first pair after them is the mark.
            let rest = &bytes[start..];
            let cut = rest.windows(2).position(|pair| pair == b"//").map(|at| start + at);
            let host = Path::new(OsStr::from_bytes(&bytes[..cut.unwrap_or(bytes.len())]));
            let steps = cut.map_or_else(Vec::new, |cut| split_steps(&bytes[cut + 2..]));
            return Locator { host: host.to_path_buf(), steps };
        }
        let host_of = |at: usize| Path::new(OsStr::from_bytes(&bytes[..at]));
        let cut = marks()
            .filter(|&at| at > 0)
            .find(|&at| is_source(host_of(at)))
            .or_else(|| if is_source(Path::new(text)) { None } else { marks().find(|&at| at > 0) });
        let Some(cut) = cut else {
            return Locator { host: PathBuf::from(text), steps: Vec::new() };
        };
        Locator { host: host_of(cut).to_path_buf(), steps: split_steps(&bytes[cut + 2..]) }
    }

    /// The same place with one more step.
    pub fn step(&self, step: &[u8]) -> Locator {
        let mut longer = self.clone();
        if longer.steps.last().is_some_and(Vec::is_empty) {
            longer.steps.pop();
        }
        longer.steps.push(step.to_vec());
        longer
    }

    /// The same file system at another path; `at_root` where the place so far is its root.
    pub(crate) fn at_path(&self, path: &[u8], at_root: bool) -> Locator {
        let mut longer = self.clone();
        let system = self.steps.last().and_then(|step| crate::system::prefix_of(step));
        if !at_root || system.is_some() {
            longer.steps.pop();
        }
        match system {
            Some(system) if path.is_empty() => longer.step(system),
            Some(system) => longer.step(&[system, path].join(&b'/')),
            None => longer.step(path),
        }
    }

    /// The snapshot of that name of the image at this place.
    pub(crate) fn at_snapshot(&self, name: &[u8]) -> Locator {
        let mut longer = self.clone();
        let mut text = match longer.steps.pop() {
            Some(step) => step,
            None => std::mem::take(&mut longer.host).into_os_string().into_vec(),
        };
        text.push(b'@');
        text.extend_from_slice(name);
        match self.steps.is_empty() {
            true => longer.host = OsString::from_vec(text).into(),
            false => longer.steps.push(text),
        }
        longer
    }

    /// The full form as the shell would pass it.
    pub fn to_os_string(&self) -> OsString {
        let mut bytes = self.host.as_os_str().as_bytes().to_vec();
        for step in &self.steps {
            bytes.extend_from_slice(b"//");
            bytes.extend_from_slice(step);
        }
        OsString::from_vec(bytes)
    }
}

/// `disk.qcow2@daily` as a file and the name of a snapshot.
pub(crate) fn split_snapshot(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|&byte| byte == b'@')?;
    Some((&text[..at], &text[at + 1..])).filter(|(file, name)| !file.is_empty() && !name.is_empty())
}

/// Whether the name is that of a file, an `@` and the name of a snapshot in it.
fn has_snapshot(path: &Path) -> bool {
    let parts = split_snapshot(path.as_os_str().as_bytes());
    parts.is_some_and(|(file, _)| Path::new(OsStr::from_bytes(file)).is_file())
}

fn split_steps(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut steps = vec![Vec::new()];
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'/' && tail.first() == Some(&b'/') {
            steps.push(Vec::new());
            rest = &tail[1..];
        } else {
            if let Some(step) = steps.last_mut() {
                step.push(byte);
            }
            rest = tail;
        }
    }
    steps
}

impl fmt::Display for Locator {
    /// The full form for a person; bytes that are no text are shown as `\xNN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.to_os_string().as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "\\x{:02x}", u32::from(c))?
                } else {
                    write!(f, "{c}")?
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, sources: &[&str]) -> (String, Vec<String>) {
        let is_source = |path: &Path| sources.iter().any(|source| Path::new(source) == path);
        let locator = Locator::parse_with(OsStr::new(text), is_source);
        let steps = locator.steps.iter().map(|s| String::from_utf8(s.clone()).unwrap()).collect();
        (locator.host.to_str().unwrap().to_owned(), steps)
    }

    #[test]
    fn steps_are_what_stands_between_double_slashes() {
        let (host, steps) = parse("lun.img//p1//web01/web01.vmdk//p2", &["lun.img"]);
        assert_eq!(host, "lun.img");
        assert_eq!(steps, ["p1", "web01/web01.vmdk", "p2"]);
    }

    #[test]
    fn a_uri_keeps_its_own_slashes() {
        let (host, steps) = parse("nbd+unix:///d?socket=/run/s//p1//etc", &[]);
        assert_eq!(
            (host.as_str(), &steps[..]),
            ("nbd+unix:///d?socket=/run/s", &["p1".into(), "etc".into()][..])
        );
        assert_eq!(parse("nbd://host:1/disk", &[]), ("nbd://host:1/disk".into(), vec![]));
        assert_eq!(parse("nbd://host//p1", &[]), ("nbd://host".into(), vec!["p1".into()]));
    }

    #[test]
    fn a_host_path_may_hold_double_slashes() {
        assert_eq!(parse("/data//lun.img//p1", &["/data//lun.img"]).0, "/data//lun.img");
        assert_eq!(parse("/data//lun.img", &["/data//lun.img"]), ("/data//lun.img".into(), vec![]));
    }

    #[test]
    fn a_leading_double_slash_is_part_of_the_host_path() {
        assert_eq!(parse("//srv/lun.img//p1", &["//srv/lun.img"]).0, "//srv/lun.img");
    }

    #[test]
    fn a_trailing_double_slash_is_an_empty_step() {
        assert_eq!(parse("a.vmdk//", &["a.vmdk"]).1, [""]);
        assert_eq!(parse("a.vmdk", &["a.vmdk"]).1.len(), 0);
    }

    #[test]
    fn what_does_not_exist_is_cut_at_the_first_mark() {
        assert_eq!(parse("gone.img//p1", &[]), ("gone.img".into(), vec!["p1".into()]));
    }

    #[test]
    fn the_full_form_comes_back_as_it_was() {
        let text = OsStr::from_bytes(b"l.img//p1//a\xff/b//");
        let locator = Locator::parse_with(text, |path| path == Path::new("l.img"));
        assert_eq!(locator.to_os_string(), text);
        assert_eq!(locator.to_string(), "l.img//p1//a\\xff/b//");
        assert_eq!(locator.step(b"p2").steps.last().unwrap(), b"p2");
    }
}
