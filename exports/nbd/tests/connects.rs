//! Our client, against our server and against servers that go away.

mod doubles;

use adit_core::{
    Concat, Disk, DiskExt, Error, ExtentKind, Extents, Kind, MemoryDisk, Piece, ReadRequest,
};
use adit_nbd::{Address, ClientOptions, Export, NbdDisk, Server, ServerOptions};
use doubles::{Random, noise, serve};
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn open(address: &str) -> NbdDisk {
    NbdDisk::open(&address.parse().unwrap(), ClientOptions::default()).unwrap()
}

#[test]
fn a_remote_disk_reads_and_maps_like_the_disk_itself() {
    let memory = MemoryDisk::open("memory", noise(4, 3 << 20));
    let pieces = vec![
        Piece::part(memory.clone(), 0, 1 << 20),
        Piece::zero(5 << 20),
        Piece::part(memory, 1 << 20, 2 << 20),
    ];
    let local = Concat::open("local", pieces).unwrap();
    let served = serve(vec![Export::read_only("a disk", local.clone())]);
    let remote: Arc<dyn Disk> = Arc::new(open(&served.uri("a%20disk")));
    assert_eq!(remote.size_bytes(), 8 << 20);
    assert!(remote.read_vec(0, 8 << 20).unwrap() == local.read_vec(0, 8 << 20).unwrap());
    let extents: Vec<_> = Extents::of(&remote, 0..8 << 20)
        .map(|extent| extent.map(|e| (e.offset, e.length, e.kind.is_zero())).unwrap())
        .collect();
    let mib = 1 << 20;
    assert_eq!(extents, [(0, mib, false), (mib, 5 * mib, true), (6 * mib, 2 * mib, false)]);
    assert_eq!(remote.read_at(&mut [0], 8 << 20).unwrap_err().kind(), Kind::Invalid);
    let name = remote.explain(0).unwrap().layer;
    assert!(name.starts_with("NBD export nbd+unix:///a disk?socket="), "{name}");
}

#[test]
fn a_batch_is_answered_whole() {
    let bytes = noise(9, 1 << 20);
    let served = serve(vec![Export::read_only("x", MemoryDisk::open("m", bytes.clone()))]);
    let remote = open(&served.uri("x"));
    let mut random = Random(3);
    let spots: Vec<u64> = (0..300).map(|_| random.below((1 << 20) - 4096)).collect();
    let mut room = vec![[0u8; 4096]; 300];
    let mut batch: Vec<ReadRequest<'_>> = spots
        .iter()
        .zip(&mut room)
        .map(|(offset, buf)| ReadRequest { offset: *offset, buf })
        .collect();
    remote.read_batch(&mut batch).unwrap();
    for (offset, buf) in spots.iter().zip(&room) {
        assert!(bytes[*offset as usize..][..4096] == buf[..], "{offset}");
    }
}

#[test]
fn many_threads_share_a_few_connections() {
    let bytes = noise(2, 1 << 20);
    let served = serve(vec![Export::read_only("x", MemoryDisk::open("m", bytes.clone()))]);
    let remote = open(&served.uri("x"));
    std::thread::scope(|scope| {
        for seed in 1..=8 {
            let (remote, bytes) = (&remote, &bytes);
            scope.spawn(move || {
                let mut random = Random(seed);
                for _ in 0..100 {
                    let (at, length) = (random.below(900_000), 1 + random.below(100_000) as usize);
                    assert!(remote.read_vec(at, length).unwrap() == bytes[at as usize..][..length]);
                }
            });
        }
    });
    assert!(served.server.clients() <= 4);
}

#[test]
fn an_error_of_the_server_keeps_its_text_and_the_connection() {
    let lost = Piece::lost(4096, Error::lost("member 2 is missing"));
    let there = Piece::whole(MemoryDisk::open("m", vec![5; 4096]));
    let disk = Concat::open("joined", vec![there, lost]).unwrap();
    let served = serve(vec![Export::read_only("x", disk)]);
    let remote = open(&served.uri("x"));
    let error = remote.read_vec(4000, 200).unwrap_err();
    assert!(error.detail().contains("member 2 is missing"), "{error:?}");
    assert_eq!(error.place().unwrap().byte, Some(4096));
    assert_eq!(remote.read_vec(0, 4096).unwrap(), [5; 4096]);
    assert_eq!(remote.counters().connections.load(Ordering::Relaxed), 1);
    // Lost is data to block status: it must not look like zeros.
    assert!(matches!(remote.extent_at(4096).unwrap().kind, ExtentKind::Data));
}

