//! On-disk structures, shown field by field.

use crate::layout::{
    AttributeRaw, BootRaw, FileNameRaw, IndexRootRaw, NonResidentRaw, StandardRaw,
    VolumeInformationRaw, kind,
};
use crate::names::to_text;
use crate::ntfs::Ntfs;
use crate::record::{Attribute, Body};
use adit_core::bytes::wide;
use adit_core::on_disk::{FieldValue, Value};
use adit_core::{DiskExt, Error, ExtentKind, Inspect, Inspected, Result};

impl Inspect for Ntfs {
    fn structures(&self) -> Vec<(String, String)> {
        let all = [
            ("boot", "the boot sector, or its copy if that was used"),
            ("record N", "MFT record N with its attributes; 0 is $MFT, 5 the root directory"),
        ];
        all.map(|(name, meaning)| (name.to_owned(), meaning.to_owned())).to_vec()
    }

    fn inspect(&self, name: &str) -> Result<Vec<Inspected>> {
        if name == "boot" {
            return self.inspect_boot();
        }
        let number = name.strip_prefix("record ").and_then(parse_number);
        match number {
            Some(number) => self.inspect_record(number),
            None => Err(Error::not_found(format!("there is no structure {name:?}"))
                .advise("there are: `boot`, `record N`")),
        }
    }
}

fn parse_number(text: &str) -> Option<u64> {
    match text.trim().strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.trim().parse().ok(),
    }
}

impl Ntfs {
    fn inspect_boot(&self) -> Result<Vec<Inspected>> {
        let boot = self.boot();
        let bytes = self.volume().read_vec(boot.offset, BootRaw::SIZE)?;
        let fields = BootRaw::read(&bytes)?.fields();
        Ok(vec![Inspected { structure: "boot sector".into(), offset: boot.offset, fields }])
    }

    fn inspect_record(&self, number: u64) -> Result<Vec<Inspected>> {
        let record = self.record(number)?;
        let mft = self.mft()?;
        let offset = number.saturating_mul(mft.record_bytes);
        let offset = match mft.disk.extent_at(offset)?.kind {
            ExtentKind::Verbatim { offset, .. } => offset,
            _ => offset,
        };
        let structure = format!("MFT record {number}");
        let mut shown = vec![Inspected { structure, offset, fields: record.raw.fields() }];
        for attribute in record.attributes() {
            let attribute = attribute?;
            let offset = offset.saturating_add(wide(attribute.offset));
            shown.push(Inspected {
                structure: title(&attribute),
                offset,
                fields: fields(&attribute),
            });
        }
        Ok(shown)
    }
}

fn title(attribute: &Attribute) -> String {
    let word = kind::word(attribute.kind);
    match attribute.name.as_slice() {
        [] => word.to_owned(),
        name => format!("{word} {:?}", to_text(name)),
    }
}

fn fields(attribute: &Attribute) -> Vec<FieldValue> {
    let head = AttributeRaw {
        kind: attribute.kind,
        length: attribute.length,
        non_resident: u8::from(matches!(attribute.body, Body::NonResident { .. })),
        name_length: u8::try_from(attribute.name.len()).unwrap_or(0),
        name_offset: attribute.name_offset,
        flags: attribute.flags,
        id: attribute.id,
    };
    let mut fields = head.fields();
    let base = match &attribute.body {
        Body::NonResident { raw, .. } => {
            let raw: &NonResidentRaw = raw;
            fields.extend(raw.fields());
            return fields;
        }
        Body::Resident(range) => range.start.saturating_sub(attribute.offset),
    };
    let value = attribute.value().unwrap_or_default();
    let inner = match attribute.kind {
        kind::STANDARD_INFORMATION => StandardRaw::read(value).map(|raw| raw.fields()),
        kind::FILE_NAME => FileNameRaw::read(value).map(|raw| raw.fields()),
        kind::VOLUME_INFORMATION => VolumeInformationRaw::read(value).map(|raw| raw.fields()),
        kind::INDEX_ROOT => IndexRootRaw::read(value).map(|raw| raw.fields()),
        _ => Ok(Vec::new()),
    };
    let value_field = FieldValue {
        name: "value".into(),
        offset: base,
        length: value.len(),
        value: Value::Bytes(value.to_vec()),
        meaning: format!("Value, from byte {base} of the attribute on"),
    };
    fields.push(value_field);
    for mut field in inner.unwrap_or_default() {
        field.offset = field.offset.saturating_add(base);
        fields.push(field);
    }
    fields
}
