//! From an image down to the parents it stands on, and up again to its disk.

use super::named::{Named, advice};
use super::raw::Raw;
use super::{Contents, Expect, Image, Parts, Wanted, is_not_the_one, qcow};
use crate::formats::{Format, recognise_image};
use crate::source::{FileId, Source};
use crate::{LayerInfo, Opener, references};
use adit_core::{Disk, Error, Finding, Interrupt, Kind, Limits, Name, Problem, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// The disk of an image.
#[derive(Debug)]
pub(crate) struct ChainDisk {
    pub disk: Arc<dyn Disk>,
    /// The image, then its parents: one layer each.
    pub layers: Vec<LayerInfo>,
    /// What they all had to say.
    pub notes: Vec<Finding>,
}

/// Opens the image in `file`, or one of its snapshots, and every image it stands on.
///
/// Errors: those of the formats and of [`references`]; `Corrupt` where a parent is not the one
/// the child was made from, with both identities, and where a file is in the chain twice.
pub(crate) fn open(
    opener: &Opener,
    file: Source,
    format: &Format,
    snapshot: Option<&str>,
) -> Result<ChainDisk> {
    let limits = &opener.options().limits;
    let image = match snapshot {
        Some(name) => {
            let now = opener.options().snapshots_of_size_now;
            qcow::read_snapshot(Arc::clone(&file.disk), limits, name, now)?
        }
        None => read(&file, format, limits)?,
    };
    let mut notes = Vec::new();
    if format.name == "parallels" {
        notes.extend(part_of_bundle(opener, &file));
    }
    let mut chain = Chain {
        opener,
        named: Named::new(&opener.options().parents),
        files: HashMap::new(),
        links: Vec::new(),
    };
    chain.push(Link { image, file, data: None, is_guess: false, notes })?;
    chain.descend()?;
    chain.named.finish()?;
    chain.build()
}

/// What an image stands on.
#[derive(Debug, Default)]
pub(crate) struct Below {
    /// The file of the parent, and its disk with all below it.
    pub parent: Option<(Source, ChainDisk)>,
}

/// Finds what the image in `file` stands on, as [`open`] does, and opens it; the image itself
/// stays closed.
pub(crate) fn below(opener: &Opener, file: Source, format: &Format) -> Result<Below> {
    let image = read(&file, format, &opener.options().limits)?;
    let mut chain = Chain {
        opener,
        named: Named::new(&opener.options().parents),
        files: HashMap::new(),
        links: Vec::new(),
    };
    chain.push(Link { image, file, data: None, is_guess: false, notes: Vec::new() })?;
    chain.descend()?;
    chain.named.finish()?;
    let rest = chain.links.split_off(1);
    let parent = match rest.first().map(|link| link.file.clone()) {
        Some(source) => {
            chain.links = rest;
            Some((source, chain.build()?))
        }
        None => None,
    };
    Ok(Below { parent })
}

/// Checks the image in `file` alone, without what it stands on.
pub(crate) fn check(
    opener: &Opener,
    file: &Source,
    format: &Format,
    report: &mut dyn FnMut(Finding),
    interrupt: &Interrupt,
) -> Result<()> {
    let image = read(file, format, &opener.options().limits)?;
    let mut extent =
        |name: &[u8]| references::resolve(name, file, opener.options()).map(|found| found.disk);
    image.check(&mut extent, report, interrupt)
}

/// The headers of the image in `file`.
pub(crate) fn headers(opener: &Opener, file: &Source, format: &Format) -> Result<Box<dyn Image>> {
    read(file, format, &opener.options().limits)
}

/// The file of an image's parent, without opening more than its headers.
///
/// Errors: that of a parent that is not found, or is not the one.
pub(crate) fn parent_of(opener: &Opener, file: Source, format: &Format) -> Result<Option<Source>> {
    let image = read(&file, format, &opener.options().limits)?;
    let wants = image.wants();
    let mut chain =
        Chain { opener, named: Named::new(&[]), files: HashMap::new(), links: Vec::new() };
    chain.push(Link { image, file, data: None, is_guess: false, notes: Vec::new() })?;
    for wanted in wants.iter().filter(|wanted| !wanted.is_data) {
        if let Some(found) = chain.find(wanted)? {
            return Ok(Some(found.file));
        }
    }
    Ok(None)
}

/// One image of a chain.
struct Link {
    image: Box<dyn Image>,
    file: Source,
    /// The file of its data, for formats that keep one apart.
    data: Option<Source>,
    /// Nobody said that it is an image; it only looks like one, and may name no files.
    is_guess: bool,
    notes: Vec<Finding>,
}

struct Chain<'a> {
    opener: &'a Opener,
    named: Named<'a>,
    /// Every file that was taken, and the link that took it.
    files: HashMap<FileId, usize>,
    /// The image, then its parents.
    links: Vec<Link>,
}

