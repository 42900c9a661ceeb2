//! The command line, with examples for every verb.

mod images;
mod serve;

pub use images::{Create, Force, ImageVerb, Snapshot, Write};
pub use serve::{Ctl, CtlCommand, Nbd, Overlay, Serve, Which};

use crate::units::parse_bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

const PATHS: &str = "\
Paths name places inside images: a host path, then steps after `//`.
  lun.img                            the image or device itself
  lun.img//p1                        its first partition
  lun.img//p1//web01/web01.vmdk      a file in the datastore on it
  lun.img//p1//web01/web01.vmdk//    what that disk image holds
  disk.qcow2@daily                   what it held when that snapshot was taken
A step with only one choice may be left out: lun.img//web01/web01.vmdk.

Exit codes: 0 good, 1 error, 2 usage, 3 a partial or damaged result.";

/// Opens a hypervisor's storage from outside the hypervisor
#[derive(Debug, Parser)]
#[command(name = "adit", version, after_help = PATHS, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Whether the first argument can be this word: a verb.
pub fn is_verb(word: &std::ffi::OsStr) -> bool {
    let command = <Arguments as clap::CommandFactory>::command();
    word == "help" || command.get_subcommands().any(|verb| word == verb.get_name())
}

/// Options of every verb.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Report as JSON (docs/json.md has the names)
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Another device or image of a spanned volume; may be repeated
    #[arg(long, global = true, value_name = "FILE")]
    pub member: Vec<PathBuf>,
    /// Another datastore that symbolic links may lead to; may be repeated
    #[arg(long, global = true, value_name = "FILE")]
    pub datastore: Vec<PathBuf>,
    /// The parent or data file of an image, where it is not found; may be repeated
    #[arg(long, global = true, value_name = "[CHILD=]PLACE")]
    pub parent: Vec<OsString>,
    /// Which files an image may name
    #[arg(long, global = true, value_enum, default_value_t = References::Directory)]
    pub references: References,
    /// How large the disk of a snapshot inside an image (`disk.qcow2@NAME`) is
    #[arg(long, global = true, value_enum, default_value_t = SnapshotSize::Then)]
    pub snapshot_size: SnapshotSize,
    /// Open encrypted disks with the first line of this file (`-`: standard input); may be repeated
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Vec<PathBuf>,
    /// Open encrypted disks with the bytes of this file; may be repeated
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Vec<PathBuf>,
    /// The source is a raw disk, whatever it looks like
    #[arg(long, global = true)]
    pub raw: bool,
    /// Change a bound, for example chain_length_max=500; may be repeated (`adit limits` lists them)
    #[arg(long, global = true, value_name = "NAME=NUMBER")]
    pub limit: Vec<String>,
}

/// Which files an image may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum References {
    /// Those in the image's own directory
    Directory,
    /// Any of the datastore the image lies in
    Datastore,
}

