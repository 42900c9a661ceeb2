//! One field of the headers at a time, by the name `inspect` gives it.

use super::map::Blocks;
use super::parent::name_field;
use super::state::{State, write};
use crate::footer::Kind;
use crate::layout::{RawFooter, RawHeader};
use crate::write::geometry;
use adit_core::{Error, Problem, Result, Stage};

const FOOTER_FIELDS: &str = "features, timestamp, creator_application, creator_version, \
    creator_os, original_size, geometry, disk_type, unique_id, saved_state, hidden";
const HEADER_FIELDS: &str = "parent_unique_id, parent_timestamp, parent_name, marker";

pub(super) fn modify(map: &Blocks, field: &str, value: &str) -> Result<Vec<Stage>> {
    let mut state = map.state_mut();
    let field = field.strip_prefix("footer ").or(field.strip_prefix("header ")).unwrap_or(field);
    match field {
        "parent_unique_id" | "parent_timestamp" => header_sector(&mut state, field, value),
        "parent_name" => {
            let header = &state.tables()?.header.raw;
            let header = RawHeader { parent_name: name_field(value)?, ..header.clone() };
            let footer = state.footer.clone();
            state.replace_headers(header, footer)
        }
        "marker" => marker(&mut state, number(field, value)?),
        _ => footer(&mut state, field, value),
    }
}

fn header_sector(state: &mut State, field: &str, value: &str) -> Result<Vec<Stage>> {
    let mut raw = state.tables()?.header.raw.clone();
    match field {
        "parent_unique_id" => raw.parent_unique_id = id(value)?,
        _ => raw.parent_timestamp = number(field, value)?,
    }
    Ok(vec![state.replace_header_sector(raw)?])
}

fn marker(state: &mut State, value: u8) -> Result<Vec<Stage>> {
    let tables = state.tables_mut()?;
    let at = tables.table_range().end;
    let Some(batmap) = &mut tables.batmap else {
        return Err(Error::invalid(Problem::Missing, "this image has no batmap, and so no marker"));
    };
    batmap.raw.marker = value;
    let mut bytes = batmap.raw_bytes.clone();
    batmap.raw.write(&mut bytes)?;
    Ok(vec![vec![write(at, bytes)]])
}

fn footer(state: &mut State, field: &str, value: &str) -> Result<Vec<Stage>> {
    let mut raw = state.footer.clone();
    match field {
        "hidden" => raw.hidden = number(field, value)?,
        "saved_state" => raw.saved_state = number(field, value)?,
        // Bit 1 is always set.
        "features" => raw.features = number::<u32>(field, value)? | 2,
        "timestamp" => raw.timestamp = number(field, value)?,
        "original_size" => raw.original_size = number(field, value)?,
        "unique_id" => raw.unique_id = id(value)?,
        "creator_version" => raw.creator_version = number(field, value)?,
        "creator_application" => raw.creator_application = letters(field, value)?,
        "creator_os" => raw.creator_os = letters(field, value)?,
        "geometry" => set_geometry(&mut raw, value)?,
        "disk_type" | "type" => return disk_type(state, value),
        "current_size" | "block_size" | "max_table_entries" => {
            return Err(Error::invalid(Problem::Refused, format!("{field} is not set by hand"))
                .advise("`resize` changes the size; converting changes the block size"));
        }
        _ => {
            return Err(Error::not_found(format!("there is no field {field:?} to change"))
                .advise(format!("there are: {FOOTER_FIELDS}, {HEADER_FIELDS}")));
        }
    }
    check_creator(state, &raw)?;
    state.replace_footer(raw)
}

