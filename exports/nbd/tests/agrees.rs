//! Agreement with QEMU: its client against our server, our client against its server.

mod doubles;

use adit_core::{Disk, DiskExt, Extents};
use adit_nbd::{ClientOptions, Export, NbdDisk};
use doubles::{Board, Served, noise, serve};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Runs a program that every test machine has; without it the test fails.
fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|why| panic!("{program} is needed for this test: {why}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    output
}

/// 64 MiB with data at three places.
fn image(folder: &Path) -> PathBuf {
    let path = folder.join("disk.img");
    let file = File::create(&path).unwrap();
    file.set_len(64 * MIB).unwrap();
    for (place, length) in [(0, 1), (10, 7), (63, 1)] {
        file.write_all_at(&noise(place + 1, (length * MIB) as usize), place * MIB).unwrap();
    }
    path
}

fn serve_image(folder: &Path) -> (Served, PathBuf) {
    let path = image(folder);
    let disk = adit_io::open(&path, &adit_io::ReadPolicy::default()).unwrap();
    (serve(vec![Export::read_only("disk", disk)]), path)
}

#[test]
fn qemu_img_copies_compares_and_maps_what_we_serve() {
    let folder = tempfile::tempdir().unwrap();
    let (served, path) = serve_image(folder.path());
    let (uri, path) = (served.uri("disk"), path.to_str().unwrap().to_owned());
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &path, &uri]);
    let copy = folder.path().join("copy.qcow2");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, copy.to_str().unwrap()]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", &path, copy.to_str().unwrap()]);
    let map = run("qemu-img", &["map", "-f", "raw", "--output=json", &uri]).stdout;
    let own = run("qemu-img", &["map", "-f", "raw", "--output=json", &path]).stdout;
    // `present` speaks of the layer, where a file and a socket differ; the rest must agree.
    let places = |text: &[u8]| -> Vec<String> {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let field = |line: &str, name: &str| {
            let rest = line.split_once(name).unwrap().1;
            rest[..rest.find([',', '}']).unwrap()].to_owned()
        };
        let names = ["\"start\":", "\"length\":", "\"zero\":", "\"data\":"];
        text.lines()
            .filter(|line| line.contains("start"))
            .map(|line| names.map(|name| field(line, name)).concat())
            .collect()
    };
    assert_eq!(places(&map), places(&own));
    assert_eq!(places(&map).len(), 5);
}

#[test]
fn qemu_io_reads_odd_ranges_and_may_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = serve_image(folder.path());
    let uri = served.uri("disk");
    let commands = ["-r", "-f", "raw", "-c", "read -P 0 1M 9M", "-c", "read 1 4095", "-c", "flush"];
    let output = run("qemu-io", &[&commands[..], &[&uri]].concat());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("failed"));
    let denied = Command::new("qemu-io").args(["-f", "raw", "-c", "write 0 512", &uri]).output();
    assert!(!denied.unwrap().status.success(), "opened for writing");
}

#[test]
fn qemu_io_writes_zeroes_and_discards_what_we_serve_writable() {
    let board = Arc::new(Board::new(vec![1; 8 << 20]));
    let served = serve(vec![Export::writable("disk", board.clone()).with_fast_zeroes()]);
    let uri = served.uri("disk");
    let commands = [
        "-f",
        "raw",
        "-c",
        "write -P 7 1M 2M",
        "-c",
        "write -z 4M 1M",
        "-c",
        "discard 6M 1M",
        "-c",
        "write -f -P 9 5M 4k",
        "-c",
        "read -P 7 1M 2M",
        "-c",
        "read -P 0 4M 1M",
        "-c",
        "flush",
    ];
    let output = run("qemu-io", &[&commands[..], &[&uri]].concat());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("failed"));
    let bytes = board.bytes.lock().unwrap();
    let all = |range: std::ops::Range<u64>, byte| {
        bytes[range.start as usize..range.end as usize].iter().all(|b| *b == byte)
    };
    assert!(all(0..MIB, 1) && all(MIB..3 * MIB, 7) && all(3 * MIB..4 * MIB, 1));
    assert!(all(4 * MIB..5 * MIB, 0) && all(5 * MIB..5 * MIB + 4096, 9));
    let log = board.log.lock().unwrap();
    assert!(log.iter().any(|line| line == "discard 6291456..7340032"), "{log:?}");
    assert!(log.iter().any(|line| line == "flush"));
}

/// A QEMU server that ends with the test.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn our_client_reads_and_maps_what_qemu_nbd_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path());
    let qcow = folder.path().join("disk.qcow2");
    let (raw, image) = (path.to_str().unwrap(), qcow.to_str().unwrap());
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", raw, image]);
    let socket = folder.path().join("q.sock");
    let child = Command::new("qemu-nbd")
        .args(["-r", "-t", "-e", "4", "-x", "disk", "-f", "qcow2", "-k"])
        .args([&socket, &qcow])
        .spawn()
        .unwrap_or_else(|why| panic!("qemu-nbd is needed for this test: {why}"));
    let _qemu = Qemu(child);
    let address = format!("nbd+unix:///disk?socket={}", socket.display()).parse().unwrap();
    let mut tries = 0;
    let remote = loop {
        match NbdDisk::open(&address, ClientOptions::default()) {
            Ok(disk) => break disk,
            Err(error) if tries == 100 => panic!("{error:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
        tries += 1;
    };
    let remote: Arc<dyn Disk> = Arc::new(remote);
    assert_eq!(remote.size_bytes(), 64 * MIB);
    let extents: Vec<_> = Extents::of(&remote, 0..64 * MIB)
        .map(|extent| extent.map(|e| (e.offset / MIB, e.length / MIB, e.kind.is_zero())).unwrap())
        .collect();
    let expected = [(0, 1, false), (1, 9, true), (10, 7, false), (17, 46, true), (63, 1, false)];
    assert_eq!(extents, expected);
    let local = std::fs::read(&path).unwrap();
    assert!(remote.read_vec(0, local.len()).unwrap() == local);
    assert!(remote.read_vec(10_485_761, 77).unwrap() == local[10_485_761..][..77]);
}