/// How large the disk of a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SnapshotSize {
    /// As when it was taken
    Then,
    /// As the image's disk is now, cut or filled with zeros, as `qemu-img convert -l` gives it
    Now,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Tell what a place is, layer by layer
    #[command(
        after_help = "Examples:\n  adit info lun.img\n  adit info --json lun.img//p1\n  adit info lun.img//web01/web01.vmdk//"
    )]
    Info {
        /// The place
        path: OsString,
    },
    /// List directories and volumes
    #[command(
        after_help = "Examples:\n  adit ls lun.img\n  adit ls -lR lun.img//web01\n  adit ls --member second.img first.img\n  adit ls vm.vmx//:os/home    # as the guest mounts it, over all its disks"
    )]
    Ls(Ls),
    /// Show a directory tree with sizes
    #[command(after_help = "Examples:\n  adit tree lun.img\n  adit tree --depth 1 lun.img//web01")]
    Tree {
        /// Directories
        #[arg(required = true)]
        paths: Vec<OsString>,
        /// Go no deeper than this
        #[arg(long, value_name = "LEVELS")]
        depth: Option<usize>,
        /// Show system files and names that start with a dot
        #[arg(short, long)]
        all: bool,
    },
    /// Show everything known of a file
    #[command(
        after_help = "Examples:\n  adit stat lun.img//web01/web01-flat.vmdk\n  adit stat --json lun.img//web01/*"
    )]
    Stat {
        /// Files
        #[arg(required = true)]
        paths: Vec<OsString>,
    },
    /// Write files to standard output
    #[command(
        after_help = "Examples:\n  adit cat lun.img//web01/web01.vmx\n  adit cat --offset 42G --length 512 lun.img//web01/web01-flat.vmdk | xxd\n  adit cat lun.img//p1 > partition.raw"
    )]
    Cat {
        /// Files, partitions or disks
        #[arg(required = true)]
        paths: Vec<OsString>,
        #[command(flatten)]
        range: Range,
    },
    /// Copy files out, with their holes
    #[command(
        after_help = "Examples:\n  adit cp lun.img//web01/web01-flat.vmdk .\n  adit cp -r lun.img//web01 /restore/\n  adit cp --verify --resume lun.img//db/db-flat.vmdk /restore/\n  adit cp -r --salvage lun.img// /restore/"
    )]
    Cp(Cp),
    /// Convert a disk to a new image of another format
    #[command(
        after_help = "Examples:\n  adit convert lun.img//web01/web01.vmdk web01.qcow2\n  adit convert --to vmdk-stream --verify disk.vhdx disk.vmdk\n  adit convert --to qcow2 --compress zstd chain-top.qcow2 flat.qcow2\n  adit convert disk.qcow2 disk.raw"
    )]
    Convert(Convert),
    /// Compare two disks; exit code 1 when they differ
    #[command(
        after_help = "Examples:\n  adit compare lun.img//web01/web01.vmdk web01.qcow2\n  adit compare a.vhdx b.raw"
    )]
    Compare {
        /// A disk
        first: OsString,
        /// Another disk
        second: OsString,
    },
    /// Compare two trees: added, removed, changed; exit code 1 when they differ
    #[command(
        after_help = "Examples:\n  adit diff disk.qcow2@monday//p1// disk.qcow2@friday//p1//\n  adit diff --content-only web01.vmdk//p1//home /backup/home\n  adit diff --json a.qcow2//p2// b.vhdx//p2//"
    )]
    Diff(Diff),
    /// Find files by name, kind, size or age
    #[command(
        after_help = "Examples:\n  adit find lun.img//p1// --name '*.vmdk' --size +1G\n  adit find disk.qcow2//p2//var/log --type f --newer 2d -l\n  adit find web01.vmdk// --iname '*.PST' --print0 | xargs -0 adit stat"
    )]
    Find(Find),
    /// Pack a tree as a tar archive, with attributes, holes and hard links
    #[command(
        after_help = "Examples:\n  adit tar disk.qcow2//p1//etc > etc.tar\n  adit tar web01.vmdk//p2// -o web01.tar\n  adit tar lun.img//web01 | tar -tv\n  adit tar --keep-going damaged.img// -o what-can-be-read.tar"
    )]
    Tar(Tar),
    /// Hash a tree or a disk: SHA-256 and BLAKE3 in one pass; or verify a manifest of hashes
    #[command(
        after_help = "Examples:\n  adit hash disk.qcow2//p1//etc | (cd /restored/etc && sha256sum -c)\n  adit hash web01.vmdk//p2// -o web01.hashes\n  adit hash --check web01.hashes /restored\n  adit hash disk.qcow2        # what the guest sees, whatever the format of the image"
    )]
    Hash(Hash),
    #[command(flatten)]
    Images(ImageVerb),
    /// Show which parts of a disk are in use, as its file systems say
    #[command(
        after_help = "Examples:\n  adit used disk.qcow2\n  adit used --ranges lun.img//web01/web01.vmdk\n  adit convert --used-only disk.qcow2 small.qcow2"
    )]
    Used {
        /// A disk: an image, a partition, a file, a device
        path: OsString,
        /// List the ranges in use
        #[arg(long)]
        ranges: bool,
        /// Swap areas are not in use
        #[arg(long)]
        drop_swap: bool,
    },
    /// Find deleted files of ext3, ext4 and NTFS, and copy out what may be left of them
    #[command(
        after_help = "Examples:\n  adit undelete disk.qcow2//p1\n  adit undelete --to rescued web01.vmdk//p2\n  adit undelete --json --all --to rescued disk.img//p1"
    )]
    Undelete(Undelete),
    /// Show where a file's bytes are
    #[command(
        after_help = "Examples:\n  adit map lun.img//web01/web01-flat.vmdk\n  adit map --physical --json lun.img//web01/web01-flat.vmdk"
    )]
    Map {
        /// A file, partition or disk
        path: OsString,
        /// Follow every layer down to the device
        #[arg(long)]
        physical: bool,
        #[command(flatten)]
        range: Range,
    },
    /// Follow one byte of a file down to the device
    #[command(
        after_help = "Examples:\n  adit explain lun.img//web01/web01-flat.vmdk@42G\n  adit explain lun.img//web01/web01.vmdk//@0x100000"
    )]
    Explain {
        /// A place, `@`, and a byte offset in it
        #[arg(value_name = "PATH@OFFSET")]
        place: OsString,
    },
    /// Find out which file owns a byte of the device
    #[command(
        after_help = "Examples:\n  adit locate lun.img 0x1e000000\n  adit locate lun.img 503316480"
    )]
    Locate {
        /// The device or image
        path: OsString,
        /// Byte offset on it
        #[arg(value_parser = parse_bytes)]
        offset: u64,
    },
    /// Show capacity and free space
    #[command(after_help = "Examples:\n  adit df lun.img\n  adit df --json a.img b.img")]
    Df {
        /// Datastores
        #[arg(required = true)]
        paths: Vec<OsString>,
    },
    /// List the virtual machines in a datastore
    #[command(after_help = "Examples:\n  adit vms lun.img\n  adit vms --json lun.img")]
    Vms {
        /// A datastore
        path: OsString,
    },
    /// Show which hosts use or used a datastore, and what they hold
    #[command(
        after_help = "Examples:\n  adit heartbeats lun.img\n  adit heartbeats --watch 16 /dev/sdb"
    )]
    Heartbeats {
        /// A datastore
        path: OsString,
        /// Show free slots too
        #[arg(short, long)]
        all: bool,
        /// Read twice, this many seconds apart, and say which hosts are alive
        #[arg(long, value_name = "SECONDS")]
        watch: Option<u64>,
    },
    /// Show bytes in hexadecimal
    #[command(
        after_help = "Examples:\n  adit hexdump --offset 0x1300000 --length 512 lun.img\n  adit hexdump lun.img//web01/web01.vmx"
    )]
    Hexdump {
        /// A file, partition or disk
        path: OsString,
        #[command(flatten)]
        range: Range,
    },
    /// Show an on-disk structure, every field with offset and meaning
    #[command(
        after_help = "Examples:\n  adit inspect lun.img\n  adit inspect lun.img superblock\n  adit inspect lun.img fd 0x00400104\n  adit inspect lun.img gpt\n  adit inspect --os web01.vmdk\n  adit inspect --os system.qcow2 data.qcow2\n  adit inspect --os lun.img//web01/web01.vmx"
    )]
    Inspect {
        /// A place
        path: OsString,
        /// The structure and its parameters; without it, those there are. With --os, more disks
        structure: Vec<String>,
        /// Tell which operating system is on the disks, and what it mounts where
        #[arg(long)]
        os: bool,
    },
    /// Verify an image, a file system or a datastore, changing nothing
    #[command(
        after_help = "Examples:\n  adit check lun.img\n  adit check disk.qcow2            # 0 sound, 2 corrupt, 3 leaks\n  adit check disk.qcow2//p1\n  adit check --json lun.img"
    )]
    Check {
        /// Images, file systems or datastores
        #[arg(required = true)]
        paths: Vec<OsString>,
    },
    /// Mount a datastore, a guest's file system, a folder, or a disk
    #[command(
        after_help = "Examples:\n  adit mount lun.img /mnt\n  adit mount lun.img//web01/web01.vmdk /mnt    # partitions as files part1.ext4, …\n  adit mount --foreground disk.qcow2 /mnt\n  adit mount --overlay changes.qcow2 lun.img//web01/web01.vmdk /mnt    # partitions can be written\n  adit mount --deep lun.img /mnt && ls /mnt/web01/web01.vmdk.d/part1.ext4.d/etc\n  adit umount /mnt\n\nFor `mount` and /etc/fstab, once: ln -s \"$(command -v adit)\" /sbin/mount.fuse.adit\n  mount -t fuse.adit lun.img /mnt -o deep,allow_other\n  lun.img  /mnt  fuse.adit  noauto,_netdev,ro  0 0    # overlay=FILE, uid=, gid=, noexec, member=FILE"
    )]
    Mount {
        /// What to mount
        path: OsString,
        /// An empty directory
        directory: PathBuf,
        /// Stay in the foreground; Ctrl-C unmounts
        #[arg(short, long)]
        foreground: bool,
        /// Let other users look as well
        #[arg(long)]
        allow_other: bool,
        /// Make the disk writable: changes go into this QCOW2 file and stay there, or with
        /// `:temp:` are forgotten at the end; what is mounted never changes
        #[arg(long, value_name = "FILE", conflicts_with = "deep")]
        overlay: Option<PathBuf>,
        /// Beside each disk file NAME answer to NAME.d, which goes on inside; listings do not
        /// show it
        #[arg(long)]
        deep: bool,
        /// Let nothing be run from the mount
        #[arg(long)]
        no_exec: bool,
        /// Let everything belong to this user
        #[arg(long, value_name = "NUMBER")]
        uid: Option<u32>,
        /// Let everything belong to this group
        #[arg(long, value_name = "NUMBER")]
        gid: Option<u32>,
    },
    /// Unmount what `adit mount` mounted
    #[command(after_help = "Examples:\n  adit umount /mnt")]
    Umount {
        /// The directory
        directory: PathBuf,
    },
    /// List what `adit mount` mounted
    #[command(after_help = "Examples:\n  adit mounts\n  adit mounts --json")]
    Mounts,
    /// Serve disks to other programs
    #[command(
        after_help = "Examples:\n  adit serve nbd --socket /tmp/nbd.sock lun.img//web01/web01.vmdk\n  adit serve nbd disk.qcow2 --run 'qemu-img info $uri'"
    )]
    Serve {
        #[command(subcommand)]
        protocol: Serve,
    },
    /// Tell a running server what to do: snapshots, commits, limits
    #[command(
        after_help = "Examples:\n  adit ctl /tmp/nbd.ctl list\n  adit ctl /tmp/nbd.ctl snapshot before-upgrade.qcow2\n  adit ctl /tmp/nbd.ctl commit --wait\n  adit ctl --json /tmp/nbd.ctl stats"
    )]
    Ctl(Ctl),
    /// Look into kept overlays, commit or discard them
    #[command(
        after_help = "Examples:\n  adit overlay info changes.qcow2\n  adit overlay diff changes.qcow2\n  adit overlay commit --into-original changes.qcow2\n  adit overlay discard changes.qcow2"
    )]
    Overlay {
        #[command(subcommand)]
        action: Overlay,
    },
    /// List the bounds that `--limit` changes
    Limits,
    /// Print a shell completion script
    #[command(
        after_help = "Examples:\n  adit completions bash > /etc/bash_completion.d/adit\n  adit completions zsh > ~/.zfunc/_adit\n  adit completions fish > ~/.config/fish/completions/adit.fish"
    )]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(after_help = "Examples:\n  adit man /usr/local/share/man/man1")]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// Options of `convert`.
