//! Giving up what a server does not need once everything is open.

use super::is_temporary;
use crate::args::Nbd;
use crate::session::Session;
use crate::verbs::kept::folder_of;
use adit_core::{Error, Kind, Problem, Result};
use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use std::path::{Path, PathBuf};

/// From here on this thread, and those it starts, reach no files but those that are open and
/// those of the folders of overlays and sockets. Says so where the kernel cannot do it.
///
/// Errors: those of the kernel, where it can but does not.
pub fn enter(session: &Session, nbd: &Nbd) -> Result<()> {
    let failed = |why: landlock::RulesetError| {
        Error::new(Kind::Io, Problem::Refused, format!("entering the sandbox: {why}"))
    };
    let mut folders: Vec<PathBuf> = Vec::new();
    let beside = [&nbd.socket, &nbd.control].into_iter().flatten().map(PathBuf::as_path);
    let written = nbd.overlay.as_deref().filter(|_| !is_temporary(nbd));
    let originals = nbd.paths.iter().filter(|_| nbd.writable).map(Path::new);
    folders.extend(beside.chain(written).chain(originals).map(|path| folder_of(path).to_owned()));
    if is_temporary(nbd) {
        folders.push(std::env::temp_dir());
    }
    let all = AccessFs::from_all(ABI::V3);
    let status = Ruleset::default()
        .handle_access(all)
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.add_rules(path_beneath_rules(&folders, all)))
        .and_then(|rules| rules.restrict_self())
        .map_err(failed)?;
    if !session.common.quiet {
        match status.ruleset {
            RulesetStatus::FullyEnforced => {}
            RulesetStatus::PartiallyEnforced => {
                eprintln!("note: this kernel sandboxes the server in part only");
            }
            RulesetStatus::NotEnforced => {
                eprintln!("note: this kernel has no Landlock: the server is not sandboxed");
            }
        }
    }
    Ok(())
}
