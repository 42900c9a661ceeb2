//! `convert FORMAT[:COMPRESSION[:LEVEL]] SOURCE TARGET`: one conversion, for measuring.

use adit_convert::{Compression, ConvertOptions, Format, convert};
use adit_core::{Disk, Error, Interrupt, Limits, Quiet, Result};
use std::path::Path;
use std::sync::Arc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [to, from, target] = arguments.as_slice() else {
        eprintln!("convert FORMAT[:COMPRESSION[:LEVEL]] SOURCE TARGET");
        std::process::exit(2);
    };
    if let Err(error) = run(to, from, target) {
        eprintln!("{}", error.report("convert"));
        std::process::exit(1);
    }
}

fn run(to: &str, from: &str, target: &str) -> Result<()> {
    let mut words = to.split(':');
    let format = Format::parse(words.next().unwrap_or("")).unwrap_or(Format::Raw);
    let options = ConvertOptions {
        compression: words.next().and_then(Compression::parse).unwrap_or_default(),
        level: words.next().and_then(|level| level.parse().ok()),
        verify: std::env::var_os("VERIFY").is_some(),
        detect_zeroes: std::env::var_os("KEEP_ZEROES").is_none(),
        ..ConvertOptions::to(format)
    };
    let source = open(from)?;
    let quiet = Interrupt::default();
    let done = convert(&source, from, Path::new(target), &options, &Quiet, &quiet)?;
    println!("{} of {} bytes, file {}", done.data_bytes, done.virtual_bytes, done.file_bytes);
    Ok(())
}

fn open(path: &str) -> Result<Arc<dyn Disk>> {
    let (limits, file) = (Limits::default(), adit_io::open(Path::new(path), &Default::default())?);
    let mut alone = |_: &adit_vmdk::Reference| Err(Error::not_found("no other files here"));
    match path.rsplit('.').next() {
        Some("qcow2") => adit_qcow::Image::open(file, &limits)?.disk(path, Default::default()),
        Some("vmdk") => Ok(adit_vmdk::open_sparse(path, file, &limits, &mut alone)?.disk),
        Some("vhd") => adit_vhd::Image::open(file, &limits)?.disk(path, None),
        Some("vhdx") => adit_vhdx::Image::open(file, &limits)?.disk(path, None),
        _ => Ok(file),
    }
}
