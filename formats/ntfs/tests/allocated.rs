//! Which clusters NTFS says are in use, on a volume made byte by byte.

mod common;

use adit_core::{Kind, Result};
use common::{CLUSTER, CLUSTERS, Image, record, resident, sample, standard};
use std::ops::Range;

fn allocated(image: &Image) -> Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    image.open()?.allocated(&mut |range| {
        ranges.push(range);
        Ok(())
    })?;
    Ok(ranges)
}

#[test]
fn set_bits_are_ranges_and_the_backup_boot_sector_is_one_more() {
    // The sample's bitmap marks the first four clusters of every eight.
    let mut expected: Vec<Range<u64>> = (0..CLUSTERS as u64)
        .step_by(8)
        .map(|first| first * CLUSTER as u64..(first + 4) * CLUSTER as u64)
        .collect();
    let end = (CLUSTERS * CLUSTER) as u64;
    expected.push(end..end + 512);
    assert_eq!(allocated(&sample()).unwrap(), expected);
}

#[test]
fn the_boot_sector_is_in_use_though_the_bitmap_marks_nothing() {
    let mut image = sample();
    let bitmap = vec![0; CLUSTERS / 8];
    image.record(6, record(1, 0, &[standard(6), resident(0x80, "", 0, &bitmap)]));
    assert_eq!(allocated(&image).unwrap()[0], 0..CLUSTER as u64);
}

#[test]
fn a_bitmap_that_may_be_out_of_date_is_refused() {
    let refused = |image: &Image, why: &str| {
        let error = allocated(image).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.detail().contains(why), "{error}");
    };
    let mut dirty = sample();
    let version = [&[0; 8][..], &[3, 1, 1, 0]].concat();
    dirty.record(3, record(1, 0, &[standard(6), resident(0x70, "", 0, &version)]));
    refused(&dirty, "marked dirty");

    let mut log = sample();
    let at = log.bytes.windows(32768).position(|w| w.iter().all(|&b| b == 0xff)).unwrap();
    log.bytes[at..at + 32768].fill(0);
    refused(&log, "$LogFile cannot be read");

    let mut shadow = sample();
    // 3808876B-C176-4E48-B7AE-04046E6CC752
    let bytes = [
        &0x3808_876b_u32.to_le_bytes()[..],
        &0xc176_u16.to_le_bytes(),
        &0x4e48_u16.to_le_bytes(),
        &0xb7ae_0404_6e6c_c752_u64.to_be_bytes(),
    ]
    .concat();
    shadow.bytes[0x1e00..0x1e10].copy_from_slice(&bytes);
    assert!(allocated(&shadow).is_ok(), "no catalogue any more");
    shadow.bytes[0x1e30] = 1;
    refused(&shadow, "shadow copies");
}

#[test]
fn a_bitmap_that_is_too_short_is_corrupt() {
    let mut image = sample();
    image.record(6, record(1, 0, &[standard(6), resident(0x80, "", 0, &[0xff])]));
    assert_eq!(allocated(&image).unwrap_err().kind(), Kind::Corrupt);
}