impl Chain<'_> {
    fn push(&mut self, link: Link) -> Result<()> {
        let longest = self.opener.options().limits.chain_length_max;
        if self.links.len() as u64 >= longest {
            let detail = format!("more than {longest} images stand on each other");
            return Err(Error::limit("chain_length_max", detail));
        }
        self.take(&link.file, self.links.len())?;
        self.links.push(link);
        Ok(())
    }

    /// Notes that a link uses a file.
    ///
    /// Errors: `Corrupt` if another one does.
    fn take(&mut self, file: &Source, link: usize) -> Result<()> {
        let Some(id) = file.id() else { return Ok(()) };
        match *self.files.entry(id).or_insert(link) {
            taken if taken == link => Ok(()),
            _ => Err(twice(file)),
        }
    }

    fn is_taken(&self, file: &Source) -> bool {
        file.id().is_some_and(|id| self.files.contains_key(&id))
    }

    /// Finds the files that the last image wants, until an image has no parent.
    fn descend(&mut self) -> Result<()> {
        loop {
            let Some(child) = self.links.last() else { return Ok(()) };
            let name = child.file.locator.to_string();
            let mut parent = None;
            for wanted in child.image.wants() {
                let found = self.find(&wanted).map_err(|error| error.in_layer(name.clone()))?;
                match (found, self.links.len().checked_sub(1)) {
                    (Some(found), Some(at)) if wanted.is_data => {
                        self.take(&found.file, at)?;
                        self.links[at].data = Some(found.file);
                    }
                    (found, _) => parent = found,
                }
            }
            match parent {
                Some(parent) => self.push(parent).map_err(|error| error.in_layer(name))?,
                None => return Ok(()),
            }
        }
    }

    /// The file that the last image wants. `None` leaves it to the format to say what is missing.
    fn find(&mut self, wanted: &Wanted) -> Result<Option<Link>> {
        let Some(child) = self.links.last() else { return Ok(None) };
        if let Some(named) = self.named.for_child(&child.file) {
            return self.named_one(wanted, named).map(Some);
        }
        let found = match (&wanted.names[..], &wanted.identity) {
            ([], None) => Ok(None),
            _ if child.is_guess => Err(guessed(child)),
            ([], Some(identity)) => self.by_identity(wanted, identity).map(Some),
            (names, _) => self.by_name(wanted, names).map(Some),
        };
        match found {
            Ok(Some(link)) => {
                self.named.not_needed();
                Ok(Some(link))
            }
            Err(error) if !is_not_the_one(&error) => Err(error),
            nothing => match self.named.for_anybody() {
                Some(named) => self.named_one(wanted, named).map(Some),
                None => nothing.map_err(|error| match self.links.last() {
                    Some(child) => error.advise_also(advice(&child.file, wanted)),
                    None => error,
                }),
            },
        }
    }

    /// A file that the user named.
    fn named_one(&self, wanted: &Wanted, named: &crate::NamedParent) -> Result<Link> {
        let file = self.opener.file(&named.place)?;
        // An overlay over a disk inside: the file that holds the disk is not the disk.
        let inside = wanted.names.iter().any(|name| name.starts_with(b"adit:"));
        if inside && let Some(format) = recognise_image(&file.disk)? {
            let place = named.place.to_string_lossy();
            let detail = format!("{place} is an image ({}), not the disk in it", format.title);
            return Err(Error::invalid(Problem::Mismatch, detail)
                .advise(format!("name the disk: `{place}//`")));
        }
        let mut link = self.candidate(wanted, file)?;
        // Who named it has looked at it.
        link.is_guess = false;
        Ok(link)
    }

    /// The first file that has one of the names, or the base name of one, and is the right one.
    fn by_name(&self, wanted: &Wanted, names: &[Vec<u8>]) -> Result<Link> {
        let Some(child) = self.links.last() else { return Err(nothing()) };
        let options = self.opener.options();
        let (mut failure, mut mismatch) = (None, None);
        let mut tried: Vec<&[u8]> = Vec::new();
        for name in names {
            if tried.contains(&&name[..]) {
                continue;
            }
            tried.push(name);
            let found = references::resolve(name, &child.file, options).or_else(|error| {
                // A chain that was moved: its files lie together, under their old names.
                let beside = references::base_name(name)
                    .filter(|_| wanted.identity.is_some() && is_not_the_one(&error))
                    .and_then(|base| references::beside(&base, &child.file, options).ok());
                beside.filter(|found| !self.is_taken(found)).ok_or(error)
            });
            match found.and_then(|file| self.candidate(wanted, file)) {
                Ok(link) => return Ok(link),
                Err(error) if !is_not_the_one(&error) => return Err(error),
                Err(error) if error.problem() == Problem::Mismatch => {
                    mismatch.get_or_insert(error);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        Err(mismatch.or(failure).unwrap_or_else(nothing))
    }

    /// The one file beside the child that is the right one.
    fn by_identity(&self, wanted: &Wanted, identity: &str) -> Result<Link> {
        let Some(child) = self.links.last() else { return Err(nothing()) };
        let options = self.opener.options();
        let (names, too_many) = references::siblings(&child.file, options)?;
        let mut found: Vec<Link> = Vec::new();
        let mut outdated = None;
        for name in &names {
            match self.sibling(wanted, child, name) {
                Ok(link) => found.extend(link),
                Err(error) => outdated = Some(error),
            }
        }
        if found.len() > 1 {
            let places = found.iter().map(|link| link.file.locator.to_string());
            let detail = format!("several files have {identity}: {}", join(places));
            return Err(Error::invalid(Problem::Ambiguous, detail));
        }
        found.pop().ok_or_else(|| {
            let looked = if too_many { "the first 1024 files" } else { "the files" };
            outdated.unwrap_or_else(|| {
                let detail = format!(
                    "its parent has no name, only {identity}, and none of {looked} beside it has that"
                );
                Error::not_found(detail)
            })
        })
    }

    /// A file beside the child, if it is of the right format and is the parent.
    ///
    /// Errors: that of the right image in the wrong state.
    fn sibling(&self, wanted: &Wanted, child: &Link, name: &Name) -> Result<Option<Link>> {
        // Nobody named these files: what cannot be read is not the parent.
        let Ok(file) = references::beside(name, &child.file, self.opener.options()) else {
            return Ok(None);
        };
        if self.is_taken(&file) {
            return Ok(None);
        }
        match self.candidate(wanted, file) {
            Ok(link) => Ok(Some(link)),
            Err(error) if is_outdated(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// A file as the parent or data file of the last image, if it is the right one.
    fn candidate(&self, wanted: &Wanted, file: Source) -> Result<Link> {
        let name = file.locator.to_string();
        if self.is_taken(&file) {
            return Err(twice(&file));
        }
        let limits = &self.opener.options().limits;
        let (image, is_guess) = as_expected(&file, &wanted.expect, limits)
            .map_err(|error| error.in_layer(name.clone()))?;
        let mut notes = Vec::new();
        if let (Some(child), false) = (self.links.last(), wanted.is_data) {
            let unchecked = self.opener.options().parents_unchecked;
            notes = match child.image.accepts(&image.identity()) {
                Err(error) if unchecked && error.problem() == Problem::Mismatch => {
                    vec![Finding::warning("parent-unchecked", error.detail())]
                }
                accepted => accepted.map_err(|error| error.in_layer(format!("parent {name}")))?,
            };
        }
        Ok(Link { image, file, data: None, is_guess, notes })
    }

    /// Puts the disks together, from the last parent up.
    fn build(mut self) -> Result<ChainDisk> {
        let (mut layers, mut notes, mut below) = (Vec::new(), Vec::new(), None);
        while let Some(mut link) = self.links.pop() {
            let name = link.file.locator.to_string();
            let parts = Parts {
                parent: below.take(),
                data: link.data.take().map(|file| file.disk),
                secrets: self.opener.options().secrets.clone(),
            };
            let contents =
                self.contents(&link, parts).map_err(|error| error.in_layer(name.clone()))?;
            let all = link.notes.into_iter().chain(contents.notes);
            notes.extend(all.map(|mut note| {
                note.trail.push(name.clone());
                note
            }));
            let format = link.image.format();
            let locator =
                if format == "raw" { link.file.locator } else { link.file.locator.step(b"") };
            layers.push(LayerInfo { format, locator, facts: contents.facts });
            below = Some(contents.disk);
        }
        layers.reverse();
        let disk = below.ok_or_else(nothing)?;
        Ok(ChainDisk { disk, layers, notes })
    }

    fn contents(&mut self, link: &Link, parts: Parts) -> Result<Contents> {
        let at = self.links.len();
        let options = self.opener.options();
        let mut extent = |name: &[u8]| {
            if link.is_guess {
                return Err(guessed(link));
            }
            let found = references::resolve(name, &link.file, options).map_err(|error| {
                let advice = "copy the file beside the image, or correct the name in the image";
                if error.kind() == Kind::Denied { error.advise(advice) } else { error }
            })?;
            self.take(&found, at)?;
            Ok(found.disk)
        };
        link.image.disk(&link.file.locator.to_string(), parts, &mut extent)
    }
}

fn read(file: &Source, format: &Format, limits: &Limits) -> Result<Box<dyn Image>> {
    format.read(Arc::clone(&file.disk), limits).unwrap_or_else(|| Err(nothing()))
}

/// The image in a file that must be something; and whether that was a guess.
fn as_expected(file: &Source, expect: &Expect, limits: &Limits) -> Result<(Box<dyn Image>, bool)> {
    let raw = || Box::new(Raw(Arc::clone(&file.disk))) as Box<dyn Image>;
    let found = match expect {
        Expect::Raw => return Ok((raw(), false)),
        Expect::Unknown(word) => {
            let detail = format!("the child says it is of format {word:?}, which is not read");
            return Err(Error::unsupported(detail));
        }
        Expect::Format(_) | Expect::Guess => recognise_image(&file.disk)?,
    };
    match (expect, found) {
        (Expect::Format(names), Some(format)) if names.contains(&format.name) => {
            Ok((read(file, format, limits)?, false))
        }
        (Expect::Format(names), found) => {
            let found = found.map_or("raw bytes", |format| format.title);
            let detail = format!("the child says it is {}, but it is {found}", names.join(" or "));
            Err(Error::corrupt(Problem::Mismatch, detail))
        }
        (_, Some(format)) => Ok((read(file, format, limits)?, true)),
        (_, None) => Ok((raw(), true)),
    }
}

/// Whether an image was refused for its state alone: it is the right one, changed since.
fn is_outdated(error: &Error) -> bool {
    let field = error.place().and_then(|place| place.field.as_deref());
    error.problem() == Problem::Mismatch && field == Some("uuid_parent_modify")
}

/// A file of a bundle shows zeros for what older files of the bundle hold.
fn part_of_bundle(opener: &Opener, file: &Source) -> Option<Finding> {
    let descriptor = Name::new(&b"DiskDescriptor.xml"[..]).ok()?;
    references::beside(&descriptor, file, opener.options()).ok()?;
    let text = "it is one file of a bundle: what files of earlier snapshots hold reads as zeros";
    Some(
        Finding::warning("parallels-image-alone", text)
            .advise("open the DiskDescriptor.xml beside it"),
    )
}

fn twice(file: &Source) -> Error {
    let detail = format!("{} is in the chain twice", file.locator);
    Error::corrupt(Problem::Cycle, detail)
}

fn guessed(link: &Link) -> Error {
    let detail = format!(
        "{} only looks like an image, its child does not say so; files it names are not opened",
        link.file.locator
    );
    Error::new(Kind::Denied, Problem::Refused, detail)
}

fn nothing() -> Error {
    Error::not_found("the image names no file")
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}
