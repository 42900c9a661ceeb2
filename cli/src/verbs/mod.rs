//! One module a verb; each opens, calls one library function and renders.

mod cat;
mod check;
mod convert;
mod cp;
mod ctl;
mod df;
mod diff;
mod explain;
mod find;
mod generate;
mod hash;
mod heartbeats;
mod hexdump;
mod images;
mod info;
mod inspect;
mod kept;
mod list;
mod locate;
mod ls;
mod map;
pub mod mount;
mod os;
mod overlay;
mod serve;
mod stat;
mod tar;
mod tree;
mod undelete;
mod used;
mod vms;

use crate::args::Verb;
use crate::session::Session;
use std::ffi::OsStr;

/// Runs a verb and gives the exit code.
pub fn run(verb: Verb, session: &Session) -> u8 {
    let code = match verb {
        Verb::Info { path } => info::run(session, &path),
        Verb::Ls(ls) => ls::run(session, &ls),
        Verb::Tree { paths, depth, all } => tree::run(session, &paths, depth, all),
        Verb::Stat { paths } => stat::run(session, &paths),
        Verb::Cat { paths, range } => cat::run(session, &paths, &range),
        Verb::Cp(cp) => cp::run(session, &cp),
        Verb::Convert(convert) => convert::run(session, &convert),
        Verb::Compare { first, second } => convert::compare(session, &first, &second),
        Verb::Diff(diff) => diff::run(session, &diff),
        Verb::Find(find) => find::run(session, &find),
        Verb::Tar(tar) => tar::run(session, &tar),
        Verb::Hash(hash) => hash::run(session, &hash),
        Verb::Images(verb) => images::run(session, &verb),
        Verb::Used { path, ranges, drop_swap } => used::run(session, &path, ranges, drop_swap),
        Verb::Undelete(undelete) => undelete::run(session, &undelete),
        Verb::Map { path, physical, range } => map::run(session, &path, physical, &range),
        Verb::Explain { place } => explain::run(session, &place),
        Verb::Locate { path, offset } => locate::run(session, &path, offset),
        Verb::Df { paths } => df::run(session, &paths),
        Verb::Vms { path } => vms::run(session, &path),
        Verb::Heartbeats { path, all, watch } => heartbeats::run(session, &path, all, watch),
        Verb::Hexdump { path, range } => hexdump::run(session, &path, &range),
        Verb::Inspect { path, structure, os: true } => os::run(session, &path, &structure),
        Verb::Inspect { path, structure, os: false } => inspect::run(session, &path, &structure),
        Verb::Check { paths } => check::run(session, &paths),
        Verb::Mount {
            path,
            directory,
            foreground,
            allow_other,
            overlay,
            deep,
            no_exec,
            uid,
            gid,
        } => {
            let how = mount::How { foreground, allow_other, overlay, deep, no_exec, uid, gid };
            mount::run(session, &path, &directory, &how)
        }
        Verb::Umount { directory } => mount::unmount(session, &directory),
        Verb::Mounts => mount::list(session),
        Verb::Serve { protocol: crate::args::Serve::Nbd(nbd) } => serve::nbd(session, &nbd),
        Verb::Ctl(ctl) => ctl::run(session, &ctl),
        Verb::Overlay { action } => overlay::run(session, &action),
        Verb::Limits => generate::limits(session),
        Verb::Completions { shell } => generate::completions(shell),
        Verb::Man { directory } => generate::man(session, &directory),
    };
    session.tell_retries();
    code
}

/// The text of a path, for messages.
pub fn shown(path: &OsStr) -> String {
    path.to_string_lossy().into_owned()
}
