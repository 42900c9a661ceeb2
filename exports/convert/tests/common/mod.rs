//! Sources, and qemu-img as the judge.
#![allow(dead_code)]

use adit_convert::{ConvertOptions, Converted, Format, convert};
use adit_core::{Disk, Interrupt, Kind, Quiet, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

/// Bytes that do not compress, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that compress well.
pub fn text(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut line = seed;
    while bytes.len() < length {
        bytes.extend(format!("line {line}: the value is {:#x}\n", line * 2654435761).bytes());
        line += 1;
    }
    bytes.truncate(length);
    bytes
}

/// What is written where in a source. Units: bytes.
pub type Content = Vec<(u64, Vec<u8>)>;

/// Sources with a name: their size and what they hold; the rest is a hole.
pub fn sources() -> Vec<(&'static str, u64, Content)> {
    const MIB: u64 = 1 << 20;
    vec![
        ("hole", 5 * MIB, vec![]),
        ("zeros", 3 * MIB, vec![(0, vec![0; 3 << 20])]),
        ("full", 4 * MIB, vec![(0, noise(4 << 20, 1))]),
        (
            "sparse",
            70 * MIB + 3 * 512,
            vec![
                (0, text(100_000, 1)),
                (700_000, noise(200_000, 2)),
                (5 * MIB - 7, vec![9; 20]),
                (33 * MIB, vec![0; 1 << 20]),
                (40 * MIB + 12_345, text(9_000_000, 3)),
                (70 * MIB, noise(3 * 512, 4)),
            ],
        ),
        ("odd", 2 * MIB + 77, vec![(MIB, text(1 << 20, 5)), (2 * MIB + 70, vec![1; 7])]),
        ("tiny", 1, vec![(0, vec![0x5a])]),
        ("end", 8 * MIB + 65536, vec![(8 * MIB, vec![0; 65536]), (100, noise(100, 6))]),
    ]
}

pub fn write_source(path: &Path, size: u64, content: &Content) -> Arc<dyn Disk> {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, bytes) in content {
        file.write_all_at(bytes, *at).unwrap();
    }
    open(path)
}

pub fn open(path: &Path) -> Arc<dyn Disk> {
    adit_io::open(path, &adit_io::ReadPolicy::default()).unwrap()
}

pub fn run(source: &Arc<dyn Disk>, to: &Path, options: &ConvertOptions) -> Result<Converted> {
    let go = || convert(source, "source.raw", to, options, &Quiet, &Interrupt::default());
    // A program that another test starts holds every lock until it is itself.
    for _ in 0..50 {
        match go() {
            Err(error) if error.kind() == Kind::Busy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            done => return done,
        }
    }
    go()
}

/// The name that qemu-img has for a format.
pub fn qemu_name(format: Format) -> &'static str {
    match format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
        Format::VmdkSparse | Format::VmdkStream | Format::VmdkFlat => "vmdk",
        Format::VhdDynamic | Format::VhdFixed => "vpc",
        Format::Vhdx => "vhdx",
        Format::Vdi => "vdi",
        Format::Parallels => "parallels",
        // Of a bundle, QEMU reads the plain image alone.
        Format::ParallelsPlain => "raw",
    }
}

