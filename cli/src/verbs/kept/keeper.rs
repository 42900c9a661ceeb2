//! What becomes of files when layers are added and merged.
//!
//! The newest layer is always in the file that was named first, so that whoever opens that again
//! after a crash has everything. A snapshot gives what was there another name and puts a new file
//! in its place, in one step of the file system; a commit puts the older one back.

use super::{Base, Kept, create, folder_of, open, open_existing, record_beside, sync_folder};
use adit_core::{DiskExt, Error, Kind, Limits, ParentRecord, Problem, Result};
use adit_nbd::Keeper;
use adit_overlay::{Job, Layer, Live, Temporary};
use serde_json::{Value, json};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Keeps layers in QCOW2 files.
#[derive(Debug)]
pub struct FileKeeper {
    /// What the lowest overlay records.
    original: ParentRecord,
    /// The same to be opened again over, if it is only read.
    base: Option<Base>,
    /// Names for snapshots are made from this, and they lie in its folder.
    model: PathBuf,
    limits: Limits,
    /// The files of the overlays, bottom first.
    files: Arc<Mutex<Vec<PathBuf>>>,
}

impl FileKeeper {
    /// For overlays over a disk that is only read.
    pub fn over(base: Base, kept: &Kept, limits: &Limits) -> FileKeeper {
        FileKeeper {
            original: base.record.clone(),
            base: Some(base),
            model: kept.files.last().cloned().unwrap_or_default(),
            limits: limits.clone(),
            files: Arc::new(Mutex::new(kept.files.clone())),
        }
    }

    /// For an image that is written itself, and has no overlays yet.
    pub fn of_original(path: &Path, format: &str, limits: &Limits) -> Result<FileKeeper> {
        let whole = path
            .canonicalize()
            .map_err(|why| Error::io(Problem::Unreadable, path.display().to_string(), &why))?;
        let original = ParentRecord {
            name: whole.as_os_str().as_bytes().to_vec(),
            format: match format {
                "qcow" => "qcow2",
                "vhd" => "vpc",
                other => other,
            }
            .to_owned(),
            ..ParentRecord::default()
        };
        let files = Arc::default();
        Ok(FileKeeper { original, base: None, model: whole, limits: limits.clone(), files })
    }

    fn files(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        lock(&self.files)
    }

    /// A free name in the folder of the others.
    fn name(&self, name: Option<&str>) -> Result<PathBuf> {
        let folder = folder_of(&self.model);
        if let Some(name) = name {
            if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
                let detail = format!("{name:?} is no name for a file beside the others");
                return Err(Error::invalid(Problem::BadValue, detail).advise(format!(
                    "give a name without a path; it will lie in {}",
                    folder.display()
                )));
            }
            let path = folder.join(name);
            if path.symlink_metadata().is_ok() {
                let detail = format!("{} exists", path.display());
                return Err(Error::new(Kind::Denied, Problem::Refused, detail)
                    .advise("choose another name"));
            }
            return Ok(path);
        }
        let stem = self.model.file_stem().unwrap_or_default().to_string_lossy();
        (1..100_000u32)
            .map(|number| folder.join(format!("{stem}-{number}.qcow2")))
            .find(|path| path.symlink_metadata().is_err())
            .ok_or_else(|| Error::limit("files", "there is no free name left"))
    }
}

impl Keeper for FileKeeper {
    fn snapshot(&self, live: &Arc<Live>, patience: Duration, name: Option<&str>) -> Result<Value> {
        let new = self.name(name)?;
        let newest = self.files().last().cloned();
        let Some(newest) = newest else {
            // Nothing of ours yet: the original keeps its name, the overlay gets the new one.
            live.push(patience, |top| {
                let size_bytes = top.disk().size_bytes();
                let record = record_beside(&self.original, Some(&self.model), &new);
                let image = create(&new, &record, size_bytes)?;
                open(&new, image, top.disk(), &self.limits)
                    .inspect_err(|_| drop(std::fs::remove_file(&new)))
            })?;
            self.files().push(new.clone());
            let original = String::from_utf8_lossy(&self.original.name).into_owned();
            return Ok(json!({ "top": text(&new), "below": original }));
        };
        live.push(patience, |top| {
            let layer = rotate(&newest, &new, top, &self.limits)?;
            top.name = text(&new);
            Ok(layer)
        })?;
        let mut files = self.files();
        let place = files.len().saturating_sub(1);
        files.insert(place, new.clone());
        Ok(json!({ "top": text(&newest), "below": text(&new) }))
    }

