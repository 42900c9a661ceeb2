//! Verbs that make and change disk images.

use super::parse_bytes;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What is done to images.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Make a new, empty disk image, or an overlay over another one
    #[command(
        after_help = "Examples:\n  adit create disk.qcow2 100G\n  adit create --to vhd -o subformat=fixed disk.vhd 40G\n  adit create --backing base.qcow2 overlay.qcow2\n  adit create --to vmdk -o subformat=twoGbMaxExtentSparse disk.vmdk 100G"
    )]
    Create(Create),
    /// Put a damaged image right, in place
    #[command(
        after_help = "Examples:\n  adit repair disk.vhd\n  adit repair --leaks disk.qcow2\n  adit repair --errors disk.qcow2    # forgets entries that point nowhere"
    )]
    Repair {
        /// The image
        image: PathBuf,
        /// Give back space that nothing uses
        #[arg(long)]
        leaks: bool,
        /// Forget entries that point nowhere; what they pointed to is lost
        #[arg(long)]
        errors: bool,
        #[command(flatten)]
        force: Force,
    },
    /// Take, list, delete or return to snapshots
    #[command(
        after_help = "Examples:\n  adit snapshot disk.qcow2 disk-1.qcow2      # a new overlay to write into\n  adit snapshot --internal daily disk.qcow2  # inside the image\n  adit snapshot --list disk.qcow2\n  adit snapshot --apply daily disk.qcow2\n  adit snapshot --delete daily disk.qcow2"
    )]
    Snapshot(Snapshot),
    /// Write what an overlay holds into the image it stands on
    #[command(
        after_help = "Examples:\n  adit commit overlay.qcow2\n  adit commit --keep overlay.qcow2    # leave the overlay as it is"
    )]
    Commit {
        /// The overlay
        image: PathBuf,
        /// Leave the overlay's data in it
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        force: Force,
    },
    /// Copy into an image what it reads from its parents, so that it stands alone
    #[command(after_help = "Examples:\n  adit flatten overlay.qcow2")]
    Flatten {
        /// The image
        image: PathBuf,
        #[command(flatten)]
        force: Force,
    },
    /// Stand an image on another parent
    #[command(
        after_help = "Examples:\n  adit rebase --onto new-base.qcow2 overlay.qcow2\n  adit rebase --alone overlay.qcow2\n  adit rebase --unsafe --onto moved/base.qcow2 overlay.qcow2   # only the name changes"
    )]
    Rebase {
        /// The image
        image: PathBuf,
        /// The new parent
        #[arg(long, value_name = "IMAGE", required_unless_present = "alone")]
        onto: Option<PathBuf>,
        /// Stand on nothing
        #[arg(long, conflicts_with = "onto")]
        alone: bool,
        /// Change the name alone: the new parent must hold what the old one did
        #[arg(short = 'u', long = "unsafe")]
        is_unsafe: bool,
        #[command(flatten)]
        force: Force,
    },
    /// Change the size of an image's disk
    #[command(
        after_help = "Examples:\n  adit resize disk.qcow2 200G\n  adit resize disk.vhd +10G\n  adit resize --shrink disk.raw 20G"
    )]
    Resize {
        /// The image
        image: PathBuf,
        /// The new size, or +SIZE, or -SIZE
        #[arg(allow_hyphen_values = true)]
        size: String,
        /// Cut off the end of the disk
        #[arg(long)]
        shrink: bool,
        #[command(flatten)]
        force: Force,
    },
    /// Make the file of an image smaller, in place
    #[command(after_help = "Examples:\n  adit compact disk.vhdx")]
    Compact {
        /// The image
        image: PathBuf,
        #[command(flatten)]
        force: Force,
    },
    /// Change fields of an image's headers
    #[command(
        after_help = "Examples:\n  adit modify disk.vhd hidden=1\n  adit modify disk.vmdk ddb.adapterType=lsilogic\n  adit inspect disk.vhd footer    # shows the fields"
    )]
    Modify {
        /// The image
        image: PathBuf,
        /// FIELD=VALUE
        #[arg(required = true, value_name = "FIELD=VALUE")]
        fields: Vec<String>,
        #[command(flatten)]
        force: Force,
    },
    /// Write bytes into the disk of an image
    #[command(
        after_help = "Examples:\n  adit write disk.qcow2 --offset 1M boot.bin\n  adit write disk.vhd --offset 1G --zero 64M\n  cat part.img | adit write disk.raw --offset 1M -"
    )]
    Write(Write),
}

/// Options of `create`.
#[derive(Args, Debug)]
pub struct Create {
    /// The new file
    pub image: PathBuf,
    /// Length of its disk [default: that of the backing image]
    #[arg(value_parser = parse_bytes)]
    pub size: Option<u64>,
    /// raw, qcow2, vhd, vhdx or vmdk [default: as the name ends]
    #[arg(long, value_name = "FORMAT")]
    pub to: Option<String>,
    /// The image it stands on
    #[arg(short, long, value_name = "IMAGE")]
    pub backing: Option<PathBuf>,
    /// Options of the format, as `qemu-img` names them; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub option: Vec<String>,
}

/// Options of `snapshot`.
#[derive(Args, Debug)]
pub struct Snapshot {
    /// The image
    pub image: PathBuf,
    /// The new overlay; its name tells its format
    #[arg(required_unless_present_any = ["internal", "list", "apply", "delete"])]
    pub overlay: Option<PathBuf>,
    /// Take a snapshot of this name inside the image
    #[arg(short = 'c', long, value_name = "NAME", group = "what")]
    pub internal: Option<String>,
    /// List the snapshots inside the image
    #[arg(short, long, group = "what")]
    pub list: bool,
    /// Return the image to a snapshot inside it
    #[arg(short, long, value_name = "NAME", group = "what")]
    pub apply: Option<String>,
    /// Delete a snapshot inside the image
    #[arg(short, long, value_name = "NAME", group = "what")]
    pub delete: Option<String>,
    #[command(flatten)]
    pub force: Force,
}

/// Options of `write`.
#[derive(Args, Debug)]
pub struct Write {
    /// The image
    pub image: PathBuf,
    /// A file to take the bytes from; `-` is standard input
    #[arg(required_unless_present_any = ["zero", "discard"])]
    pub source: Option<PathBuf>,
    /// First byte on the disk
    #[arg(long, value_parser = parse_bytes, default_value = "0", value_name = "BYTES")]
    pub offset: u64,
    /// Write so many zeros
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", conflicts_with = "source")]
    pub zero: Option<u64>,
    /// Give back so many bytes
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", conflicts_with_all = ["source", "zero"])]
    pub discard: Option<u64>,
    #[command(flatten)]
    pub force: Force,
}

/// What the user takes upon himself.
#[derive(Args, Clone, Copy, Debug)]
pub struct Force {
    /// Write although another program holds the image, or other images stand on it
    #[arg(short, long)]
    pub force: bool,
}