pub fn qemu_img(arguments: &[&str]) -> Output {
    Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("these tests need qemu-img: install qemu-utils")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Whether qemu-img finds the image sound and as long as, and equal to, the raw source.
pub fn judge(format: Format, image: &Path, raw: &Path, what: &str) {
    if format == Format::ParallelsPlain {
        return judge_bundle(image, raw, what);
    }
    let (name, image, raw) = (qemu_name(format), image.to_str().unwrap(), raw.to_str().unwrap());
    let checked = qemu_img(&["check", "-f", name, image]);
    // qemu-img has no check for these.
    let unchecked =
        matches!(format, Format::Raw | Format::VhdDynamic | Format::VhdFixed | Format::VmdkFlat);
    assert!(checked.status.success() || unchecked, "{what}: {}", said(&checked));
    let of = |name: &str, path: &str| match name {
        "vpc" => format!("driver=vpc,file.filename={path}"),
        _ => format!("driver={name},file.filename={path}"),
    };
    let (image, raw) = (of(name, image), of("raw", raw));
    let compared = qemu_img(&["compare", "--image-opts", &image, &raw]);
    assert!(compared.status.success(), "{what}: {}", said(&compared));
    let size = |path: &str| {
        let told = said(&qemu_img(&["info", "--output=json", "--image-opts", path]));
        let line = told.lines().find(|line| line.starts_with("    \"virtual-size\""));
        line.unwrap_or_else(|| panic!("{what}: {told}")).to_owned()
    };
    assert_eq!(size(&image), size(&raw), "{what}");
}

/// Whether a bundle's image is the disk, to whole sectors, and the bundle reads as one.
fn judge_bundle(bundle: &Path, raw: &Path, what: &str) {
    let text = std::fs::read(bundle.join("DiskDescriptor.xml")).unwrap();
    let limits = adit_core::Limits::default();
    let descriptor = adit_parallels::Descriptor::parse(&text, &limits).unwrap();
    let mut resolve = |named: &adit_parallels::Reference| {
        let image = bundle.join(named.text());
        let compared = ["compare", "-f", "raw", "-F", "raw"];
        let paths = [image.to_str().unwrap(), raw.to_str().unwrap()];
        let compared = qemu_img(&[&compared[..], &paths[..]].concat());
        assert!(compared.status.success(), "{what}: {}", said(&compared));
        let length = image.metadata().unwrap().len();
        assert_eq!(length, raw.metadata().unwrap().len().next_multiple_of(512), "{what}");
        Ok(open(&image))
    };
    let opened = adit_parallels::open("bundle", &descriptor, None, &mut resolve).unwrap();
    assert!(opened.notes.is_empty(), "{what}: {:?}", opened.notes);
    let source = open(raw);
    let first = adit_convert::compare(&opened.disk, &source, &Quiet, &Interrupt::default());
    assert_eq!(first.unwrap(), None, "{what}");
}

/// Removes what a conversion made.
pub fn remove(image: &Path) {
    match image.is_dir() {
        true => std::fs::remove_dir_all(image).unwrap(),
        false => std::fs::remove_file(image).unwrap(),
    }
}

/// The data of a conversion to `image`: the file that grows.
pub fn data_file(format: Format, image: &Path) -> PathBuf {
    let name = image.file_name().unwrap().to_str().unwrap();
    match format {
        Format::VmdkFlat => {
            let stem = image.file_stem().unwrap().to_str().unwrap();
            image.with_file_name(format!("{stem}-flat.vmdk"))
        }
        Format::ParallelsPlain => image.join(adit_parallels::write::plain_name(name)),
        _ => image.to_owned(),
    }
}

/// Every kind of target: a name, and how to make it.
pub fn targets() -> Vec<(String, ConvertOptions)> {
    use adit_convert::Compression::{Zlib, Zstd};
    let mut all: Vec<(String, ConvertOptions)> = Format::ALL
        .into_iter()
        .map(|format| (format.word().to_owned(), ConvertOptions::to(format)))
        .collect();
    for (compression, level) in [(Zlib, None), (Zlib, Some(1)), (Zstd, None), (Zstd, Some(1))] {
        for cluster_size_bytes in [None, Some(4096), Some(2 << 20)] {
            all.push((
                format!("qcow2 {compression:?} {level:?} {cluster_size_bytes:?}"),
                ConvertOptions {
                    compression,
                    level,
                    cluster_size_bytes,
                    ..ConvertOptions::to(Format::Qcow2)
                },
            ));
        }
    }
    for (format, size) in [
        (Format::Qcow2, 512),
        (Format::Qcow2, 2 << 20),
        (Format::VmdkSparse, 8192),
        (Format::VhdDynamic, 512 << 10),
        (Format::Vhdx, 1 << 20),
        (Format::Vhdx, 32 << 20),
    ] {
        let options = ConvertOptions {
            cluster_size_bytes: Some(size),
            detect_zeroes: false,
            ..ConvertOptions::to(format)
        };
        all.push((format!("{} of {size}, zeros kept", format.word()), options));
    }
    all
}

/// What is in a directory.
pub fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}