    fn commit(&self, live: &Arc<Live>, patience: Duration, original: bool) -> Result<Arc<Job>> {
        let files = Arc::clone(&self.files);
        let known = self.files().clone();
        if let [.., older, newest] = &known[..] {
            let (older, newest) = (older.clone(), newest.clone());
            return live.commit(patience, move |layers| {
                rename(&older, &newest)?;
                // The name is right now; that it lasts is another matter, and a failure must
                // not bring back the layer whose file is gone.
                let _ = sync_folder(&newest);
                if let Some(top) = layers.last_mut() {
                    top.name = text(&newest);
                }
                let mut files = lock(&files);
                files.pop();
                files.pop();
                files.push(newest);
                Ok(())
            });
        }
        let [only] = &known[..] else {
            return Err(Error::invalid(Problem::Missing, "there is no overlay to merge")
                .advise("take a snapshot first"));
        };
        if self.base.is_some() {
            let detail = "below the only overlay is the original, which was opened to be read";
            return Err(Error::new(Kind::Denied, Problem::Refused, detail)
                .advise("stop the server, then: adit overlay commit --into-original FILE"));
        }
        if !original {
            let detail = "below the only overlay is the original image";
            return Err(Error::new(Kind::Denied, Problem::Refused, detail)
                .advise("say --into-original to change it"));
        }
        let only = only.clone();
        live.commit(patience, move |_| {
            // Before anything newer is written into the original: then the file would hide it.
            std::fs::remove_file(&only).map_err(|why| {
                Error::io(Problem::Unwritable, format!("removing {}", only.display()), &why)
            })?;
            let _ = sync_folder(&only);
            lock(&files).clear();
            Ok(())
        })
    }

    fn flatten(&self, live: &Arc<Live>, patience: Duration) -> Result<Arc<Job>> {
        let files = Arc::clone(&self.files);
        live.flatten(patience, move |layers| {
            let [top] = layers else {
                return Err(Error::invalid(Problem::Mismatch, "not one layer"));
            };
            top.as_image()?.set_parent(None)?;
            let mut files = lock(&files);
            let newest = files.pop();
            *files = newest.into_iter().collect();
            Ok(())
        })
    }

    fn swap(&self, live: &Arc<Live>, patience: Duration, file: &Path) -> Result<Value> {
        let base = self.base.as_ref().ok_or_else(|| {
            Error::unsupported("only overlays over a disk that is read can be swapped")
                .advise("serve it with --overlay")
        })?;
        let known = self.files().clone();
        if known.iter().any(|used| same(used, file)) {
            let detail = format!("{} is in use already", file.display());
            return Err(Error::invalid(Problem::Refused, detail));
        }
        let mut new = Vec::new();
        live.swap(patience, |old| {
            let kept = open_existing(file, base, &self.limits)?;
            new = kept.files;
            Ok(old.iter().take(1).cloned().chain(kept.layers).collect())
        })?;
        *self.files() = new;
        let was = known.last().map(|path| text(path));
        Ok(json!({ "top": text(file), "was": was }))
    }
}

/// Gives the newest overlay the name `older`, and puts an empty one over it in its place.
fn rotate(newest: &Path, older: &Path, top: &Layer, limits: &Limits) -> Result<Layer> {
    let failed = |what: String, why| Error::io(Problem::Unwritable, what, &why);
    let mut fresh = folder_of(newest).join(".adit-snapshot-").into_os_string();
    fresh.push(std::process::id().to_string());
    let fresh = PathBuf::from(fresh);
    // Left by a process of this number that was killed.
    let _ = std::fs::remove_file(&fresh);
    let record = ParentRecord {
        name: older.file_name().unwrap_or_default().as_bytes().to_vec(),
        format: "qcow2".to_owned(),
        ..ParentRecord::default()
    };
    let image = create(&fresh, &record, top.disk().size_bytes())?;
    let done = open(newest, image, top.disk(), limits).and_then(|layer| {
        std::fs::hard_link(newest, older)
            .map_err(|why| failed(format!("naming the snapshot {}", older.display()), why))?;
        // The one step that counts: before it there is the old overlay under two names.
        let placed = rename(&fresh, newest)
            .and_then(|()| sync_folder(newest).inspect_err(|_| drop(rename(older, newest))));
        match placed {
            Ok(()) => Ok(layer),
            Err(error) => {
                let _ = std::fs::remove_file(older);
                Err(error)
            }
        }
    });
    if done.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    done
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|why| {
        let what = format!("putting {} in the place of {}", from.display(), to.display());
        Error::io(Problem::Unwritable, what, &why)
    })
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps layers that are forgotten at the end.
#[derive(Debug)]
pub struct TemporaryKeeper;

impl Keeper for TemporaryKeeper {
    fn snapshot(&self, live: &Arc<Live>, patience: Duration, name: Option<&str>) -> Result<Value> {
        if name.is_some() {
            return Err(Error::unsupported("temporary overlays have no names")
                .advise("serve with --overlay FILE to keep them"));
        }
        live.push(patience, |top| {
            let overlay = Temporary::new(Arc::clone(top.disk()), &std::env::temp_dir())?;
            Ok(Layer::writable("temporary overlay", Arc::new(overlay)))
        })?;
        Ok(json!({ "top": "temporary overlay" }))
    }

    fn commit(&self, live: &Arc<Live>, patience: Duration, _original: bool) -> Result<Arc<Job>> {
        live.commit(patience, |_| Ok(()))
    }

    fn flatten(&self, live: &Arc<Live>, patience: Duration) -> Result<Arc<Job>> {
        live.flatten(patience, |_| Ok(()))
    }

    fn swap(&self, _live: &Arc<Live>, _patience: Duration, _file: &Path) -> Result<Value> {
        Err(Error::unsupported("a temporary overlay cannot be swapped for a file")
            .advise("serve with --overlay FILE"))
    }
}
