//! `adit cp`: files out, with their holes.

use super::{map::disk_of, shown};
use crate::args::{Cp, Sparse};
use crate::exit;
use crate::output::Out;
use crate::progress::Bar;
use crate::session::{Session, code_of};
use crate::units::human_bytes;
use adit_copy::{
    Attributes, CopyOptions, FileEntry, Manifest, Skipped, Source, SourceIdentity, TreeOptions,
    copy_file, copy_tree,
};
use adit_core::{DiskExt, Error, Kind, NodeKind, Problem, Result};
use adit_open::{At, Opened};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Copies everything named.
pub fn run(session: &Session, cp: &Cp) -> u8 {
    let Some((target, sources)) = cp.paths.split_last() else { return exit::USAGE };
    let target = Path::new(target);
    let mut copy =
        Copying { session, cp, files: Vec::new(), skipped: Vec::new(), manifests: vec![] };
    let mut code = exit::GOOD;
    if sources.len() > 1 && !target.is_dir() {
        let error = Error::invalid(Problem::BadValue, "it is no directory")
            .advise("several sources need a directory to go to");
        return session.fail(&format!("copy to {}", target.display()), &error);
    }
    for source in sources {
        match copy.one(source, target) {
            Ok(done) => code = exit::worse(code, done),
            Err(error) => {
                let action = format!("copy {}", shown(source));
                code = exit::worse(code, session.fail(&action, &with_advice(error, cp)));
                if session.interrupt.raised() {
                    break;
                }
            }
        }
    }
    copy.report();
    code
}

/// What the engine cannot know: which option of the command line would help.
fn with_advice(error: Error, cp: &Cp) -> Error {
    match error.kind() {
        Kind::Lost | Kind::Corrupt | Kind::Io if !cp.salvage => {
            error.advise_also("`--salvage` copies what can be read, and lists what cannot")
        }
        Kind::Interrupted if cp.resume => error.advise("the same command goes on from here"),
        Kind::Interrupted => error.advise("with `--resume` a stopped copy can be carried on"),
        _ => error,
    }
}

struct Copying<'a> {
    session: &'a Session,
    cp: &'a Cp,
    files: Vec<FileEntry>,
    skipped: Vec<Skipped>,
    manifests: Vec<PathBuf>,
}

