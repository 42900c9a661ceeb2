//! What a client and the server say before the first request.

mod doubles;

use adit_core::{Kind, MemoryDisk};
use adit_nbd::{Export, Server, ServerOptions};
use doubles::{Raw, go, meta, serve, serve_with};
use std::io::Write;
use std::sync::Arc;

fn two() -> Vec<Export> {
    let disk = |length| MemoryDisk::open("memory", vec![7; length]);
    vec![
        Export::read_only("one", disk(1000)).described("the first"),
        Export::read_only("two", disk(2000)).with_bitmap("changed", vec![0..10, 20..30]),
    ]
}

#[test]
fn exports_are_listed_with_their_descriptions() {
    let served = serve(two());
    let mut raw = served.raw().greet();
    let replies = raw.option(3, &[]);
    assert_eq!(replies[0], (2, b"\0\0\0\x03onethe first".to_vec()));
    assert_eq!(replies[1], (2, b"\0\0\0\x03two".to_vec()));
    assert_eq!(replies[2], (1, vec![]));
    assert_eq!(raw.option(3, b"x")[0].0, 1 << 31 | 3, "LIST takes no data");
}

#[test]
fn an_export_is_described_and_entered() {
    let served = serve(two());
    let mut raw = served.raw().greet();
    let replies = raw.option(6, &go("one", &[1, 2, 3]));
    let flags = [0x05, 0x07]; // cache, multi-conn; flush, read-only, has flags
    assert_eq!(replies[0], (3, [&[0, 0, 0, 0, 0, 0, 0, 0, 0x03, 0xe8][..], &flags].concat()));
    assert_eq!(replies[1], (3, b"\0\x01one".to_vec()));
    assert_eq!(replies[2], (3, b"\0\x02the first".to_vec()));
    assert_eq!(replies[3].1[..2], [0, 3]);
    assert_eq!(replies[3].1[2..6], [0, 0, 0, 1]);
    assert_eq!(replies[3].1[10..14], [2, 0, 0, 0], "32 MiB");
    assert_eq!(replies[4], (1, vec![]));
    assert_eq!(raw.option(7, &go("three", &[]))[0].0, 1 << 31 | 6);
    let mut raw = raw.go("two");
    raw.request(0, 0, 99, 0, 4);
    assert_eq!(raw.simple(), (0, 99));
    assert_eq!(raw.take(4), [7; 4]);
}

#[test]
fn the_old_way_in_works_and_cannot_say_no() {
    let served = serve(two());
    let mut raw = served.raw().greet();
    raw.ask(1, b"two");
    assert_eq!((raw.u64(), raw.u16()), (2000, 0x507));
    raw.request(0, 0, 5, 1990, 10);
    assert_eq!(raw.simple(), (0, 5));
    assert_eq!(raw.take(10), [7; 10]);
    // Without NO_ZEROES there are 124 of them.
    let mut raw = served.raw();
    raw.take(18);
    raw.send(&[&1u32.to_be_bytes()]);
    raw.ask(1, b"one");
    assert_eq!(raw.take(10)[..8], 1000u64.to_be_bytes());
    assert_eq!(raw.take(124), [0; 124]);
    let mut raw = served.raw().greet();
    raw.ask(1, b"three");
    assert!(raw.is_closed());
}

#[test]
fn the_empty_name_means_the_only_export() {
    let served = serve(two());
    assert_eq!(served.raw().greet().option(7, &go("", &[]))[0].0, 1 << 31 | 6);
    let served = serve(two().split_off(1));
    let replies = served.raw().greet().option(6, &go("", &[1]));
    assert_eq!(replies[1], (3, b"\0\x01two".to_vec()));
}

#[test]
fn contexts_are_listed_by_prefix_and_set_by_name() {
    let served = serve(two());
    let mut raw = served.raw().greet();
    assert_eq!(raw.option(10, &meta("two", &["base:allocation"]))[0].0, 1 << 31 | 3);
    raw.option(8, &[]);
    let names = |replies: Vec<(u32, Vec<u8>)>| -> Vec<String> {
        let contexts = replies.into_iter().filter(|(kind, _)| *kind == 4);
        contexts.map(|(_, data)| String::from_utf8(data[4..].to_vec()).unwrap()).collect()
    };
    let all = ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:changed"];
    assert_eq!(names(raw.option(9, &meta("two", &[]))), all);
    assert_eq!(names(raw.option(9, &meta("two", &["qemu:"]))), all[1..]);
    assert_eq!(names(raw.option(9, &meta("two", &["qemu:dirty-bitmap:", "x:y"]))), all[2..]);
    assert_eq!(names(raw.option(10, &meta("two", &["base:", "qemu:"]))), [""; 0]);
    let replies = raw.option(10, &meta("two", &[all[2], all[0]]));
    let ids: Vec<_> = replies.iter().map(|(_, data)| data.first_chunk::<4>().copied()).collect();
    assert_eq!(ids, [Some([0, 0, 0, 1]), Some([0, 0, 0, 2]), None]);
}

#[test]
fn contexts_of_another_export_do_not_count() {
    let served = serve(two());
    let mut raw = served.raw().greet();
    raw.option(8, &[]);
    raw.option(10, &meta("one", &["base:allocation"]));
    let mut raw = raw.go("two");
    raw.request(0, 7, 1, 0, 100);
    let chunk = raw.chunk();
    assert_eq!((chunk.kind, &chunk.payload[..4]), (0x8001, &[0, 0, 0, 22][..]));
}

