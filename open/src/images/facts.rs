//! Stable names for what the formats say of an image.

use crate::Fact;
use adit_core::on_disk::Value;

/// Labels of the formats whose stable names are not the label with underscores; those that end
/// in `_bytes` are sizes.
const KEYS: &[(&str, &str)] = &[
    ("size", "size_bytes"),
    ("current size", "current_size_bytes"),
    ("original size", "original_size_bytes"),
    ("geometry size", "geometry_size_bytes"),
    ("file size", "file_size_bytes"),
    ("block size", "block_size_bytes"),
    ("cluster size", "cluster_size_bytes"),
    ("logical sector size", "sector_size_bytes"),
    ("physical sector size", "physical_sector_size_bytes"),
    ("extra per block", "block_extra_bytes"),
    ("unique id", "unique_id"),
    ("unique id as GUID", "unique_id_guid"),
    ("table entries", "table_entries"),
    ("parent unique id", "parent_unique_id"),
    ("parent timestamp", "parent_timestamp"),
    ("blocks allocated", "blocks_allocated"),
    ("modification uuid", "modification_uuid"),
    ("parent uuid", "parent_uuid"),
    ("parent modification uuid", "parent_modification_uuid"),
    ("data write GUID", "data_write_guid"),
    ("file write GUID", "file_write_guid"),
    ("parent data write GUID", "parent_data_write_guid"),
    ("header sequence number", "header_sequence_number"),
    ("disk identity", "disk_identity"),
    ("extended L2", "extended_l2"),
    ("lazy refcounts", "lazy_refcounts"),
    ("backing file", "backing_file"),
    ("data file", "data_file"),
    ("in use", "in_use"),
    ("marked empty", "marked_empty"),
];

/// The stable name for a label.
pub(super) fn key(label: &'static str) -> &'static str {
    KEYS.iter().find(|known| known.0 == label).map_or(label, |known| known.1)
}

/// Facts under their stable names.
pub(super) fn of(facts: Vec<(&'static str, Value)>) -> Vec<(&'static str, Fact)> {
    facts.into_iter().map(|(label, value)| (key(label), fact(label, value))).collect()
}

fn fact(label: &'static str, value: Value) -> Fact {
    match value {
        Value::Uint(bytes) if key(label).ends_with("_bytes") => Fact::Bytes(bytes),
        Value::Uint(seconds) if label == "timestamp" => {
            Fact::Time(i64::try_from(seconds).unwrap_or(i64::MAX))
        }
        Value::Uint(number) => Fact::Count(number),
        Value::Text(text) => Fact::Text(text),
        Value::List(list) => Fact::List(list.iter().map(Value::to_string).collect()),
        bytes @ Value::Bytes(_) => Fact::Text(bytes.to_string()),
    }
}