/// Tools of the tap family look for a batmap, and for a raw parent.
fn check_creator(state: &State, raw: &RawFooter) -> Result<()> {
    let Some(tables) = &state.tables else { return Ok(()) };
    let tap = |raw: &RawFooter| raw.creator_application.starts_with(b"tap");
    let needs = tap(raw) && raw.creator_version >= 0x0001_0002 && tables.batmap.is_none();
    if needs || (tap(raw) && raw.creator_version == 0x0000_0001) {
        let text = "tapdisk of this version writes other bitmaps, or a batmap that is not there";
        return Err(Error::invalid(Problem::Refused, text).advise("version 0x10001 has neither"));
    }
    let raw_parent = state.kind == Kind::Differencing
        && tables.header.raw.parent_unique_id == [0; 16]
        && tap(&state.footer);
    if raw_parent && !tap(raw) {
        let text = "only tapdisk has raw parents; another creator would lose this one";
        return Err(Error::invalid(Problem::Refused, text));
    }
    Ok(())
}

fn disk_type(state: &mut State, value: &str) -> Result<Vec<Stage>> {
    match (state.kind, value) {
        (Kind::Fixed, "2" | "fixed")
        | (Kind::Dynamic, "3" | "dynamic")
        | (Kind::Differencing, "4" | "differencing") => Ok(Vec::new()),
        (Kind::Differencing, "3" | "dynamic") => {
            state.kind = Kind::Dynamic;
            let footer = RawFooter { disk_type: 3, ..state.footer.clone() };
            state.replace_footer(footer)
        }
        (Kind::Dynamic, "4" | "differencing") => {
            Err(Error::invalid(Problem::Refused, "a differencing image needs a parent")
                .advise("set its parent; that makes it one"))
        }
        _ => Err(Error::invalid(Problem::BadValue, format!("it cannot become {value:?}"))
            .advise("convert the image")),
    }
}

fn set_geometry(raw: &mut RawFooter, value: &str) -> Result<()> {
    let bad = || {
        Error::invalid(Problem::BadValue, format!("{value:?} is no geometry"))
            .advise("cylinders/heads/sectors, or auto for the specification's")
    };
    let parsed = if value == "auto" {
        geometry(raw.current_size)
    } else {
        let parts: Vec<&str> = value.split('/').collect();
        let [cylinders, heads, sectors] = parts.as_slice() else { return Err(bad()) };
        let parse = |text: &str| text.parse::<u8>().map_err(|_| bad());
        (cylinders.parse().map_err(|_| bad())?, parse(heads)?, parse(sectors)?)
    };
    (raw.cylinders, raw.heads, raw.sectors) = parsed;
    Ok(())
}

fn number<T: TryFrom<u64>>(field: &str, value: &str) -> Result<T> {
    let parsed = match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    };
    parsed.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        Error::invalid(Problem::BadValue, format!("{value:?} is no number that {field} can hold"))
    })
}

/// Four letters, shorter ones filled with NUL.
fn letters(field: &str, value: &str) -> Result<[u8; 4]> {
    let mut bytes = value.as_bytes().to_vec();
    if bytes.len() > 4 || !value.is_ascii() {
        return Err(Error::invalid(Problem::BadValue, format!("{field} holds four letters")));
    }
    bytes.resize(4, 0);
    <[u8; 4]>::try_from(bytes).map_err(|_| Error::invalid(Problem::BadValue, "four letters"))
}

/// Sixteen bytes in hexadecimal, with or without dashes, in the order in which they stand.
fn id(value: &str) -> Result<[u8; 16]> {
    let digits: Vec<u8> = value.bytes().filter(|b| *b != b'-').collect();
    let bad = || {
        Error::invalid(Problem::BadValue, format!("{value:?} is no identity"))
            .advise("32 hexadecimal digits, as `info` prints them")
    };
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(bad());
    }
    let text = std::str::from_utf8(&digits).map_err(|_| bad())?;
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_printed() {
        let bytes = id("01020304-0506-0708-090a-0b0c0d0e0f10").unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert!(id("0102").is_err());
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert_eq!(number::<u8>("hidden", "0x1").unwrap(), 1);
        assert!(number::<u8>("hidden", "256").is_err());
        assert!(number::<u8>("hidden", "x").is_err());
    }
}