#[test]
fn a_server_that_comes_back_is_found_again_but_not_with_another_disk() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nbd.sock");
    let start = |length| {
        let export = Export::read_only("x", MemoryDisk::open("m", noise(6, length)));
        let server = Server::new(vec![export], ServerOptions::default()).unwrap();
        server.serve_unix(&socket).unwrap();
        server
    };
    let first = start(10_000);
    let remote = NbdDisk::open(&Address::unix(&socket, "x"), ClientOptions::default()).unwrap();
    assert_eq!(remote.read_vec(5, 10).unwrap(), noise(6, 15)[5..]);
    drop(first);
    let second = start(10_000);
    assert_eq!(remote.read_vec(5, 10).unwrap(), noise(6, 15)[5..]);
    assert!(remote.counters().retries.load(Ordering::Relaxed) > 0);
    drop(second);
    let _third = start(20_000);
    let error = remote.read_vec(5, 10).unwrap_err();
    assert!(error.detail().contains("20000 bytes instead of 10000"), "{error:?}");
}

#[test]
fn what_is_not_there_is_said_so() {
    let served = serve(vec![Export::read_only("x", MemoryDisk::open("m", vec![0; 10]))]);
    let open = |address: &Address| NbdDisk::open(address, ClientOptions::default()).unwrap_err();
    assert_eq!(open(&served.uri("y").parse().unwrap()).kind(), Kind::NotFound);
    assert_eq!(open(&Address::unix("/nowhere/at/all", "x")).kind(), Kind::NotFound);
    let listener =
        std::os::unix::net::UnixListener::bind(served.folder.path().join("ssh")).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut &stream, b"SSH-2.0-OpenSSH_9.9 something\r\n").unwrap();
    });
    let error = open(&Address::unix(served.folder.path().join("ssh"), "x"));
    assert_eq!(error.kind(), Kind::Corrupt);
}

/// Carries some bytes between a client and the server, then drops the connection without a word.
fn carry(client: std::net::TcpStream, server: std::os::unix::net::UnixStream, bytes_max: u64) {
    use std::io::Read as _;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut &client, &mut &server);
            let _ = server.shutdown(std::net::Shutdown::Both);
        });
        let _ = std::io::copy(&mut (&server).take(bytes_max), &mut &client);
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
}

#[test]
fn a_network_that_drops_every_connection_in_the_middle_costs_time_and_no_bytes() {
    let bytes = noise(12, 2 << 20);
    let served = serve(vec![Export::read_only("x", MemoryDisk::open("m", bytes.clone()))]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = served.socket.clone();
    std::thread::spawn(move || {
        let mut random = Random(21);
        for client in listener.incoming() {
            let server = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            // Sometimes not even the negotiation comes through.
            let bytes_max = random.below(600_000);
            std::thread::spawn(move || carry(client.unwrap(), server, bytes_max));
        }
    });
    let options = ClientOptions {
        retries: 60,
        first_delay: std::time::Duration::from_millis(1),
        ..ClientOptions::default()
    };
    let address = Address::tcp("127.0.0.1", port, "x");
    let remote = (0..20).find_map(|_| NbdDisk::open(&address, options.clone()).ok()).unwrap();
    for (index, piece) in bytes.chunks(100_000).enumerate() {
        let got = remote.read_vec(index as u64 * 100_000, piece.len()).unwrap();
        assert!(got == piece, "piece {index}");
    }
    assert!(remote.counters().retries.load(Ordering::Relaxed) > 2);
}

#[test]
fn a_server_that_takes_one_connection_at_a_time_serves_many_threads_all_the_same() {
    let bytes = noise(30, 1 << 20);
    let served = serve(vec![Export::read_only("x", MemoryDisk::open("m", bytes.clone()))]);
    let front = served.folder.path().join("front.sock");
    let listener = std::os::unix::net::UnixListener::bind(&front).unwrap();
    let socket = served.socket.clone();
    std::thread::spawn(move || {
        // The next one is taken when the one before has left, as `qemu-nbd` does it.
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _ = std::io::copy(&mut &client, &mut &server);
                    let _ = server.shutdown(std::net::Shutdown::Both);
                });
                let _ = std::io::copy(&mut &server, &mut &client);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    let remote = NbdDisk::open(&Address::unix(&front, "x"), ClientOptions::default()).unwrap();
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (remote, bytes) = (&remote, &bytes);
            scope.spawn(move || {
                for index in 0..200 {
                    let at = (thread * 200 + index) * 1000;
                    assert!(remote.read_vec(at as u64, 1000).unwrap() == bytes[at..at + 1000]);
                }
            });
        }
    });
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(remote.counters().connections.load(Ordering::Relaxed), 1);
}
