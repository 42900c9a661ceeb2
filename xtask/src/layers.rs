//! Proves that dependencies point downwards only.
//!
//! The rules are those of `ARCHITECTURE.md`: a format depends on `core` alone; tests may use
//! anything.

use crate::run;
use serde_json::Value;

/// Which parts of the tree a part may depend on. Parts are the folders below the root.
const RULES: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("io", &["core"]),
    ("formats", &["core"]),
    ("layers", &["core"]),
    ("open", &["core", "io", "formats", "layers"]),
    // One export may build on another: conversion on copying.
    ("exports", &["core", "io", "formats", "layers", "open", "exports"]),
    ("cli", &["core", "io", "formats", "layers", "open", "exports"]),
    ("testkit", &["core"]),
    ("xtask", &["testkit"]),
    ("fuzz", &["core", "io", "formats", "layers", "open", "exports", "testkit"]),
];

/// Crates from outside that a format may use: pure computation, no input or output.
const PURE: &[&str] = &[
    "crc32fast",
    "libdeflater",
    "lzfse_rust",
    "zune-inflate",
    "zstd",
    "flate2",
    "crc32c",
    "lz4_flex",
    "lzma-rust2",
    "aes",
    "argon2",
    "base64",
    "blake2",
    "ccm",
    "cipher",
    "pbkdf2",
    "ripemd",
    "serde_json",
    "serpent",
    "sha1",
    "sha2",
    "twofish",
    "twox-hash",
    "zeroize",
];

/// Formats whose arithmetic others share: device mapper and Windows place RAID as md does.
const SHARED: &[&str] = &["adit-md"];

/// Checks every crate and gives the number of dependencies looked at.
///
/// Errors: one line for each dependency that points upwards or sideways.
pub fn check() -> Result<usize, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let text = run::output(&cargo, &["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    judge(&metadata, &run::root().display().to_string())
}

fn judge(metadata: &Value, root: &str) -> Result<usize, String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (mut count, mut wrong) = (0, Vec::new());
    for package in list(&metadata["packages"]) {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let part = part_of(manifest, root);
        let Some((_, allowed)) = RULES.iter().find(|(rule, _)| *rule == part) else {
            wrong.push(format!("{name} lies in {part:?}, a part no rule knows"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            if dependency["kind"] == "dev" {
                continue;
            }
            count += 1;
            let target = dependency["name"].as_str().unwrap_or_default();
            match dependency["path"].as_str() {
                Some(_) if part == "formats" && SHARED.contains(&target) => {}
                Some(path) if !allowed.contains(&part_of(path, root).as_str()) => {
                    wrong.push(format!("{name} ({part}) must not depend on {target}"));
                }
                None if part == "formats" && !PURE.contains(&target) => {
                    wrong.push(format!("{name} is a format and must not depend on {target}"));
                }
                _ => {}
            }
        }
    }
    if count == 0 {
        wrong.push("no dependency was found: the check itself is broken".into());
    }
    if wrong.is_empty() { Ok(count) } else { Err(wrong.join("\n")) }
}

fn part_of(path: &str, root: &str) -> String {
    let inside = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
    inside.split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tree_obeys_its_own_rules() {
        let count = check().unwrap();
        assert!(count > 20, "only {count} dependencies were seen");
    }

    fn tree(part: &str, dependency: Value) -> Value {
        json!({ "packages": [{
            "name": "a", "manifest_path": format!("/r/{part}/a/Cargo.toml"),
            "dependencies": [dependency],
        }]})
    }

    #[test]
    fn a_format_that_reaches_sideways_or_up_is_found() {
        for path in ["/r/io", "/r/formats/b", "/r/open", "/r/exports/copy", "/r/cli"] {
            let metadata = tree("formats", json!({ "name": "b", "path": path, "kind": null }));
            assert!(judge(&metadata, "/r").is_err(), "{path}");
        }
        let tokio = tree("formats", json!({ "name": "tokio", "kind": null }));
        assert!(judge(&tokio, "/r").is_err());
        let core = tree("formats", json!({ "name": "adit-core", "path": "/r/core", "kind": null }));
        assert_eq!(judge(&core, "/r"), Ok(1));
    }

    #[test]
    fn a_crate_outside_the_known_parts_is_found() {
        let stray = tree("misc", json!({ "name": "adit-core", "path": "/r/core", "kind": null }));
        assert!(judge(&stray, "/r").is_err());
    }
}
