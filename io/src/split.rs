//! Raw images cut into numbered files, joined again.

use crate::file::FileDisk;
use crate::pieces::Scheme;
use crate::place::open_error;
use crate::retry::ReadPolicy;
use adit_core::{
    Concat, Disk, DiskExt, Error, Finding, Kind, Limits, Piece, Place, Problem, Result,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A joined split image.
#[derive(Debug)]
pub struct Split {
    /// All pieces end to end; the range of a missing one is `Lost`.
    pub disk: Arc<dyn Disk>,
    /// The pieces that were found, in order.
    pub pieces: Vec<PathBuf>,
    /// What is odd about them.
    pub notes: Vec<Finding>,
}

/// Joins the series of numbered pieces that `path`, any one of them, belongs to.
///
/// Nothing is returned for a path that is no piece, or that is the only one: it stands for
/// itself. Missing and short pieces are `Lost` ranges of the disk and findings.
///
/// Errors: `Lost` when more pieces are missing than found; `Limit` beyond `pieces_max`; otherwise
/// as [`crate::open`] for each piece.
pub fn open_split(path: &Path, policy: &ReadPolicy, limits: &Limits) -> Result<Option<Split>> {
    let Some(series) = Series::find(path, limits)? else { return Ok(None) };
    if series.files.len() < 2 || !series.is_plausible()? {
        return Ok(None);
    }
    let count = series.end - series.start;
    if count > limits.pieces_max {
        return Err(Error::limit("pieces_max", format!("the image has {count} pieces")));
    }
    let mut found = Found::new();
    for (&number, path) in &series.files {
        let disk = match FileDisk::open(path, policy) {
            Ok(disk) => Ok(Arc::new(disk) as Arc<dyn Disk>),
            // An empty piece is as good as none; the rest is still worth reading.
            Err(error) if error.kind() == Kind::Invalid => Err(error),
            Err(error) => return Err(error),
        };
        found.insert(number, disk);
    }
    let mut notes = Vec::new();
    let pieces = series.lay_out(&found, &mut notes);
    Ok(Some(Split {
        disk: Concat::open(series.name(), pieces)?,
        pieces: series.files.into_values().collect(),
        notes,
    }))
}

/// Each piece, or why it holds nothing.
type Found = BTreeMap<u64, Result<Arc<dyn Disk>>>;

/// The pieces found beside each other. Numbers run from `start` to before `end`.
#[derive(Debug)]
struct Series {
    /// Directory and stem, with the point: `/images/disk.`
    prefix: PathBuf,
    scheme: Scheme,
    files: BTreeMap<u64, PathBuf>,
    start: u64,
    end: u64,
}

impl Series {
    fn find(path: &Path, limits: &Limits) -> Result<Option<Series>> {
        let Some((stem, suffix)) = path.file_name().and_then(cut) else { return Ok(None) };
        let schemes = Scheme::of(suffix);
        if schemes.is_empty() {
            return Ok(None);
        }
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let suffixes = siblings(dir, stem, limits)?;
        let prefix = path.with_file_name(stem);
        let mut best: Option<Series> = None;
        for scheme in schemes {
            let series = Series::of(&prefix, scheme, &suffixes);
            let own = scheme.number(suffix);
            if !own.is_some_and(|number| series.files.contains_key(&number)) {
                continue;
            }
            if best.as_ref().is_none_or(|best| series.files.len() > best.files.len()) {
                best = Some(series);
            }
        }
        Ok(best)
    }

    fn of(prefix: &Path, scheme: Scheme, suffixes: &[String]) -> Series {
        let files: BTreeMap<u64, PathBuf> = suffixes
            .iter()
            .filter_map(|suffix| Some((scheme.number(suffix)?, with_suffix(prefix, suffix))))
            .collect();
        let lowest = files.keys().next().copied().unwrap_or(0);
        // Digits start at 1 unless there is a 0; letters always at `a`.
        let start = match scheme {
            Scheme::Digits(_) => lowest.min(1),
            _ => 0,
        };
        let end = files.keys().next_back().map_or(start, |last| last.saturating_add(1));
        Series { prefix: prefix.to_owned(), scheme, files, start, end }
    }

    /// Whether these files are pieces of one image rather than things that happen to be numbered.
    fn is_plausible(&self) -> Result<bool> {
        let found = self.files.len() as u64;
        let missing = (self.end - self.start).saturating_sub(found);
        if missing <= found {
            return Ok(true);
        }
        let has_first = self.files.contains_key(&self.start);
        if !has_first || !matches!(self.scheme, Scheme::Digits(_)) {
            return Ok(false);
        }
        let absent = (self.start..self.end).find(|number| !self.files.contains_key(number));
        let name = self.path_of(absent.unwrap_or(self.start));
        let detail = format!(
            "{missing} of {} pieces are missing, the first is {}",
            missing + found,
            name.display()
        );
        Err(Error::lost(detail).at(Place::new("split image").index(absent.unwrap_or(0))).advise(
            "put all pieces into one directory; a file that is no piece opens under another name",
        ))
    }

    /// Decides what stands where, and says what is odd.
    fn lay_out(&self, found: &Found, notes: &mut Vec<Finding>) -> Vec<Piece> {
        let common = common_size(found.values().flatten().map(|disk| disk.size_bytes()));
        let mut previous = None;
        let mut pieces = Vec::new();
        for number in self.start..self.end {
            let disk = match found.get(&number) {
                Some(Ok(disk)) => disk,
                absent => {
                    let next = found.range(number..).find_map(|(_, disk)| disk.as_ref().ok());
                    let next = next.map(|disk| disk.size_bytes());
                    let size_bytes = common.or(previous).or(next).unwrap_or(0);
                    let why = absent.and_then(|piece| piece.as_ref().err());
                    pieces.push(self.missing(number, why, size_bytes, notes));
                    continue;
                }
            };
            let size_bytes = disk.size_bytes();
            let is_last = number + 1 == self.end;
            let expected = common.or(previous).unwrap_or(size_bytes);
            let mut piece = Piece::whole(Arc::clone(disk));
            if !is_last && size_bytes < expected && common.is_some() {
                piece.length = expected;
                notes.push(self.short(number, size_bytes, expected));
            } else if size_bytes != expected && !(is_last && size_bytes < expected) {
                notes.push(self.uneven(number, size_bytes, expected));
            }
            if is_last && common == Some(size_bytes) {
                notes.push(self.full_last(number));
            }
            previous = Some(size_bytes);
            pieces.push(piece);
        }
        pieces
    }

    fn missing(
        &self,
        number: u64,
        why: Option<&Error>,
        size_bytes: u64,
        notes: &mut Vec<Finding>,
    ) -> Piece {
        let what = match why {
            Some(why) => why.detail().to_owned(),
            None => format!("the piece {} is missing", self.path_of(number).display()),
        };
        let reason = Error::new(Kind::Lost, Problem::Missing, what)
            .at(Place::new("split image").index(number))
            .advise("put the piece beside the others and open the image again");
        let mut note = Finding::from_error("split-piece-missing", &reason);
        note.text = format!("{}; taken as {size_bytes} bytes long, like the others", note.text);
        notes.push(note);
        Piece::lost(size_bytes, reason)
    }

    fn short(&self, number: u64, size_bytes: u64, expected: u64) -> Finding {
        let name = self.path_of(number);
        Finding::error(
            "split-piece-short",
            format!(
                "{} has {size_bytes} bytes where the other pieces have {expected}; the last {} are lost",
                name.display(),
                expected - size_bytes
            ),
        )
        .at(Place::new("split image").index(number).byte(size_bytes))
        .advise("copy this piece again")
    }

    fn uneven(&self, number: u64, size_bytes: u64, expected: u64) -> Finding {
        let name = self.path_of(number);
        Finding::warning(
            "split-piece-size",
            format!(
                "{} has {size_bytes} bytes where its neighbours have {expected}",
                name.display()
            ),
        )
        .at(Place::new("split image").index(number))
        .advise("all pieces but the last should be of one size; compare it with the original")
    }

    fn full_last(&self, number: u64) -> Finding {
        let name = self.path_of(number);
        Finding::info(
            "split-last-piece-full",
            format!(
                "the last piece, {}, is as large as the others, so pieces missing after it would not show",
                name.display()
            ),
        )
        .at(Place::new("split image").index(number))
    }

    fn path_of(&self, number: u64) -> PathBuf {
        with_suffix(&self.prefix, &self.scheme.suffix(number))
    }

    fn name(&self) -> String {
        let suffix = |number| self.scheme.suffix(number);
        let (first, last) = (suffix(self.start), suffix(self.end - 1));
        format!("split image {}{first}-{last}", self.prefix.display())
    }
}

/// `disk.001` as `disk.` and `001`.
fn cut(name: &OsStr) -> Option<(&OsStr, &str)> {
    let name = name.as_bytes();
    let point = name.iter().rposition(|&byte| byte == b'.')?;
    let (stem, suffix) = name.split_at(point + 1);
    Some((OsStr::from_bytes(stem), std::str::from_utf8(suffix).ok()?))
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path: OsString = prefix.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The suffixes of all files of `dir` that start with `stem`.
fn siblings(dir: &Path, stem: &OsStr, limits: &Limits) -> Result<Vec<String>> {
    let failed = |why| open_error(dir, &why);
    let mut suffixes = Vec::new();
    for (count, entry) in std::fs::read_dir(dir).map_err(failed)?.enumerate() {
        if count as u64 >= limits.directory_entries_max {
            let detail = format!("{} holds too many entries", dir.display());
            return Err(Error::limit("directory_entries_max", detail));
        }
        let name = entry.map_err(failed)?.file_name().into_vec();
        let Some(suffix) = name.strip_prefix(stem.as_bytes()) else { continue };
        let Ok(suffix) = std::str::from_utf8(suffix) else { continue };
        let is_file = || {
            let path = dir.join(OsStr::from_bytes(&name));
            std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
        };
        if !Scheme::of(suffix).is_empty() && is_file() {
            suffixes.push(suffix.to_owned());
        }
    }
    Ok(suffixes)
}

/// The size that most pieces have, if at least two and at least half of them share it.
fn common_size(sizes: impl Iterator<Item = u64>) -> Option<u64> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    let mut total = 0;
    for size in sizes {
        *counts.entry(size).or_default() += 1;
        total += 1;
    }
    let (size, count) = counts.into_iter().max_by_key(|&(size, count)| (count, size))?;
    (count >= 2 && count * 2 >= total).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_outgrow_their_width() {
        // Found only, not opened: a process may not have so many files open.
        let dir = tempfile::tempdir().unwrap();
        for number in 1..=1001 {
            std::fs::write(dir.path().join(format!("x.{number:03}")), b"x").unwrap();
        }
        for name in ["x.999", "x.1000", "x.001"] {
            let series = Series::find(&dir.path().join(name), &Limits::default());
            let series = series.unwrap().unwrap();
            assert_eq!((series.files.len(), series.start, series.end), (1001, 1, 1002), "{name}");
        }
    }
}
