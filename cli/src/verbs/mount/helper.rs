//! Called as `mount` calls its helpers: by the name `mount.fuse.adit`, or through `mount.fuse` as
//! `adit SOURCE DIR -o OPTIONS`. Both become the arguments of `adit mount`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Names that make this program a helper of `mount`.
const NAMES: [&[u8]; 3] = [b"mount.fuse.adit", b"mount.adit", b"mount.fuse3.adit"];

/// Options that say how to treat a line of `/etc/fstab`, that are always in force here, or that
/// have nothing to act on in a mount that cannot be written.
const OF_NO_EFFECT: [&str; 36] = [
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "_netdev",
    "rw",
    "exec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "async",
    "sync",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "default_permissions",
];

/// Options with a value that mean the same as an option of `adit mount`.
const WITH_VALUE: [(&str, &str); 12] = [
    ("overlay", "--overlay"),
    ("uid", "--uid"),
    ("gid", "--gid"),
    ("member", "--member"),
    ("datastore", "--datastore"),
    ("parent", "--parent"),
    ("references", "--references"),
    ("passphrase_file", "--passphrase-file"),
    ("key_file", "--key-file"),
    ("limit", "--limit"),
    ("fsname", ""),
    ("subtype", ""),
];

/// How this program was called.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// With these arguments of ours, or what stands for them, the program's name first.
    Mount(Vec<OsString>),
    /// To be told that it would work (`mount -f`).
    Nothing,
    /// What cannot be done, and why.
    Refused(String),
}

/// How this program was called; `is_verb` tells whether a word is one of ours.
pub fn arguments(is_verb: impl Fn(&OsStr) -> bool) -> Call {
    call(std::env::args_os().collect(), is_verb)
}

fn call(given: Vec<OsString>, is_verb: impl Fn(&OsStr) -> bool) -> Call {
    let Some((program, rest)) = given.split_first() else { return Call::Mount(given) };
    let name = program.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    // mount.fuse names the source, the directory and then options, always with -o.
    let through_fuse = |first: &OsString| {
        rest.get(2).is_some_and(|third| third == "-o")
            && !first.as_bytes().starts_with(b"-")
            && !is_verb(first)
    };
    if !NAMES.contains(&name) && !rest.first().is_some_and(through_fuse) {
        return Call::Mount(given);
    }
    match read(rest) {
        Ok(None) => Call::Nothing,
        Ok(Some(arguments)) => Call::Mount([vec![program.clone()], arguments].concat()),
        Err(why) => Call::Refused(why),
    }
}

fn read(given: &[OsString]) -> Result<Option<Vec<OsString>>, String> {
    let (mut places, mut options) = (Vec::new(), Vec::new());
    let (mut fake, mut sloppy, mut quiet) = (false, false, true);
    let mut rest = given.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        let flags = bytes.strip_prefix(b"-").filter(|flags| !flags.is_empty());
        let Some(flags) = flags else {
            places.push(argument.clone());
            continue;
        };
        for &flag in flags {
            match flag {
                b'o' => {
                    let text = rest.next().ok_or("-o needs options")?;
                    options.extend(split(text.as_bytes()));
                }
                // The type, and the name space, are known here.
                b't' | b'N' => drop(rest.next()),
                b'f' => fake = true,
                b's' => sloppy = true,
                b'v' => quiet = false,
                b'n' | b'r' | b'w' => {}
                other => return Err(format!("mount has no option -{}", char::from(other))),
            }
        }
    }
    let [source, directory] = &places[..] else {
        return Err("usage: mount.fuse.adit SOURCE DIRECTORY [-o OPTIONS]".to_owned());
    };
    let mut arguments: Vec<OsString> = vec!["mount".into()];
    if quiet {
        arguments.push("--quiet".into());
    }
    for option in options {
        match translated(&option) {
            Some(ours) => arguments.extend(ours),
            None if sloppy => {}
            None => {
                let option = String::from_utf8_lossy(&option).into_owned();
                return Err(format!("the option {option:?} means nothing here"));
            }
        }
    }
    if arguments.iter().any(|ours| ours == "--overlay") && options_say_read_only(given) {
        return Err("`ro` and `overlay` contradict each other".to_owned());
    }
    arguments.extend(["--".into(), source.clone(), directory.clone()]);
    Ok((!fake).then_some(arguments))
}

