//! The on-disk structures, for people.

use crate::Image;
use adit_core::{Error, Inspect, Inspected, Result};

impl Inspect for Image {
    fn structures(&self) -> Vec<(String, String)> {
        vec![("header".to_owned(), "size, clusters, table".to_owned())]
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        if name != "header" {
            return Err(Error::not_found(format!("there is no structure {name:?}"))
                .advise("there is: header"));
        }
        let fields = self.header.raw.fields();
        Ok(vec![Inspected { structure: "header".to_owned(), offset: 0, fields }])
    }
}
