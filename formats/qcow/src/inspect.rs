//! The on-disk structures, for people.

use crate::Image;
use crate::layout::{HeaderV1, HeaderV2, HeaderV3};
use adit_core::{DiskExt, Error, Inspect, Inspected, Result};

impl Inspect for Image {
    fn structures(&self) -> Vec<(String, String)> {
        vec![("header".to_owned(), "size, clusters, tables, features".to_owned())]
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        if name != "header" {
            return Err(Error::not_found(format!("there is no structure {name:?}"))
                .advise("there is: header"));
        }
        let bytes = self.file().read_prefix(0, HeaderV3::SIZE)?;
        let fields = match self.version() {
            1 => HeaderV1::read(&bytes)?.fields(),
            2 => HeaderV2::read(&bytes)?.fields(),
            _ => {
                let mut fields = HeaderV2::read(&bytes)?.fields();
                fields.extend(HeaderV3::read(&bytes)?.fields());
                fields
            }
        };
        Ok(vec![Inspected { structure: "header".to_owned(), offset: 0, fields }])
    }
}