fn options_say_read_only(given: &[OsString]) -> bool {
    let after_o = given.windows(2).filter(|pair| pair[0] == "-o");
    let mut words = after_o.flat_map(|pair| split(pair[1].as_bytes()));
    words.any(|word| word == b"ro") || given.iter().any(|argument| argument == "-r")
}

/// An option of `mount` as arguments of ours.
fn translated(option: &[u8]) -> Option<Vec<OsString>> {
    let cut = option.iter().position(|&byte| byte == b'=');
    let (name, value) = match cut {
        Some(cut) => (&option[..cut], Some(OsStr::from_bytes(&option[cut + 1..]))),
        None => (option, None),
    };
    let name = std::str::from_utf8(name).ok()?;
    if let Some(value) = value {
        let (_, ours) = WITH_VALUE.iter().find(|(known, _)| *known == name).or_else(|| {
            let comment = name.starts_with("x-") || name == "comment";
            comment.then_some(&("", ""))
        })?;
        let both = || vec![OsString::from(ours), value.to_owned()];
        return Some(if ours.is_empty() { Vec::new() } else { both() });
    }
    match name {
        "deep" | "raw" => Some(vec![format!("--{name}").into()]),
        "allow_other" => Some(vec!["--allow-other".into()]),
        "noexec" => Some(vec!["--no-exec".into()]),
        "" | "ro" => Some(Vec::new()),
        _ if OF_NO_EFFECT.contains(&name) || name.starts_with("x-") => Some(Vec::new()),
        _ => None,
    }
}

/// Splits at commas; `\,` is one that belongs to a name, and `\\` a backslash.
fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut word) = (Vec::new(), Vec::new());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'\\' => word.extend(rest.next().or(Some(&b'\\'))),
            b',' => words.push(std::mem::take(&mut word)),
            _ => word.push(byte),
        }
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(text: &[&str]) -> Call {
        let given: Vec<OsString> = text.iter().map(OsString::from).collect();
        call(given, |word| word == "mount" || word == "ls")
    }

    fn mounted(text: &[&str]) -> Vec<String> {
        match called(text) {
            Call::Mount(arguments) => {
                arguments.iter().map(|it| it.to_string_lossy().into_owned()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ordinary_calls_are_left_alone() {
        for ordinary in [
            &["adit"][..],
            &["adit", "ls", "lun.img"],
            &["adit", "ls", "a", "-o"],
            &["adit", "mount", "lun.img", "/mnt", "-o"],
            &["adit", "--json", "ls", "-o", "x"],
        ] {
            assert_eq!(mounted(ordinary), ordinary);
        }
    }

    #[test]
    fn a_line_of_fstab_becomes_arguments_of_ours() {
        let given = [
            "adit",
            "lun.img//p1",
            "/mnt",
            "-o",
            "rw,_netdev,noauto,x-systemd.requires=a,\
                      allow_other,deep,uid=5,gid=6,noexec",
        ];
        let expected = "adit mount --quiet --allow-other --deep --uid 5 --gid 6 --no-exec -- \
                        lun.img//p1 /mnt";
        assert_eq!(mounted(&given).join(" "), expected);
        let named = ["/sbin/mount.fuse.adit", "-v", "a.img", "/mnt", "-n", "-o", "ro"];
        assert_eq!(mounted(&named)[1..], ["mount", "--", "a.img", "/mnt"]);
    }

    #[test]
    fn an_escaped_comma_belongs_to_a_name() {
        let given = ["mount.adit", "-o", r"overlay=a\,b.qcow2,dev", "a.img", "/mnt"];
        assert!(mounted(&given).contains(&"a,b.qcow2".to_owned()));
    }

    #[test]
    fn what_is_not_understood_is_refused_unless_mount_says_to_let_it_pass() {
        let given = |flag| called(&["mount.adit", "a.img", "/mnt", flag, "-o", "compress=zstd"]);

        assert!(matches!(given("-n"), Call::Refused(_)));
        assert!(matches!(given("-s"), Call::Mount(_)));
        assert_eq!(called(&["mount.adit", "a.img", "/mnt", "-f"]), Call::Nothing);
        assert!(matches!(called(&["mount.adit", "a.img"]), Call::Refused(_)));
        let both = ["mount.adit", "a.img", "/mnt", "-o", "ro,overlay=x"];
        assert!(matches!(called(&both), Call::Refused(_)));
    }
}