#[derive(Args, Debug)]
pub struct Convert {
    /// The disk: an image, a partition, a file, a device
    pub source: OsString,
    /// The new file, or `-`: standard output, raw
    pub target: PathBuf,
    /// raw, qcow2, vmdk, vmdk-stream, vmdk-flat, vhd, vhd-fixed, vhdx, vdi, parallels or
    /// parallels-plain (a directory) [default: as the target's name ends]
    #[arg(long, value_name = "FORMAT")]
    pub to: Option<String>,
    /// none, zlib or zstd
    #[arg(long, value_name = "METHOD", default_value = "none")]
    pub compress: String,
    /// How hard to compress: 1 to 12 for zlib, 1 to 19 for zstd
    #[arg(long)]
    pub level: Option<i32>,
    /// Cluster, grain or block size of the new image
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    pub cluster_size: Option<u64>,
    /// Replace a file that exists; write over a block device (raw)
    #[arg(short, long)]
    pub force: bool,
    /// Hash while converting, open the result, compare it with the source, write a manifest
    #[arg(long)]
    pub verify: bool,
    /// Keep what is done when stopped, and carry on what an earlier run left
    #[arg(long)]
    pub resume: bool,
    /// keep or drop the page cache of source and target on the way; auto drops what half of
    /// memory could not hold
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub cache: String,
    /// Store zeros that the source stores
    #[arg(long)]
    pub keep_zeroes: bool,
    /// Leave out swap and what no file system uses (`adit used` shows it); deleted files are gone
    #[arg(long)]
    pub used_only: bool,
}

