//! Sizes and moments as people write and read them.

use adit_core::Timestamp;

/// Parses `4096`, `0x1000`, `64K`, `1.5GiB`, `3s` (512-byte sectors) into bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(&hex.replace('_', ""), 16).map_err(|e| e.to_string());
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let unit = unit.trim().to_ascii_lowercase();
    let scale: u64 = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "s" => 512,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return Err(format!("unknown unit {unit:?}; use K, M, G, T, P or s")),
    };
    let number = number.replace('_', "");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).ok_or_else(|| "too large".to_owned());
    }
    let value: f64 = number.parse().map_err(|_| format!("{text:?} is no size"))?;
    Ok((value * scale as f64) as u64)
}

/// `1.5 GiB`, three significant digits.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    let number = format!("{value:.digits$}");
    format!("{} {}", number.strip_suffix(".0").unwrap_or(&number), UNITS[unit])
}

/// `2026-11-20 12:34:56` UTC, or a dash.
pub fn moment(time: Option<Timestamp>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    match time::OffsetDateTime::from_unix_timestamp(time.seconds) {
        Err(_) => time.seconds.to_string(),
        Ok(t) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        ),
    }
}

/// `rwxr-xr-x` with setuid, setgid and sticky as `ls` shows them.
pub fn permissions(mode: u32) -> String {
    let bit = |shift: u32, letter: char| if mode >> shift & 1 == 1 { letter } else { '-' };
    let last = |shift: u32, special: u32, set: char, only: char| match (
        mode >> shift & 1 == 1,
        mode & special != 0,
    ) {
        (true, true) => set,
        (false, true) => only,
        (true, false) => 'x',
        (false, false) => '-',
    };
    [
        bit(8, 'r'),
        bit(7, 'w'),
        last(6, 0o4000, 's', 'S'),
        bit(5, 'r'),
        bit(4, 'w'),
        last(3, 0o2000, 's', 'S'),
        bit(2, 'r'),
        bit(1, 'w'),
        last(0, 0o1000, 't', 'T'),
    ]
    .iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("64K", 65536),
            ("1.5GiB", 3 << 29),
            ("3s", 1536),
            ("2 MB", 2 << 20),
            ("42TiB", 42 << 40),
            ("1_000", 1000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "x", "1Q", "99999999999P", "-1"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_with_at_most_four_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (69 << 30, "69 GiB"),
            (u64::MAX, "16 EiB"),
            (1_048_570, "1 MiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn modes_and_moments_look_like_ls() {
        assert_eq!(permissions(0o1755), "rwxr-xr-t");
        assert_eq!(permissions(0o4644), "rwSr--r--");
        assert_eq!(moment(Some(Timestamp::from_seconds(1_700_000_000))), "2023-11-14 22:13:20");
        assert_eq!(moment(None), "-");
    }
}
