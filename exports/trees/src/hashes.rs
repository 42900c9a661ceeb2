//! The manifest of a tree or a disk: JSON lines. The fields: `docs/manifest.md`.

use crate::hash::hash_disk;
use crate::pool::in_order;
use crate::walk::{Found, Go, Step, Tree, walk};
use adit_copy::{Hashes, Moment};
use adit_core::{
    Disk, DiskExt, Error, Fork, Interrupt, Kind, Limits, NodeKind, Problem, Progress, Result,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How many files are hashed ahead of the first that is not done.
const WINDOW: usize = 1024;

/// The first line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashesHead {
    /// Always `adit-hashes`.
    pub schema: String,
    /// Version of the schema.
    pub version: u32,
    /// What wrote it: `adit 0.1.0`.
    pub tool: String,
    /// Full locator of what was hashed.
    pub source: String,
}

impl HashesHead {
    /// The name of the schema.
    pub const SCHEMA: &'static str = "adit-hashes";

    /// The first line of a new manifest.
    pub fn new(source: impl Into<String>) -> Self {
        HashesHead {
            schema: Self::SCHEMA.to_owned(),
            version: 1,
            tool: concat!("adit ", env!("CARGO_PKG_VERSION")).to_owned(),
            source: source.into(),
        }
    }
}

/// One line of a manifest: a node of a tree, or a whole disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedNode {
    /// Path from the top of the tree, what is no text as `\xNN`; empty for a disk.
    pub path: String,
    /// The bytes of the path in hexadecimal, where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// `file`, `directory`, `symlink`, …; `disk`.
    pub kind: String,
    /// Length of a file or disk. Unit: bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// SHA-256 of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// BLAKE3 of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// Block hash of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_blake3: Option<String>,
    /// Target of a link, in hexadecimal: it may be no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_hex: Option<String>,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Moment>,
    /// Why there is no hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl HashedNode {
    fn at(path: &[u8], kind: &str) -> HashedNode {
        let is_text = std::str::from_utf8(path).is_ok();
        HashedNode {
            path: match is_text {
                true => String::from_utf8_lossy(path).into_owned(),
                false => crate::shown(path),
            },
            path_hex: (!is_text).then(|| hex(path)),
            kind: kind.to_owned(),
            ..HashedNode::default()
        }
    }

    /// The path as bytes.
    ///
    /// Errors: `Invalid` where its hexadecimal form is none.
    pub fn path_bytes(&self) -> Result<Vec<u8>> {
        match &self.path_hex {
            None => Ok(self.path.clone().into_bytes()),
            Some(digits) => unhex(digits).ok_or_else(|| {
                let detail = format!("{digits:?} is no path in hexadecimal");
                Error::invalid(Problem::BadValue, detail)
            }),
        }
    }

    fn with_hashes(mut self, size_bytes: u64, hashes: Hashes) -> Self {
        self.size_bytes = Some(size_bytes);
        self.sha256 = hashes.sha256;
        self.blake3 = hashes.blake3;
        self.data_blake3 = Some(hashes.data_blake3);
        self
    }
}

/// The last line of a manifest; where it is missing, the manifest was cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashesTail {
    /// Whether everything was hashed.
    pub complete: bool,
    /// Number of lines between the first and this one.
    pub nodes: u64,
    /// Content that was hashed. Unit: bytes.
    pub hashed_bytes: u64,
}

/// Hashes a disk.
///
/// Errors: as [`hash_disk`].
pub fn hash_one(
    disk: &Arc<dyn Disk>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<HashedNode> {
    progress.total(disk.size_bytes());
    let hashes = hash_disk(disk, progress, interrupt)?;
    Ok(HashedNode::at(b"", "disk").with_hashes(disk.size_bytes(), hashes))
}

/// Hashes everything below a directory, several files at once, in the order of paths. Files of
/// the file system's own are left out. With each node comes the error that kept it from being
/// hashed, if there was one.
///
/// Errors: those of `tell` and of the start; `Interrupted`.
pub fn hash_tree(
    tree: &Tree,
    limits: &Limits,
    progress: &dyn Progress,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(HashedNode, Option<Error>) -> Result<()>,
) -> Result<HashesTail> {
    let mut tail = HashesTail { complete: true, ..HashesTail::default() };
    let mut total = 0u64;
    in_order(
        WINDOW,
        |found: Result<Found, (Vec<u8>, Error)>| match found {
            Ok(found) => hash_node(tree, &found, progress, interrupt),
            Err((path, error)) => (HashedNode::at(&path, "unknown"), Some(error)),
        },
        &mut |(mut node, error): (HashedNode, Option<Error>)| {
            if let Some(error) = &error {
                if error.kind() == Kind::Interrupted {
                    return Err(error.clone());
                }
                tail.complete = false;
                node.failed = Some(error.to_string());
            }
            tail.nodes += 1;
            tail.hashed_bytes += node.size_bytes.unwrap_or(0);
            tell(node, error)
        },
        |push| {
            walk(tree, limits, interrupt, &mut |step| {
                match step {
                    Step::Problem(path, error) => push(Err((path, error)))?,
                    Step::Node(found) if found.path.is_empty() => {}
                    Step::Node(found) if found.metadata.kind == NodeKind::System => {}
                    Step::Node(found) => {
                        if found.metadata.kind == NodeKind::File {
                            total += found.metadata.size_bytes;
                            progress.total(total);
                            progress.subject(&crate::shown(&found.path));
                        }
                        push(Ok(found))?;
                    }
                }
                Ok(Go::In)
            })
        },
    )?;
    Ok(tail)
}

fn hash_node(
    tree: &Tree,
    found: &Found,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> (HashedNode, Option<Error>) {
    let m = &found.metadata;
    let mut node = HashedNode::at(&found.path, m.kind.word());
    node.mode = Some(m.mode);
    node.modified = m.modified.map(|time| Moment { seconds: time.seconds, nanos: time.nanos });
    let done = match m.kind {
        NodeKind::File => tree.fs.open(found.node, &Fork::Data).and_then(|disk| {
            let hashes = hash_disk(&disk, progress, interrupt)?;
            node = std::mem::take(&mut node).with_hashes(disk.size_bytes(), hashes);
            Ok(())
        }),
        NodeKind::Symlink => tree.fs.read_link(found.node).map(|target| {
            node.target_hex = Some(hex(&target));
        }),
        _ => Ok(()),
    };
    (node, done.err())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = digits.chunks_exact(2);
    pairs.map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()).collect()
}