/// Options of `diff`.
#[derive(Args, Debug)]
pub struct Diff {
    /// A directory: of a file system in an image, or a folder of the host
    pub first: OsString,
    /// The directory it is compared with
    pub second: OsString,
    /// Compare names, kinds, contents and link targets, and nothing else
    #[arg(long)]
    pub content_only: bool,
    /// Leave these out; may be repeated
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub ignore: Vec<Ignore>,
}

/// What `diff` may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ignore {
    /// Permission bits
    Mode,
    /// Owner and group
    Owner,
    /// Time of last change
    Times,
    /// Extended attributes
    Xattrs,
}

/// Options of `find`.
#[derive(Args, Debug)]
pub struct Find {
    /// A directory: of a file system in an image, or a folder of the host
    pub path: OsString,
    /// Whose last name matches a pattern of `*`, `?` and `[a-z]`; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub name: Vec<OsString>,
    /// As --name, without regard to upper and lower case
    #[arg(long, value_name = "PATTERN")]
    pub iname: Vec<OsString>,
    /// f (file), d (directory), l (link), b, c, p, s, r (raw device mapping), y (system file)
    #[arg(long = "type", value_name = "LETTER", value_delimiter = ',')]
    pub kinds: Vec<char>,
    /// Larger (+10M), smaller (-4K) or exactly as large; may be repeated
    #[arg(long, value_name = "[+-]BYTES", allow_hyphen_values = true)]
    pub size: Vec<String>,
    /// Changed after a moment (2026-01-31T12:00:00Z) or within some time (36h, 2d)
    #[arg(long, value_name = "WHEN")]
    pub newer: Option<String>,
    /// Changed before a moment, or longer than some time ago
    #[arg(long, value_name = "WHEN")]
    pub older: Option<String>,
    /// Go no deeper than this
    #[arg(long, value_name = "LEVELS")]
    pub max_depth: Option<usize>,
    /// End every name with a zero byte, and escape nothing
    #[arg(short = '0', long, conflicts_with_all = ["json", "long"])]
    pub print0: bool,
    /// Modes, owners, sizes and times
    #[arg(short, long)]
    pub long: bool,
}

