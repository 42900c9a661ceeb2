//! Filters as text: `retry:tries=5,wait=1s`.

use crate::{Cache, Delay, Faults, Filter, Log, Op, RateLimit, Readahead, Retry, Sink, What};
use adit_core::{Error, Kind, Problem, Result};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Every filter and its options, for messages and manuals.
const FILTERS: &[(&str, &str)] = &[
    ("retry", "tries=N (0: without end), wait=TIME, wait-max=TIME"),
    ("cache", "size=BYTES, block=BYTES"),
    ("readahead", "window=BYTES, windows=N"),
    ("ratelimit", "bytes=BYTES, ops=N (per second; 0: any number)"),
    ("delay", "read=TIME, write=TIME, flush=TIME"),
    (
        "error",
        "every=N, count=N, ops=read+write+zero+discard+flush+look, range=FROM-TO, kind=io|lost|corrupt|busy|full",
    ),
    ("log", "no options"),
];

/// Longest text that is read. Unit: bytes.
const TEXT_BYTES_MAX: usize = 4096;

impl Filter {
    /// Reads `NAME` or `NAME:KEY=VALUE,KEY=VALUE`. Sizes take K, M, G, T; times take ms, s, m.
    /// The log filter tells `sink`.
    ///
    /// Errors: `Invalid`, with the names or keys there are.
    pub fn parse(text: &str, sink: &Arc<dyn Sink>) -> Result<Filter> {
        let (name, options) = text.split_once(':').unwrap_or((text, ""));
        let Some((name, known)) = FILTERS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = FILTERS.iter().map(|(name, _)| *name).collect();
            return Err(bad(format!("there is no filter {:?}", short(name)))
                .advise(format!("filters are {}", names.join(", "))));
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(bad(format!("the options of {name} are too long")));
        }
        let options = Options { filter: name, known, pairs: pairs(name, known, options)? };
        match *name {
            "retry" => options.retry(),
            "cache" => options.cache(),
            "readahead" => options.readahead(),
            "ratelimit" => {
                let [bytes, ops] = options.take(["bytes", "ops"])?;
                let bytes = options.or(bytes, 0, size)?;
                Ok(Filter::RateLimit(Arc::new(RateLimit::new(bytes, options.or(ops, 0, number)?))))
            }
            "delay" => {
                let keys = options.take(["read", "write", "flush"])?;
                let [read, write, flush] =
                    keys.map(|value| options.or(value, Duration::ZERO, duration));
                Ok(Filter::Delay(Arc::new(Delay { read: read?, write: write?, flush: flush? })))
            }
            "error" => options.error(),
            _ => {
                let [] = options.take([])?;
                Ok(Filter::Log(Log(Arc::clone(sink))))
            }
        }
    }
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

fn pairs<'a>(name: &str, known: &str, options: &'a str) -> Result<Pairs<'a>> {
    let mut pairs: Pairs<'a> = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').ok_or_else(|| {
            bad(format!("{:?} of {name} is not KEY=VALUE", short(option)))
                .advise(format!("{name} takes {known}"))
        })?;
        if key != "range" && pairs.iter().any(|(before, _)| *before == key) {
            return Err(bad(format!("{:?} of {name} is given twice", short(key))));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

struct Options<'a> {
    filter: &'a str,
    known: &'a str,
    pairs: Pairs<'a>,
}

impl<'a> Options<'a> {
    /// The values of these keys, which are all there may be.
    fn take<const N: usize>(&self, keys: [&str; N]) -> Result<[Option<&'a str>; N]> {
        if let Some((stray, _)) = self.pairs.iter().find(|(key, _)| !keys.contains(key)) {
            return Err(bad(format!("{} has no option {:?}", self.filter, short(stray)))
                .advise(format!("{} takes {}", self.filter, self.known)));
        }
        let value = |key| self.pairs.iter().find(|(known, _)| *known == key);
        Ok(keys.map(|key| value(key).map(|(_, value)| *value)))
    }

    fn or<T>(
        &self,
        value: Option<&str>,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let Some(text) = value else { return Ok(default) };
        parse(text).ok_or_else(|| {
            bad(format!("{:?} is no value for {}", short(text), self.filter))
                .advise(format!("{} takes {}", self.filter, self.known))
        })
    }

    fn retry(&self) -> Result<Filter> {
        let default = Retry::default();
        let [tries, wait, most] = self.take(["tries", "wait", "wait-max"])?;
        let tries = self.or(tries, default.tries, |text| text.parse().ok())?;
        let wait = self.or(wait, default.wait, duration)?;
        let most = self.or(most, default.wait_max.max(wait), duration)?;
        Ok(Filter::Retry(Arc::new(Retry::new(tries, wait, most))))
    }

    fn cache(&self) -> Result<Filter> {
        let default = Cache::default();
        let [size_bytes, block] = self.take(["size", "block"])?;
        let size_bytes = self.or(size_bytes, default.size_bytes, size)?;
        let block = self.or(block, default.block_bytes.into(), size)?;
        let block_bytes =
            u32::try_from(block).ok().filter(|block| (512..=16 << 20).contains(block));
        let block_bytes =
            block_bytes.ok_or_else(|| bad("a cache block has 512 bytes to 16 MiB"))?;
        Ok(Filter::Cache(Cache { size_bytes, block_bytes }, Arc::default()))
    }

    fn readahead(&self) -> Result<Filter> {
        let default = Readahead::default();
        let [window, windows] = self.take(["window", "windows"])?;
        let window = self.or(window, default.window_bytes.into(), size)?;
        let window_bytes =
            u32::try_from(window).ok().filter(|window| (4096..=64 << 20).contains(window));
        let window_bytes =
            window_bytes.ok_or_else(|| bad("a readahead window has 4 KiB to 64 MiB"))?;
        let windows = self.or(windows, default.windows, |text| text.parse().ok())?;
        Ok(Filter::Readahead(Readahead { window_bytes, windows }))
    }

    fn error(&self) -> Result<Filter> {
        let default = What::default();
        let [every, count, ops, _, kind] = self.take(["every", "count", "ops", "range", "kind"])?;
        let every = self.or(every, 1, |text| number(text).filter(|&every| every > 0))?;
        let count = self.or(count, 0, number)?;
        let ops = self.or(ops, default.ops, |text| {
            text.split('+').map(|word| Op::ALL.into_iter().find(|op| op.word() == word)).collect()
        })?;
        let (kind, os_code) = self.or(kind, (Kind::Io, Some(5)), |text| {
            Some(match text {
                "io" => (Kind::Io, Some(5)),
                "full" => (Kind::Io, Some(28)),
                "lost" => (Kind::Lost, None),
                "corrupt" => (Kind::Corrupt, None),
                "busy" => (Kind::Busy, None),
                _ => return None,
            })
        })?;
        let named = self.pairs.iter().filter(|(key, _)| *key == "range");
        let ranges = named
            .map(|(_, value)| self.or(Some(value), 0..0, range))
            .collect::<Result<Vec<_>>>()?;
        Ok(Filter::Error(Arc::new(Faults::new(What { every, ops, ranges, kind, os_code, count }))))
    }
}

fn bad(detail: impl Into<String>) -> Error {
    Error::invalid(Problem::BadValue, detail)
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn size(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok();
    }
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number = number.parse::<u64>().ok()?;
    let most = Duration::from_secs(24 * 3600);
    let duration = match unit {
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" | "" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        _ => return None,
    };
    (duration <= most).then_some(duration)
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once('-')?;
    let range = size(from)?..size(to)?;
    (range.start < range.end).then_some(range)
}
