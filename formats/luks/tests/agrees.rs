//! LUKS agrees… with cryptsetup and QEMU on every byte of what they encrypted.

mod common;

use adit_core::Limits;
use adit_luks::{Luks, probe};
use common::{Dir, SECRET, SIZE, disk, noise, whole};

fn open(image: &[u8]) -> Luks {
    assert!(probe(&disk(image)).unwrap());
    Luks::open(disk(image), &Limits::default()).unwrap()
}

/// QEMU takes seconds for each image, so each has a test of its own.
fn agrees_with_qemu(options: &str) {
    let plain = noise(1, SIZE);
    let luks = open(&Dir::new().by_qemu(&plain, options));
    assert_eq!(luks.version(), 1);
    assert!(whole(&luks.unlock(SECRET).unwrap()) == plain, "{options}");
}

#[test]
fn a_luks1_image_of_qemu_in_aes_xts() {
    agrees_with_qemu("cipher-alg=aes-128,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha256");
}

#[test]
fn a_luks1_image_of_qemu_in_serpent_xts() {
    agrees_with_qemu("cipher-alg=serpent-256,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha512");
}

#[test]
fn a_luks1_image_of_qemu_in_twofish_cbc() {
    agrees_with_qemu("cipher-alg=twofish-256,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=ripemd160");
}

#[test]
fn luks2_disks_that_cryptsetup_encrypted() {
    let dir = Dir::new();
    let plain = noise(2, SIZE);
    let light = ["--pbkdf-force-iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "2"];
    let argon2 = |kind| [&["--type", "luks2", "--pbkdf", kind][..], &light].concat();
    let pbkdf2 = ["--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    let cases: [Vec<&str>; 6] = [
        argon2("argon2id"),
        argon2("argon2i"),
        pbkdf2.to_vec(),
        [&pbkdf2[..], &["--sector-size", "4096"]].concat(),
        [&pbkdf2[..], &["--cipher", "aes-cbc-essiv:sha256", "--key-size", "128"]].concat(),
        [&pbkdf2[..], &["--hash", "sha512", "--sector-size", "1024"]].concat(),
    ];
    for args in cases {
        let luks = open(&dir.encrypted(&plain, &args));
        assert_eq!((luks.version(), luks.notes().len()), (2, 0));
        let disk = luks.unlock(SECRET).unwrap();
        let read = whole(&disk);
        assert!(read[..SIZE] == plain, "{args:?}");
    }
}

#[test]
fn luks1_containers_of_cryptsetup_as_qemu_reads_them() {
    let dir = Dir::new();
    let cases = [
        ["--cipher", "aes-xts-plain64", "--key-size", "512", "--hash", "sha256"],
        ["--cipher", "aes-cbc-essiv:sha256", "--key-size", "256", "--hash", "sha1"],
        ["--cipher", "aes-cbc-plain64", "--key-size", "128", "--hash", "sha512"],
    ];
    for args in cases {
        let light = ["--type", "luks1", "--pbkdf-force-iterations", "1000"];
        let image = dir.formatted(&[&light[..], &args].concat());
        let read = whole(&open(&image).unlock(SECRET).unwrap());
        assert!(read == dir.read_by_qemu(&image), "{args:?}");
    }
}

#[test]
fn a_header_that_stands_on_a_disk_of_its_own() {
    let dir = Dir::new();
    let plain = noise(4, SIZE);
    let (header, data) = (dir.path("header"), dir.write("data", &plain));
    let header_text = header.to_str().unwrap().to_owned();
    let args = ["reencrypt", "--encrypt", "--type", "luks2", "--pbkdf", "pbkdf2"];
    let more = ["--pbkdf-force-iterations", "1000", "--header", &header_text];
    dir.cryptsetup(&[&args[..], &more].concat(), &[&data]);
    let (header, data) = (disk(&dir.read("header")), disk(&dir.read("data")));
    assert!(!probe(&data).unwrap());
    let luks = Luks::open_detached(header, data, &Limits::default()).unwrap();
    assert!(whole(&luks.unlock(SECRET).unwrap()) == plain);
}

#[test]
fn any_of_several_keyslots() {
    let dir = Dir::new();
    for kind in ["luks1", "luks2"] {
        let light = ["--pbkdf-force-iterations", "1000", "--pbkdf", "pbkdf2"];
        dir.formatted(&[&["--type", kind][..], &light].concat());
        let second = dir.write("second", b"\x00binary\nkey\xff");
        let image = dir.path("image");
        dir.cryptsetup(&[&["luksAddKey"][..], &light].concat(), &[&image, &second]);
        let luks = open(&dir.read("image"));
        let [a, b] = [SECRET, b"\x00binary\nkey\xff"].map(|s| whole(&luks.unlock(s).unwrap()));
        assert!(a == b, "{kind}");
    }
}