/// Options of `tar`.
#[derive(Args, Debug)]
pub struct Tar {
    /// A directory or file: of a file system in an image, or a folder of the host
    pub path: OsString,
    /// The archive, or - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Replace an archive that exists
    #[arg(short, long)]
    pub force: bool,
    /// Read every file to its end before it is begun, so that one that fails is left out whole
    #[arg(long)]
    pub keep_going: bool,
}

/// Options of `hash`.
#[derive(Args, Debug)]
pub struct Hash {
    /// A directory, a folder of the host, a disk or a file
    pub path: OsString,
    /// Write a manifest of all hashes to a file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a manifest that exists
    #[arg(short, long)]
    pub force: bool,
    /// Compare with a manifest, or with the output of sha256sum; exit code 1 when they differ
    #[arg(long, value_name = "MANIFEST", conflicts_with = "output")]
    pub check: Option<PathBuf>,
}

/// Options of `undelete`.
#[derive(Args, Debug)]
pub struct Undelete {
    /// A partition, or a disk without any
    pub path: OsString,
    /// Copy those whose space is still free into a folder, as NUMBER-NAME
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
    /// Copy those too of which other files have a part
    #[arg(long, requires = "to")]
    pub all: bool,
}

/// Options of `ls`.
#[derive(Args, Debug)]
pub struct Ls {
    /// Directories, files or images
    #[arg(required = true)]
    pub paths: Vec<OsString>,
    /// Modes, sizes and times
    #[arg(short, long)]
    pub long: bool,
    /// Subdirectories too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// System files and names that start with a dot
    #[arg(short, long)]
    pub all: bool,
    /// Sizes in bytes, also on a terminal
    #[arg(short, long)]
    pub bytes: bool,
    /// Node numbers
    #[arg(short, long)]
    pub inode: bool,
}

/// Options of `cp`.
#[derive(Args, Debug)]
pub struct Cp {
    /// What to copy, then where to
    #[arg(required = true, num_args = 2.., value_names = ["SOURCE", "TARGET"])]
    pub paths: Vec<OsString>,
    /// Copy directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Replace files that exist
    #[arg(short, long)]
    pub force: bool,
    /// Which zeros become holes: those of the source, every run of zeros, or none
    #[arg(long, value_enum, default_value_t = Sparse::Auto)]
    pub sparse: Sparse,
    /// Hash while copying, read the copy back, write a manifest beside it
    #[arg(long)]
    pub verify: bool,
    /// Keep what an interrupted copy has done, and go on from there
    #[arg(long)]
    pub resume: bool,
    /// Copy what can be read, and write down what was lost; exit code 3
    #[arg(long)]
    pub salvage: bool,
    #[command(flatten)]
    pub range: Range,
}

/// Part of a file.
#[derive(Args, Clone, Debug, Default)]
pub struct Range {
    /// First byte
    #[arg(long, value_parser = parse_bytes, default_value = "0", value_name = "BYTES")]
    pub offset: u64,
    /// Number of bytes [default: to the end]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    pub length: Option<u64>,
}

impl Range {
    /// The range on something of `size_bytes`, cut at its end.
    pub fn on(&self, size_bytes: u64) -> std::ops::Range<u64> {
        let start = self.offset.min(size_bytes);
        let end = self.length.map_or(size_bytes, |length| start.saturating_add(length));
        start..end.min(size_bytes)
    }
}

/// Which zeros become holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sparse {
    /// What the source does not store
    Auto,
    /// Every run of zeros
    Always,
    /// Nothing: write everything
    Never,
}
