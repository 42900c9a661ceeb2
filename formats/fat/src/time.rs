//! Dates and times of DOS: fields of a calendar, in whatever zone the writer's clock had.

use adit_core::Timestamp;

/// A date and a time, in 2-second steps, plus hundredths of a second.
///
/// FAT knows no zone: what it says is taken for UTC. Nothing for a date that is no date.
pub(crate) fn moment(date: u16, time: u16, fine: u8) -> Option<Timestamp> {
    let (year, month, day) = (i64::from(date >> 9), i64::from((date >> 5) & 15), date & 31);
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let (hour, minute, second) = (time >> 11, (time >> 5) & 63, time & 31);
    if hour > 23 || minute > 59 || second > 29 || fine > 199 {
        return None;
    }
    let days = days_from_civil(year.saturating_add(1980), month, day.into());
    let fine = u32::from(fine);
    let seconds = days
        .saturating_mul(86_400)
        .saturating_add(i64::from(hour).saturating_mul(3600))
        .saturating_add(i64::from(minute).saturating_mul(60))
        .saturating_add(i64::from(second).saturating_mul(2))
        .saturating_add(i64::from(fine / 100));
    Some(Timestamp { seconds, nanos: (fine % 100).saturating_mul(10_000_000) })
}

/// A moment of exFAT: date and time in one, hundredths, and the zone where it is known.
pub(crate) fn zoned(stamp: u32, fine: u8, zone: u8) -> Option<Timestamp> {
    let (date, time) = (u16::try_from(stamp >> 16).ok()?, u16::try_from(stamp & 0xffff).ok()?);
    let mut moment = moment(date, time, fine)?;
    if zone & 0x80 != 0 {
        // Seven bits, signed, in quarters of an hour.
        let quarters = i64::from((zone << 1).cast_signed() >> 1);
        moment.seconds = moment.seconds.saturating_sub(quarters.saturating_mul(900));
    }
    Some(moment)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, from 1980 on.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
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
    fn dates_are_those_of_the_calendar() {
        // date -u -d '1980-01-01' +%s and so on.
        let date = |year: u16, month: u16, day: u16| ((year - 1980) << 9) | (month << 5) | day;
        let at = |date, time, fine| moment(date, time, fine).unwrap();
        assert_eq!(at(date(1980, 1, 1), 0, 0).seconds, 315_532_800);
        assert_eq!(at(date(2000, 2, 29), 0, 0).seconds, 951_782_400);
        assert_eq!(at(date(2107, 12, 31), 0, 0).seconds, 4_354_732_800);
        let late = at(date(2024, 2, 29), (23 << 11) | (59 << 5) | 29, 199);
        assert_eq!((late.seconds, late.nanos), (1_709_251_199, 990_000_000));
        assert_eq!(moment(0, 0, 0), None);
        assert_eq!(moment(date(2000, 13, 1), 0, 0), None);
    }

    #[test]
    fn a_zone_is_taken_off() {
        let stamp = u32::from((20u16 << 9) | (1 << 5) | 1) << 16;
        let plain = zoned(stamp, 0, 0).unwrap().seconds;
        assert_eq!(zoned(stamp, 0, 0x84).unwrap().seconds, plain - 3600);
        assert_eq!(zoned(stamp, 0, 0xe0).unwrap().seconds, plain + 8 * 3600);
    }
}
