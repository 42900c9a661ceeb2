//! Dates and times: seven bytes in records, seventeen in descriptors.

use adit_core::Timestamp;

/// A moment of a directory record; nothing where all is zero or no date.
pub(crate) fn short(bytes: &[u8]) -> Option<Timestamp> {
    let [year, month, day, hour, minute, second, zone, ..] = *bytes else { return None };
    let year = i64::from(year).saturating_add(1900);
    let parts = [month, day, hour, minute, second].map(i64::from);
    moment(year, parts, zone.cast_signed(), 0)
}

/// A moment of a descriptor: digits, then the zone.
pub(crate) fn long(bytes: &[u8]) -> Option<Timestamp> {
    let digits = bytes.get(..16)?;
    let zone = bytes.get(16)?.cast_signed();
    let number = |range: std::ops::Range<usize>| {
        std::str::from_utf8(digits.get(range)?).ok()?.parse::<i64>().ok()
    };
    let parts = [number(4..6)?, number(6..8)?, number(8..10)?, number(10..12)?, number(12..14)?];
    moment(number(0..4)?, parts, zone, number(14..16)?)
}

fn moment(year: i64, parts: [i64; 5], zone: i8, hundredths: i64) -> Option<Timestamp> {
    let [month, day, hour, minute, second] = parts;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second)
        && year > 0;
    if !valid {
        return None;
    }
    let seconds = days(year, month, day)
        .saturating_mul(86_400)
        .saturating_add(hour.saturating_mul(3600))
        .saturating_add(minute.saturating_mul(60))
        .saturating_add(second)
        // Quarters of an hour ahead of UTC.
        .saturating_sub(i64::from(zone).saturating_mul(900));
    let nanos = u32::try_from(hundredths.clamp(0, 99)).ok()?.saturating_mul(10_000_000);
    Some(Timestamp { seconds, nanos })
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that start in March put the leap day last.
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let month = month.saturating_add(9) % 12;
    let of_year = month.saturating_mul(153).saturating_add(2) / 5;
    year.saturating_mul(365)
        .saturating_add(year / 4)
        .saturating_sub(year / 100)
        .saturating_add(year / 400)
        .saturating_add(of_year)
        .saturating_add(day)
        .saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar_less_their_zone() {
        // date -u -d '2024-02-29 12:34:56' +%s
        let utc = 1_709_210_096;
        assert_eq!(short(&[124, 2, 29, 12, 34, 56, 0]).unwrap().seconds, utc);
        assert_eq!(short(&[124, 2, 29, 14, 34, 56, 8]).unwrap().seconds, utc);
        assert_eq!(short(&[124, 2, 29, 7, 34, 56, 0xec]).unwrap().seconds, utc);
        assert_eq!(short(&[0; 7]), None);
        let long = long(b"2024022912345678\0").unwrap();
        assert_eq!((long.seconds, long.nanos), (utc, 780_000_000));
        assert_eq!(super::long(b"0000000000000000\0"), None);
        assert_eq!(short(&[70, 1, 1, 0, 0, 0, 0]).unwrap().seconds, 0);
    }
}