impl Copying<'_> {
    fn options(&self) -> CopyOptions {
        CopyOptions {
            sparse: match self.cp.sparse {
                Sparse::Auto => adit_copy::Sparse::Auto,
                Sparse::Always => adit_copy::Sparse::Always,
                Sparse::Never => adit_copy::Sparse::Never,
            },
            verify: self.cp.verify,
            salvage: self.cp.salvage,
            resume: self.cp.resume,
            overwrite: self.cp.force,
            ..CopyOptions::default()
        }
    }

    fn one(&mut self, path: &OsStr, target: &Path) -> Result<u8> {
        let mut opened = self.session.opener.follow(self.session.open(path)?)?;
        if self.cp.recursive && !matches!(opened.at, At::Node { .. }) {
            opened = self.session.opener.descend(opened)?;
        }
        if let At::Node { files, node, .. } = &opened.at
            && files.fs.metadata(*node)?.kind == NodeKind::Directory
        {
            if !self.cp.recursive {
                return Err(Error::invalid(Problem::BadValue, "it is a directory")
                    .advise("`adit cp -r` copies directories"));
            }
            return self.tree(&opened, target);
        }
        self.file(opened, path, target)
    }

    fn file(&mut self, opened: Opened, path: &OsStr, target: &Path) -> Result<u8> {
        let (disk, opened) = disk_of(self.session, opened)?;
        let locator = opened.locator.to_string();
        let mut source = Source::whole(disk, &locator);
        source.range = self.cp.range.on(source.disk.size_bytes());
        if let At::Node { files, node, .. } = &opened.at {
            let metadata = files.fs.metadata(*node)?;
            source.attributes = Attributes::from(&metadata);
            source.identity = SourceIdentity {
                locator,
                size_bytes: metadata.size_bytes,
                modified: metadata.modified.map(|time| (time.seconds, time.nanos)),
                node: metadata.node.0,
                generation: metadata.generation,
                disk_uuid: files.fs.identity().uuid,
            };
        }
        let target =
            if target.is_dir() { target.join(name_of(path)?) } else { target.to_path_buf() };
        let bar = Bar::new(self.session.common.quiet || self.session.common.json);
        let (entry, copied) =
            copy_file(&source, &target, &self.options(), &bar, &self.session.interrupt)?;
        bar.finish();
        if self.cp.verify {
            let manifest = Manifest::new(&entry.source, &entry.target, vec![entry.clone()], vec![]);
            self.manifests.push(manifest.write_beside(&target)?);
        }
        let code = if copied.partial() { exit::PARTIAL } else { exit::GOOD };
        self.files.push(entry);
        Ok(code)
    }

    fn tree(&mut self, opened: &Opened, target: &Path) -> Result<u8> {
        let At::Node { files, node, path, .. } = &opened.at else { return Ok(exit::GOOD) };
        // As `cp -r` does: into a directory that is there, or as a new one.
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let destination = if target.is_dir() && !name.is_empty() {
            target.join(OsStr::from_bytes(name))
        } else {
            target.to_path_buf()
        };
        let options = TreeOptions {
            copy: self.options(),
            locator: opened.locator.to_string(),
            limits: self.session.opener.options().limits.clone(),
        };
        let bar = Bar::new(self.session.common.quiet || self.session.common.json);
        let interrupt = &self.session.interrupt;
        let report = copy_tree(&*files.fs, *node, &destination, &options, &bar, interrupt)?;
        bar.finish();
        if self.cp.verify {
            let target = destination.to_string_lossy();
            let (files, skipped) = (report.files.clone(), report.skipped.clone());
            let manifest = Manifest::new(options.locator, target, files, skipped);
            self.manifests.push(manifest.write_beside(&destination)?);
        }
        let code = if report.partial() { exit::PARTIAL } else { code_of(&opened.notes) };
        self.files.extend(report.files);
        self.skipped.extend(report.skipped);
        Ok(code)
    }

    fn report(&self) {
        if self.session.common.json {
            let mut out = Out::new();
            out.json(&json!({
                "schema": "adit.cp/1",
                "copies": self.files.iter().map(|file| json!(file)).collect::<Vec<Value>>(),
                "skipped": self.skipped.iter().map(|skipped| json!(skipped)).collect::<Vec<Value>>(),
                "manifests": self.manifests,
            }));
            out.finish();
            return;
        }
        for skipped in &self.skipped {
            let mark = if skipped.failed { "failed" } else { "skipped" };
            eprintln!("{mark}: {}: {}", skipped.source, skipped.reason);
        }
        for file in self.files.iter().filter(|file| file.lost_bytes > 0) {
            eprintln!(
                "partial: {} lacks {} in {} places; {}.lost.json lists them",
                file.target,
                human_bytes(file.lost_bytes),
                file.lost.len(),
                file.target
            );
        }
        if !self.session.common.quiet && !self.files.is_empty() {
            let moved: u64 = self.files.iter().map(|file| file.copied_bytes).sum();
            let size: u64 = self.files.iter().map(|file| file.size_bytes).sum();
            let count = self.files.len();
            let plural = if count == 1 { "" } else { "s" };
            eprintln!(
                "{count} file{plural}, {}, of which {} stored{}",
                human_bytes(size),
                human_bytes(moved),
                if self.cp.verify { ", verified" } else { "" }
            );
        }
    }
}

/// The name a copy of `path` gets inside a directory.
fn name_of(path: &OsStr) -> Result<OsString> {
    let name = path.as_bytes().split(|&byte| byte == b'/').rfind(|part| !part.is_empty());
    match name {
        Some(name) if name != b"." && name != b".." => Ok(OsStr::from_bytes(name).to_owned()),
        _ => Err(Error::invalid(Problem::BadValue, "it gives no name for the copy")
            .advise("name the target file")),
    }
}
