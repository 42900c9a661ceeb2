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
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::path::{Path, PathBuf};

/// From here on this thread, and those it starts, reach no files but those that are open and
/// those of the folders of overlays and sockets, and start no programs. Says so where the kernel
/// cannot do it.
///
/// Errors: those of the kernel, where it can but does not.
pub fn enter(session: &Session, nbd: &Nbd) -> Result<()> {
    enclose(session, nbd)?;
    renounce(session)
}

/// What no server of disks needs and an intruder would: other programs, other processes, mounts,
/// namespaces, the kernel itself.
const RENOUNCED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_open_by_handle_at,
    libc::SYS_personality,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_quotactl,
];

/// System calls that are refused from here on, to every thread.
fn renounce(session: &Session) -> Result<()> {
    let failed = |why: String| {
        Error::new(Kind::Io, Problem::Refused, format!("giving up system calls: {why}"))
    };
    let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let rules = RENOUNCED.iter().map(|&call| (call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into();
    let arch = arch.map_err(|why: seccompiler::BackendError| failed(why.to_string()))?;
    let program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch)
        .and_then(TryInto::try_into)
        .map_err(|why| failed(why.to_string()))?;
    match seccompiler::apply_filter_all_threads(&program) {
        Err(seccompiler::Error::Prctl(_) | seccompiler::Error::Seccomp(_)) => {
            if !session.common.quiet {
                eprintln!("note: this kernel has no seccomp: the server keeps all system calls");
            }
            Ok(())
        }
        done => done.map_err(|why| failed(why.to_string())),
    }
}

/// Files out of reach, by Landlock.
fn enclose(session: &Session, nbd: &Nbd) -> Result<()> {
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
