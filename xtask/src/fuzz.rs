//! Runs the fuzz targets on stable Rust.

use crate::run::{self, command, have};

/// Runs every target, or the one named, for some seconds each.
pub fn run(arguments: &[&str]) -> Result<(), String> {
    let seconds: u64 = arguments
        .first()
        .map_or(Ok(60), |text| text.parse())
        .map_err(|_| "the first argument is a number of seconds")?;
    if !have("cargo-fuzz") {
        run::cargo(&["install", "--locked", "cargo-fuzz"])?;
    }
    let listed = run::output("cargo", &["fuzz", "list", "--fuzz-dir", "fuzz"])?;
    let listed = String::from_utf8_lossy(&listed);
    let wanted = arguments.get(1);
    let mut found = 0;
    for target in listed.lines().filter(|target| wanted.is_none_or(|wanted| wanted == target)) {
        found += 1;
        let time = format!("-max_total_time={seconds}");
        // No sanitizer: they need nightly, and the code is safe Rust. libFuzzer bounds the memory.
        let fixed = ["fuzz", "run", "--fuzz-dir", "fuzz", "-s", "none", target, "--"];
        let bounds = [time.as_str(), "-rss_limit_mb=256", "-timeout=30", "-max_len=1048576"];
        command("cargo", &[&fixed[..], &bounds[..]].concat())?;
    }
    if found == 0 { Err(format!("no fuzz target {wanted:?}")) } else { Ok(()) }
}