#[test]
fn tls_and_unknown_options_are_refused_politely() {
    let served = serve(two());
    let mut raw = served.raw().greet();
    assert_eq!(raw.option(5, &[])[0], (1 << 31 | 2, b"TLS is not offered here".to_vec()));
    assert_eq!(raw.option(77, b"what")[0].0, 1 << 31 | 1);
    assert_eq!(raw.option(7, b"\0\0\0\x09one\0\0")[0].0, 1 << 31 | 3, "a name past the end");
    assert_eq!(raw.option(2, &[])[0], (1, vec![]));
    assert!(raw.is_closed());
}

#[test]
fn extended_headers_outrank_structured_replies() {
    let served = serve(two());
    let mut raw = served.raw().greet();
    assert_eq!(raw.option(11, &[]), [(1, vec![])]);
    assert_eq!(raw.option(8, &[])[0].0, 1 << 31 | 10);
    raw.option(10, &meta("two", &["base:allocation"]));
    let mut raw = raw.go("two");
    let ask = |raw: &mut Raw, command: u16, offset: u64, length: u64| {
        let head = [0x21, 0xe4, 0x1c, 0x71, 0, 0];
        let cookie = 0xabcdu64.to_be_bytes();
        let command = command.to_be_bytes();
        raw.send(&[&head, &command, &cookie, &offset.to_be_bytes(), &length.to_be_bytes()]);
    };
    ask(&mut raw, 0, 16, 8);
    assert_eq!((raw.u32(), raw.u16(), raw.u16()), (0x6e8a_278c, 1, 1));
    assert_eq!((raw.u64(), raw.u64(), raw.u64(), raw.u64()), (0xabcd, 16, 16, 16));
    assert_eq!(raw.take(8), [7; 8]);
    ask(&mut raw, 7, 0, 2000);
    assert_eq!((raw.u32(), raw.u16(), raw.u16()), (0x6e8a_278c, 1, 6));
    assert_eq!((raw.u64(), raw.u64(), raw.u64()), (0xabcd, 0, 24));
    assert_eq!((raw.u32(), raw.u32(), raw.u64(), raw.u64()), (1, 1, 2000, 0));
    ask(&mut raw, 0, 1999, 1 << 40);
    assert_eq!((raw.u32(), raw.u16(), raw.u16()), (0x6e8a_278c, 1, 0x8001));
}

#[test]
fn one_client_too_many_is_turned_away_and_the_others_stay() {
    let options = ServerOptions { clients_max: 2, ..ServerOptions::default() };
    let served = serve_with(two(), options);
    let mut first = served.raw().enter("one", &[]);
    let _second = served.raw().enter("one", &[]);
    assert!(served.raw().is_closed());
    assert_eq!((served.server.clients(), served.server.refused()), (2, 1));
    first.request(0, 0, 1, 0, 1);
    assert_eq!(first.chunk().payload.len(), 9);
}

#[test]
fn a_stop_ends_idle_clients_and_removes_the_socket() {
    let served = serve(two());
    let mut idle = served.raw().enter("one", &[]);
    let mut haggling = served.raw().greet();
    served.server.stop();
    assert!(idle.is_closed() && haggling.is_closed());
    assert!(!served.socket.exists());
    assert_eq!(served.server.clients(), 0);
}

#[test]
fn a_stop_lets_a_slow_request_finish() {
    let mut board = doubles::Board::new(vec![9; 8192]);
    board.delay = std::time::Duration::from_millis(300);
    let served = serve(vec![Export::read_only("x", Arc::new(board))]);
    let mut raw = served.raw().enter("x", &[]);
    raw.request(0, 0, 1, 0, 4096);
    std::thread::sleep(std::time::Duration::from_millis(100));
    served.server.stop();
    assert_eq!(raw.chunk().payload[8..], [9; 4096]);
    assert!(raw.is_closed());
}

#[test]
fn only_the_owner_can_reach_the_socket_and_only_a_dead_one_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let served = serve(two());
    let mode = std::fs::metadata(&served.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
    let second = Server::new(two(), ServerOptions::default()).unwrap();
    assert_eq!(second.serve_unix(&served.socket).unwrap_err().kind(), Kind::Busy);
    let file = served.folder.path().join("file");
    std::fs::File::create(&file).unwrap().write_all(b"precious").unwrap();
    assert_eq!(second.serve_unix(&file).unwrap_err().kind(), Kind::Denied);
    let stale = served.folder.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    second.serve_unix(&stale).unwrap();
    Raw::connect(&stale).enter("one", &[]);
}

#[test]
fn tcp_serves_the_same() {
    let server = Server::new(two(), ServerOptions::default()).unwrap();
    let address = server.serve_tcp("127.0.0.1:0").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let mut magic = [0; 8];
    std::io::Read::read_exact(&mut stream, &mut magic).unwrap();
    assert_eq!(&magic, b"NBDMAGIC");
}

#[test]
fn exports_without_a_name_of_their_own_are_refused() {
    let twice = vec![two().remove(0), two().remove(0)];
    assert_eq!(Server::new(twice, ServerOptions::default()).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(Server::new(vec![], ServerOptions::default()).unwrap_err().kind(), Kind::Invalid);
}
