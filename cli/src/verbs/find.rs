//! `adit find`: files by name, kind, size or age.

use super::{diff, shown};
use crate::args::Find;
use crate::exit;
use crate::output::{self, Out, put_bytes};
use crate::session::{Session, code_of};
use crate::units::{human_bytes, moment, parse_bytes, permissions};
use adit_core::{Error, NodeKind, Problem, Result, Timestamp};
use adit_trees::{Found, Glob, Query};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// Finds what is asked for below one place.
pub fn run(session: &Session, find: &Find) -> u8 {
    let query = match query(find, OffsetDateTime::now_utc()) {
        Ok(query) => query,
        Err(error) => {
            session.fail("understand what to find", &error);
            return exit::USAGE;
        }
    };
    match search(session, find, &query) {
        Ok(code) => code,
        Err(error) => session.fail(&format!("search {}", shown(&find.path)), &error),
    }
}

fn search(session: &Session, find: &Find, query: &Query) -> Result<u8> {
    let place = diff::place(session, &find.path)?;
    let mut out = Out::new();
    let mut code = code_of(&place.notes);
    if session.common.json {
        let (path, notes) = (&place.tree.locator, output::notes_json(&place.notes));
        let header = json!({ "schema": "adit.find/1", "path": path, "notes": notes });
        out.line(header.to_string());
    }
    let limits = &session.opener.options().limits;
    let prefix = place.prefix.as_bytes();
    adit_trees::find(&place.tree, query, limits, &session.interrupt, &mut |found| {
        let (path, found) = match found {
            Ok(found) => (found.path.clone(), Ok(found)),
            Err((path, error)) => (path, Err(error)),
        };
        let full = [prefix, &path].concat();
        match found {
            Err(error) => {
                code = exit::worse(code, exit::PARTIAL);
                let action = format!("search {}", adit_trees::shown(&full));
                output::fail(session.common.json, &action, &error);
            }
            Ok(found) if session.common.json => {
                let mut map = Map::new();
                put_bytes(&mut map, "path", &full);
                map.extend(output::metadata_json(&found.metadata));
                if found.metadata.kind == NodeKind::Symlink
                    && let Ok(target) = place.tree.fs.read_link(found.node)
                {
                    put_bytes(&mut map, "target", &target);
                }
                out.line(Value::Object(map).to_string());
            }
            Ok(_) if find.print0 => {
                out.bytes(&full);
                out.bytes(b"\0");
            }
            Ok(found) if find.long => {
                let target = match found.metadata.kind {
                    NodeKind::Symlink => place.tree.fs.read_link(found.node).ok(),
                    _ => None,
                };
                out.line(long(&found, &full, target.as_deref()));
            }
            Ok(_) => out.line(adit_trees::shown(&full)),
        }
        Ok(())
    })?;
    out.finish();
    Ok(code)
}

/// One line of `-l`. Columns have a fixed width, so that the first is there at once.
fn long(found: &Found, path: &[u8], target: Option<&[u8]>) -> String {
    let m = &found.metadata;
    let size =
        if output::on_terminal() { human_bytes(m.size_bytes) } else { m.size_bytes.to_string() };
    let mut line = format!(
        "{}{} {:>3} {:>9} {size:>12} {:>19} {}",
        m.kind.letter(),
        permissions(m.mode),
        m.links,
        format!("{}:{}", m.uid, m.gid),
        moment(m.modified),
        adit_trees::shown(path)
    );
    if let Some(target) = target {
        line.push_str(" -> ");
        line.push_str(&adit_trees::shown(target));
    }
    line
}

fn query(find: &Find, now: OffsetDateTime) -> Result<Query> {
    let globs = |patterns: &[OsString], fold| -> Result<Vec<Glob>> {
        patterns.iter().map(|pattern| Glob::parse(pattern.as_bytes(), fold)).collect()
    };
    let mut names = globs(&find.name, false)?;
    names.extend(globs(&find.iname, true)?);
    let when = |text: &Option<String>| text.as_deref().map(|text| moment_of(text, now)).transpose();
    Ok(Query {
        names,
        kinds: find.kinds.iter().map(|letter| kind(*letter)).collect::<Result<_>>()?,
        sizes: find.size.iter().map(|text| sizes(text)).collect::<Result<_>>()?,
        newer: when(&find.newer)?,
        older: when(&find.older)?,
        depth_max: find.max_depth,
    })
}

fn wrong(detail: String) -> Error {
    Error::invalid(Problem::BadValue, detail)
}

