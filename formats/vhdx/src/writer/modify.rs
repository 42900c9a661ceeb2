//! One field of the headers or of the metadata at a time.

use super::create::{OF_THE_DISK, REQUIRED, identifier};
use super::items::Items;
use super::map::Blocks;
use super::parent::put_flags;
use super::state::{FULL, write};
use crate::layout::{ITEM_PAGE_83, RawHeader};
use crate::locator::parse_guid;
use crate::metadata::Metadata;
use adit_core::{Error, Problem, Result, Stage};

const FIELDS: &str =
    "creator, virtual_disk_id, leave_blocks_allocated, data_write_guid, file_write_guid";
/// Flag of the file parameters.
const LEAVE_BLOCKS_ALLOCATED: u32 = 1;

/// A new DataWriteGuid, if there is none since the image was opened.
pub(super) fn become_another(map: &Blocks) -> Result<Vec<Stage>> {
    if !map.become_another() {
        return Ok(Vec::new());
    }
    let mut state = map.state_mut();
    let data_write_guid = super::journal::random_guid();
    let raw = RawHeader { data_write_guid, ..state.journal.raw.clone() };
    state.journal.replace(raw)
}

pub(super) fn modify(map: &Blocks, field: &str, value: &str) -> Result<Vec<Stage>> {
    match field {
        "creator" => creator(value),
        "virtual_disk_id" | "page_83" => disk_id(map, value),
        "leave_blocks_allocated" => fixed(map, value),
        "data_write_guid" | "file_write_guid" => header(map, field, value),
        "logical_sector_size" | "physical_sector_size" | "block_size" | "size" => {
            Err(Error::invalid(Problem::Refused, format!("{field} is not set by hand"))
                .advise("`resize` changes the size; the others take a new image"))
        }
        _ => Err(Error::not_found(format!("there is no field {field:?} to change"))
            .advise(format!("there are: {FIELDS}"))),
    }
}

/// The name in the identifier, which stands outside of log and metadata.
fn creator(value: &str) -> Result<Vec<Stage>> {
    let mut bytes = identifier(value);
    // The last of its bytes are in another sector, and so not written with the others at once.
    if value.encode_utf16().count() > 251 || bytes.len() != 520 {
        return Err(Error::invalid(Problem::OutOfRange, "a creator has at most 251 characters"));
    }
    bytes.truncate(512);
    Ok(vec![vec![write(0, bytes)], vec![write(512, vec![0; 8])]])
}

fn disk_id(map: &Blocks, value: &str) -> Result<Vec<Stage>> {
    let id = guid(value)?;
    let mut state = map.state_mut();
    let mut items = Items::read(&**map.file_disk(), &state.regions.metadata)?;
    items.put(ITEM_PAGE_83, REQUIRED | OF_THE_DISK, &id)?;
    state.metadata.page_83 = Some(id);
    let end = state.space.end;
    state.journal.change(&items.pages(), end)
}

fn fixed(map: &Blocks, value: &str) -> Result<Vec<Stage>> {
    let fixed = match value {
        "1" | "true" | "yes" => true,
        "0" | "false" | "no" => false,
        _ => return Err(Error::invalid(Problem::BadValue, format!("{value:?} is not 0 or 1"))),
    };
    let mut state = map.state_mut();
    if fixed {
        let all = (0..state.shape.blocks).all(|block| state.block(block).0 == FULL);
        if !all || state.metadata.parent.is_some() {
            let text = "only an image all of whose blocks are there can keep them";
            return Err(Error::invalid(Problem::Refused, text).advise("convert it to a fixed one"));
        }
    }
    let mut items = Items::read(&**map.file_disk(), &state.regions.metadata)?;
    let (set, clear) =
        if fixed { (LEAVE_BLOCKS_ALLOCATED, 0) } else { (0, LEAVE_BLOCKS_ALLOCATED) };
    put_flags(&mut items, set, clear)?;
    state.metadata = Metadata { fixed, ..state.metadata.clone() };
    let end = state.space.end;
    state.journal.change(&items.pages(), end)
}

fn header(map: &Blocks, field: &str, value: &str) -> Result<Vec<Stage>> {
    let id = guid(value)?;
    let mut state = map.state_mut();
    let mut raw = state.journal.raw.clone();
    match field {
        "data_write_guid" => raw.data_write_guid = id,
        _ => raw.file_write_guid = id,
    }
    state.journal.replace(raw)
}

fn guid(value: &str) -> Result<[u8; 16]> {
    parse_guid(value)
        .ok_or_else(|| Error::invalid(Problem::BadValue, format!("{value:?} is no GUID")))
}
