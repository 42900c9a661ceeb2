//! Arguments of `serve`, `ctl` and `overlay`.

use crate::units::parse_bytes;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// How disks are served.
#[derive(Debug, Subcommand)]
pub enum Serve {
    /// Over the Network Block Device protocol
    #[command(
        after_help = "Examples:\n  adit serve nbd --socket /tmp/nbd.sock lun.img//web01/web01.vmdk\n  adit serve nbd --port 10809 a.vmdk b.vhdx\n  adit serve nbd disk.qcow2 --run 'qemu-img convert -O raw $uri out.raw'\n  adit serve nbd --socket /tmp/nbd.sock --control /tmp/nbd.ctl --overlay changes.qcow2 lun.img//web01/web01.vmdk\n  adit serve nbd --socket /tmp/nbd.sock --filter retry:tries=0,wait=1s disk.vhdx"
    )]
    Nbd(Box<Nbd>),
}

/// Options of `serve nbd`.
#[derive(Args, Clone, Debug)]
pub struct Nbd {
    /// Disks, images, partitions or files
    #[arg(required = true)]
    pub paths: Vec<OsString>,
    /// Listen on this Unix socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Listen on this TCP port (0 takes a free one)
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Listen on this address; there is no password, so the default is loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", requires = "port")]
    pub bind: std::net::IpAddr,
    /// Run a shell command with $uri set, and stop when it ends, with its exit code
    #[arg(long, value_name = "COMMAND")]
    pub run: Option<String>,
    /// Clients may write; what they change goes to this QCOW2 file, made if it is not there, and
    /// never to the disk itself. `:temp:` forgets it at the end
    #[arg(long, value_name = "FILE", conflicts_with = "writable")]
    pub overlay: Option<PathBuf>,
    /// Clients may write into the image itself
    #[arg(long)]
    pub writable: bool,
    /// Listen for `adit ctl` on this Unix socket
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Put a filter over the disks, for example retry:tries=0,wait=1s or cache:size=256M; may be
    /// repeated, the first lies nearest to the disk. With an overlay, retry, cache, readahead and
    /// error stand below it, the others above
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// A process for each disk, so that what breaks one does not touch another; --socket and
    /// --control then name folders, in which each disk has NAME.sock and NAME.ctl
    #[arg(long, requires = "socket", conflicts_with_all = ["run", "port"])]
    pub isolate: bool,
    /// Once all is open, give up access to other files (Landlock), but for the folders of
    /// overlays and sockets, and system calls that no server needs (seccomp)
    #[arg(long, conflicts_with = "run")]
    pub sandbox: bool,
    /// Encrypt connections that ask for it: the server's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Let only clients in that show a certificate of these authorities, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_clients: Option<PathBuf>,
    /// Serve nobody who does not encrypt
    #[arg(long, requires = "tls_cert")]
    pub tls_required: bool,
    /// Stop when the program that started this one ends
    #[arg(long)]
    pub exit_with_parent: bool,
}

/// Options of `ctl`.
#[derive(Args, Debug)]
pub struct Ctl {
    /// The control socket of a server
    pub socket: PathBuf,
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// Which export is meant.
#[derive(Args, Debug)]
pub struct Which {
    /// The export, if there are several
    #[arg(short, long, value_name = "NAME")]
    pub export: Option<String>,
}

/// What a server is told.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// List exports and their layers
    List,
    /// Show counters of requests, filters and jobs
    Stats(Which),
    /// Hold requests up; clients wait
    Pause(Which),
    /// Let requests go on
    Unpause(Which),
    /// Freeze what is there under a new layer, while clients go on
    Snapshot {
        #[command(flatten)]
        which: Which,
        /// Name of the file that keeps what was there until now, in the overlay's folder
        name: Option<String>,
    },
    /// Merge the newest layer into the one below it, while clients go on
    Commit {
        #[command(flatten)]
        which: Which,
        /// Allow it to be the original image that is written into
        #[arg(long)]
        into_original: bool,
        /// Return when it is done
        #[arg(long)]
        wait: bool,
    },
    /// Copy everything below into the newest layer, while clients go on
    Flatten {
        #[command(flatten)]
        which: Which,
        /// Return when it is done
        #[arg(long)]
        wait: bool,
    },
    /// Go on with another overlay of the same disk
    Swap {
        #[command(flatten)]
        which: Which,
        /// The overlay
        file: PathBuf,
    },
    /// Make the disk larger
    Resize {
        #[command(flatten)]
        which: Which,
        /// The new size
        #[arg(value_parser = parse_bytes)]
        size: u64,
    },
    /// Change the limits of the filter `ratelimit`; 0 means none
    Ratelimit {
        #[command(flatten)]
        which: Which,
        /// Bytes per second
        #[arg(long, value_parser = parse_bytes)]
        bytes: Option<u64>,
        /// Requests per second
        #[arg(long)]
        ops: Option<u64>,
    },
    /// List background jobs
    Jobs(Which),
    /// Stop a background job
    Cancel {
        #[command(flatten)]
        which: Which,
        /// Its number
        job: u64,
    },
    /// Take an export away
    Close(Which),
}

/// What is done with a kept overlay that nobody uses.
#[derive(Debug, Subcommand)]
pub enum Overlay {
    /// Tell what it stands on and how much it holds
    #[command(
        after_help = "Examples:\n  adit overlay info changes.qcow2\n  adit overlay info --json changes.qcow2"
    )]
    Info {
        /// The overlay
        file: PathBuf,
    },
    /// List the ranges that it changes, and the files in them
    ///
    /// Files are told where the disk below, or a volume of it, holds a file system that is read.
    #[command(
        after_help = "Examples:\n  adit overlay diff changes.qcow2\n  adit overlay diff --ranges-only changes.qcow2\n  adit overlay diff --json changes.qcow2"
    )]
    Diff {
        /// The overlay
        file: PathBuf,
        /// Leave the files out
        #[arg(long)]
        ranges_only: bool,
    },
    /// Write its changes into what it stands on
    #[command(
        after_help = "Examples:\n  adit overlay commit snap.qcow2                     # into the overlay below it\n  adit overlay commit --into-original changes.qcow2  # into the disk itself"
    )]
    Commit {
        /// The overlay
        file: PathBuf,
        /// Change the original disk; there is no way back
        #[arg(long)]
        into_original: bool,
    },
    /// Forget its changes
    #[command(
        after_help = "Examples:\n  adit overlay discard changes.qcow2\n  adit overlay discard --keep-file changes.qcow2"
    )]
    Discard {
        /// The overlay
        file: PathBuf,
        /// Empty the file, but leave it there
        #[arg(long)]
        keep_file: bool,
    },
}
