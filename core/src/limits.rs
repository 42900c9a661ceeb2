//! Bounds on what an image may make us do.

use crate::{Error, Problem, Result};

macro_rules! limits {
    ($($(#[doc = $doc:expr])* $name:ident = $default:expr;)*) => {
        /// Named bounds; every one has a default that real images stay far below.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits { $($(#[doc = $doc])* pub $name: u64,)* }

        impl Default for Limits {
            fn default() -> Self { Limits { $($name: $default,)* } }
        }

        impl Limits {
            /// Every limit: name, default, meaning.
            pub const ALL: &'static [(&'static str, u64, &'static str)] =
                &[$((stringify!($name), $default, concat!($($doc,)*)),)*];

            /// Changes one limit by its name.
            ///
            /// Errors: `Invalid` if there is no such limit.
            pub fn set(&mut self, name: &str, value: u64) -> Result<()> {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return Err(Error::invalid(
                        Problem::Missing,
                        format!("there is no limit called {name:?}"),
                    ).advise(format!("the limits are: {}",
                        Self::ALL.iter().map(|l| l.0).collect::<Vec<_>>().join(", ")))),
                }
                Ok(())
            }
        }
    };
}

limits! {
    /// Longest chain of images on images.
    chain_length_max = 256;
    /// Most layers between a file and its device.
    layers_max = 64;
    /// Most partitions or volumes in one table.
    volumes_max = 4096;
    /// Largest table read whole into memory, in bytes.
    table_bytes_max = 64 << 20;
    /// Largest text file (descriptor, .vmx) read whole, in bytes.
    text_bytes_max = 4 << 20;
    /// Memory for cached metadata blocks, per opened layer, in bytes.
    cache_bytes_max = 8 << 20;
    /// Most symbolic links followed in one path.
    symlinks_max = 40;
    /// Deepest directory tree walked.
    directory_depth_max = 256;
    /// Most entries read from one directory.
    directory_entries_max = 4_000_000;
    /// Most members (devices) of one spanned volume.
    members_max = 32;
    /// Most pieces of one split image.
    pieces_max = 10_000;
    /// Most steps along any on-disk list.
    list_steps_max = 1_000_000;
    /// How often a failed read is tried again.
    read_retries_max = 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_by_name_and_an_unknown_one_names_the_choices() {
        let mut limits = Limits::default();
        limits.set("symlinks_max", 7).unwrap();
        assert_eq!(limits.symlinks_max, 7);
        let error = limits.set("nonsense", 1).unwrap_err();
        assert!(error.advice().unwrap().contains("symlinks_max"));
    }
}
