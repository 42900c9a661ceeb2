//! Extended attributes: those of the file system, and where a file comes from.

use crate::tree::Tree;
use adit_core::{Name, NodeId, Result, Timestamp, Xattr};

/// What names of ours begin with.
pub(crate) const PREFIX: &str = "user.adit.";

/// All attributes of a node. The file system's own win over ours of the same name.
pub(crate) fn all(tree: &Tree, node: NodeId, source: Option<&str>) -> Result<Vec<Xattr>> {
    let mut xattrs = tree.fs.xattrs(node)?;
    if let Some(source) = source {
        for own in provenance(tree, node, source)? {
            if !xattrs.iter().any(|known| known.name == own.name) {
                xattrs.push(own);
            }
        }
    }
    Ok(xattrs)
}

/// One attribute.
pub(crate) fn one(
    tree: &Tree,
    node: NodeId,
    name: &[u8],
    source: Option<&str>,
) -> Result<Option<Vec<u8>>> {
    let find = |xattrs: Vec<Xattr>| xattrs.into_iter().find(|x| x.name.as_bytes() == name);
    // `ls` asks every file for its ACL; only names of ours are worth making all of ours.
    let ours = name.starts_with(PREFIX.as_bytes());
    let found = find(if ours { all(tree, node, source)? } else { tree.fs.xattrs(node)? });
    Ok(found.map(|xattr| xattr.value))
}

/// Names as `listxattr` gives them.
pub(crate) fn names(xattrs: &[Xattr]) -> Vec<u8> {
    let mut names = Vec::new();
    for xattr in xattrs {
        names.extend_from_slice(xattr.name.as_bytes());
        names.push(0);
    }
    names
}

fn provenance(tree: &Tree, node: NodeId, source: &str) -> Result<Vec<Xattr>> {
    let mut facts = vec![
        ("source".to_owned(), source.to_owned()),
        ("format".to_owned(), tree.fs.identity().format),
        ("node".to_owned(), format!("{:#x}", node.0)),
    ];
    if let Some(Timestamp { seconds, nanos }) = tree.fs.metadata(node)?.created {
        facts.push(("created".to_owned(), format!("{seconds}.{nanos:09}")));
    }
    for detail in tree.fs.details(node)? {
        if !facts.iter().any(|(name, _)| name == detail.name) {
            facts.push((detail.name.to_owned(), detail.value.to_string()));
        }
    }
    facts
        .into_iter()
        .map(|(name, value)| {
            let name = Name::new(format!("{PREFIX}{name}"))?;
            Ok(Xattr { name, value: value.into_bytes() })
        })
        .collect()
}
