//! Registry files, made here byte by byte from their description.

use adit_core::{Kind, MemoryDisk, Result};
use adit_os::{Hive, Value};

mod common;

use common::{Made, expand, number, sz};

fn sample() -> Made {
    let mut hive = Made::new();
    let long: String = "long text ".repeat(4000);
    hive.value("Software\\Tool", "Name", 1, &sz("Tool é"));
    hive.value("Software\\Tool", "Small", 1, &sz("x"));
    hive.value("Software\\Tool", "", 1, &sz("unnamed"));
    hive.value("Software\\Tool", "Number", 4, &number(7));
    hive.value("Software\\Tool", "Big", 11, &(1u64 << 40).to_le_bytes());
    hive.value("Software\\Tool", "List", 7, &expand(&["one", "two"]));
    hive.value("Software\\Tool", "Raw", 3, &[1, 2, 3, 4, 5]);
    hive.value("Software\\Tool", "Long", 1, &sz(&long));
    for n in 0..700 {
        hive.value(&format!("Many\\Key{n:03}"), "n", 4, &number(n));
    }
    hive
}

fn open(bytes: Vec<u8>) -> Result<Hive> {
    Hive::open(MemoryDisk::open("hive", bytes))
}

#[test]
fn values_of_every_type_are_read_whatever_the_case_of_their_path() {
    let hive = open(sample().bytes()).unwrap();
    let value = |name: &str| hive.value("SOFTWARE\\tool", name).unwrap();
    assert_eq!(value("name"), Some(Value::Text("Tool é".into())));
    assert_eq!(value("small"), Some(Value::Text("x".into())));
    assert_eq!(value(""), Some(Value::Text("unnamed".into())));
    assert_eq!(value("NUMBER"), Some(Value::Number(7)));
    assert_eq!(value("Big"), Some(Value::Number(1 << 40)));
    assert_eq!(value("List"), Some(Value::List(vec!["one".into(), "two".into()])));
    assert_eq!(value("Raw"), Some(Value::Bytes(vec![1, 2, 3, 4, 5])));
    let long = value("Long").unwrap();
    assert_eq!(long.text().map(str::len), Some(40_000), "data in several segments");
    assert_eq!(value("none"), None);
    assert_eq!(hive.value("no\\such", "name").unwrap(), None);
    assert!(hive.is_settled());
}

#[test]
fn a_key_with_lists_of_lists_gives_all_its_keys() {
    let hive = open(sample().bytes()).unwrap();
    let key = hive.key("Many").unwrap().unwrap();
    let names: Vec<String> = key.children().unwrap().iter().map(|key| key.name()).collect();
    assert_eq!(names.len(), 700);
    assert!(names.iter().enumerate().all(|(n, name)| *name == format!("Key{n:03}")));
    assert_eq!(hive.value("Many\\key699", "N").unwrap(), Some(Value::Number(699)));
}

#[test]
fn a_hive_that_was_being_written_says_so() {
    let mut bytes = sample().bytes();
    bytes[8] ^= 1;
    assert!(!open(bytes).unwrap().is_settled());
    assert_eq!(open(vec![0; 8192]).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(open(Vec::new()).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn no_damage_makes_it_panic_or_loop() {
    let bytes = sample().bytes();
    let walk = |bytes: Vec<u8>| -> Result<()> {
        let hive = open(bytes)?;
        let mut todo = vec![(hive.root()?, 0)];
        let mut steps = 0;
        while let Some((key, depth)) = todo.pop() {
            steps += 1;
            if steps > 2000 || depth > 5 {
                break;
            }
            let _ = key.values();
            todo.extend(key.children().unwrap_or_default().into_iter().map(|k| (k, depth + 1)));
        }
        Ok(())
    };
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..300 {
        let mut broken = bytes.clone();
        for _ in 0..8 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = 4096 + (seed % 60_000) as usize;
            broken[at] = (seed >> 32) as u8;
        }
        let _ = walk(broken);
    }
    for length in [100, 600, 4096, 4200, 9000] {
        let _ = walk(bytes[..length].to_vec());
    }
}