fn kind(letter: char) -> Result<NodeKind> {
    Ok(match letter {
        'f' => NodeKind::File,
        'd' => NodeKind::Directory,
        'l' => NodeKind::Symlink,
        'b' => NodeKind::BlockDevice,
        'c' => NodeKind::CharDevice,
        'p' => NodeKind::Fifo,
        's' => NodeKind::Socket,
        'r' => NodeKind::RawDevice,
        'y' => NodeKind::System,
        _ => {
            return Err(wrong(format!("there is no kind {letter:?}"))
                .advise("--type takes f, d, l, b, c, p, s, r and y"));
        }
    })
}

fn sizes(text: &str) -> Result<RangeInclusive<u64>> {
    let bytes = |text: &str| {
        parse_bytes(text)
            .map_err(|why| wrong(format!("--size {text}: {why}")).advise("for example --size +10M"))
    };
    Ok(match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(more), _) => bytes(more)?.saturating_add(1)..=u64::MAX,
        // Nothing is smaller than nothing.
        (_, Some(less)) => match bytes(less)?.checked_sub(1) {
            Some(most) => 0..=most,
            #[allow(clippy::reversed_empty_ranges)]
            None => 1..=0,
        },
        _ => bytes(text)?..=bytes(text)?,
    })
}

/// `2026-01-31`, `2026-01-31T12:00:00Z`, `…+01:00`, or `36h`, `2d` before now.
fn moment_of(text: &str, now: OffsetDateTime) -> Result<Timestamp> {
    let moment = match seconds_of(text) {
        Some(seconds) => now.unix_timestamp().checked_sub(seconds).map(Timestamp::from_seconds),
        None => date_of(text),
    };
    moment.ok_or_else(|| {
        wrong(format!("{text:?} is no moment and no time"))
            .advise("for example 2026-01-31T12:00:00Z, 2026-01-31, 90m, 36h, 2d or 3w")
    })
}

fn seconds_of(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        "y" => 31_557_600,
        _ => return None,
    };
    number.parse::<u32>().ok().and_then(|number| i64::from(number).checked_mul(scale))
}

fn date_of(text: &str) -> Option<Timestamp> {
    let (date, clock) = match text.split_once(['T', 't', ' ']) {
        Some((date, clock)) => (date, Some(clock)),
        None => (text, None),
    };
    let digits = |text: &str, length: usize| -> Option<u32> {
        (text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().ok())?
    };
    let small = |text: &str| digits(text, 2).and_then(|number| u8::try_from(number).ok());
    let mut parts = date.splitn(3, '-');
    let year = i32::try_from(digits(parts.next()?, 4)?).ok()?;
    let month = Month::try_from(small(parts.next()?)?).ok()?;
    let date = Date::from_calendar_date(year, month, small(parts.next()?)?).ok()?;
    let Some(clock) = clock else {
        return Some(Timestamp::from_seconds(date.midnight().assume_utc().unix_timestamp()));
    };
    let zone = clock.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = clock.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let (hour, minute, second) =
        (small(parts.next()?)?, small(parts.next()?)?, small(parts.next()?)?);
    let time = Time::from_hms(hour, minute, second).ok()?;
    let offset = match zone {
        "Z" | "z" => UtcOffset::UTC,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let number = |text| small(text).and_then(|number| i8::try_from(number).ok());
            UtcOffset::from_hms(sign * number(hours)?, sign * number(minutes)?, 0).ok()?
        }
    };
    let fraction = fraction.get(..fraction.len().min(9))?;
    let nanos = match fraction.is_empty() {
        true => 0,
        false => digits(&format!("{fraction:0<9}"), 9)?,
    };
    let seconds = PrimitiveDateTime::new(date, time).assume_offset(offset).unix_timestamp();
    Some(Timestamp { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_rfc_3339_has_them_and_as_ages() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        // date -u -d TEXT +%s
        for (text, seconds) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-14t23:13:20+01:00", 1_700_000_000),
            ("2023-11-14 16:43:20-05:30", 1_700_000_000),
            ("2023-11-14", 1_699_920_000),
            ("1969-12-31T23:59:59Z", -1),
            ("100s", 1_799_999_900),
            ("36h", 1_800_000_000 - 129_600),
            ("2d", 1_800_000_000 - 172_800),
        ] {
            assert_eq!(moment_of(text, now).unwrap(), Timestamp::from_seconds(seconds), "{text}");
        }
        assert_eq!(moment_of("2023-11-14T22:13:20.25Z", now).unwrap().nanos, 250_000_000);
        for bad in ["", "yesterday", "2023-02-30", "2023-1-1", "2023-11-14T25:00:00Z", "5", "é"] {
            assert!(moment_of(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_more_less_or_exact() {
        assert_eq!(sizes("+1K").unwrap(), 1025..=u64::MAX);
        assert_eq!(sizes("-1K").unwrap(), 0..=1023);
        assert_eq!(sizes("4096").unwrap(), 4096..=4096);
        assert!(sizes("-0").unwrap().is_empty());
        assert!(sizes("+x").is_err());
    }
}
