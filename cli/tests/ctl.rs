//! Servers that are told things while clients write.

mod common;
mod nbd;

use adit_testkit::random::Random;
use common::complained;
use nbd::{Client, Server, tool};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 4096;

/// What a block holds after its `stamp`th write: itself, so that a misplaced one is found.
fn stamped(block: u64, stamp: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    if stamp > 0 {
        Random::new(block << 32 | stamp).fill(&mut bytes);
        bytes[..8].copy_from_slice(&block.to_le_bytes());
        bytes[8..16].copy_from_slice(&stamp.to_le_bytes());
    }
    bytes
}

fn base(dir: &Path) {
    let mut bytes = vec![0; BLOCK * BLOCKS as usize];
    for (block, place) in bytes.chunks_mut(BLOCK).enumerate() {
        place.copy_from_slice(&stamped(block as u64, 1));
    }
    std::fs::write(dir.join("base.raw"), bytes).unwrap();
}

/// Writes and reads its share of blocks until told to stop; gives the stamps at the end.
fn work(mut client: Client, share: u64, of: u64, stop: &AtomicBool, done: &AtomicU64) -> Vec<u64> {
    let mut random = Random::new(share + 7);
    let mut stamps = vec![1u64; BLOCKS as usize];
    let mut stamp = 1;
    while !stop.load(Ordering::Relaxed) {
        let block = random.below(BLOCKS / of) * of + share;
        let at = block * BLOCK as u64;
        match random.below(12) {
            0 => {
                assert_eq!(client.zero(at, BLOCK as u32).unwrap(), 0);
                stamps[block as usize] = 0;
            }
            1 => assert_eq!(client.flush().unwrap(), 0),
            2..=4 => {
                assert!(
                    client.read(at, BLOCK) == stamped(block, stamps[block as usize]),
                    "{block}"
                );
            }
            _ => {
                stamp += 1;
                assert_eq!(client.write(at, &stamped(block, stamp)).unwrap(), 0, "block {block}");
                stamps[block as usize] = stamp;
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    stamps
}

#[test]
fn no_write_is_lost_and_no_error_seen_while_snapshots_and_commits_pass() {
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let server = Server::start(dir.path(), &["--overlay", "top.qcow2", "base.raw"]);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let rounds = rounds("ADIT_SNAPSHOTS", 150);
    let stamps: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|share| {
                let (client, stop, done) = (server.client(), &stop, &done);
                scope.spawn(move || work(client, share, 3, stop, done))
            })
            .collect();
        let mut random = Random::new(5);
        let mut depth = 1;
        for _ in 0..rounds {
            if depth == 1 || depth < 6 && random.below(2) == 0 {
                server.told(&["snapshot"]);
                depth += 1;
            } else {
                let job = server.told(&["commit", "--wait"]);
                assert_eq!(job["state"], "done", "{job}");
                depth -= 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert!(done.load(Ordering::Relaxed) > 500, "{done:?}");
    let mut client = server.client();
    let expected: Vec<u8> = (0..BLOCKS)
        .flat_map(|block| stamped(block, stamps[(block % 3) as usize][block as usize]))
        .collect();
    // The last block belongs to nobody's share where they do not divide.
    assert!(client.read(0, BLOCK * BLOCKS as usize) == expected);
    server.stop();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "qcow2") {
            tool(dir.path(), "qemu-img", &["check", "-q", path.to_str().unwrap()]);
        }
    }
    std::fs::write(dir.path().join("expected.raw"), expected).unwrap();
    let compare = ["compare", "-f", "qcow2", "-F", "raw", "top.qcow2", "expected.raw"];
    tool(dir.path(), "qemu-img", &compare);
    // The original was never written.
    let original = std::fs::read(dir.path().join("base.raw")).unwrap();
    assert!(original.chunks(BLOCK).enumerate().all(|(n, now)| now == stamped(n as u64, 1)));
}

#[test]
fn a_server_killed_at_any_moment_loses_no_write_that_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let mut durable = vec![1u64; BLOCKS as usize];
    let mut random = Random::new(99);
    for round in 0..rounds("ADIT_KILLS", 25) {
        let server = Server::start(dir.path(), &["--overlay", "top.qcow2", "base.raw"]);
        let mut client = server.client();
        let mut possible: Vec<Vec<u64>> = durable.iter().map(|&stamp| vec![stamp]).collect();
        check(&mut client, &possible, round);
        let id = server.child.id().to_string();
        let wait = 1 + random.below(60);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(wait));
            std::process::Command::new("kill").args(["-KILL", &id]).status().unwrap();
        });
        // Some rounds take snapshots and merge them while they are killed.
        let restless = round % 3 != 0;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if restless {
                scope.spawn(|| {
                    for turn in 0u32.. {
                        let word = if turn % 3 == 2 { "commit" } else { "snapshot" };
                        let told = server.tell(&[word]);
                        if stop.load(Ordering::Relaxed) || !told.status.success() && turn > 50 {
                            break;
                        }
                    }
                });
            }
            let mut stamp = 1000 * (round + 1);
            // Until the connection breaks.
            loop {
                let block = random.below(BLOCKS);
                stamp += 1;
                possible[block as usize].push(stamp);
                match client.write(block * BLOCK as u64, &stamped(block, stamp)) {
                    Ok(number) => assert_eq!(number, 0),
                    Err(_) => break,
                }
                if random.below(20) == 0 {
                    match client.flush() {
                        Ok(number) => assert_eq!(number, 0),
                        Err(_) => break,
                    }
                    for stamps in &mut possible {
                        stamps.drain(..stamps.len() - 1);
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        killer.join().unwrap();
        server.kill();
        let server = Server::start(dir.path(), &["--overlay", "top.qcow2", "base.raw"]);
        durable = check(&mut server.client(), &possible, round);
        server.kill();
        // Leaks are the price of a power cut; anything else is damage.
        let output = std::process::Command::new("qemu-img")
            .args(["check", "-q", "top.qcow2"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(matches!(output.status.code(), Some(0 | 3)), "round {round}: {output:?}");
    }
}

/// Every block holds one of the stamps it may; gives which.
fn check(client: &mut Client, possible: &[Vec<u64>], round: u64) -> Vec<u64> {
    let all = client.read(0, BLOCK * BLOCKS as usize);
    all.chunks(BLOCK)
        .zip(possible)
        .enumerate()
        .map(|(block, (now, stamps))| {
            let found = stamps.iter().find(|&&stamp| now == stamped(block as u64, stamp));
            *found.unwrap_or_else(|| {
                let is = u64::from_le_bytes(now[8..16].try_into().unwrap());
                panic!("round {round}, block {block}: stamp {is}, may be {stamps:?}")
            })
        })
        .collect()
}

fn rounds(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_pause_holds_clients_up_and_is_seen_in_the_list() {
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let server = Server::start(dir.path(), &["--overlay", ":temp:", "base.raw"]);
    server.told(&["pause"]);
    assert_eq!(server.told(&["list"])["exports"][0]["paused"], true);
    let mut client = server.client();
    let writer = std::thread::spawn(move || client.write(0, &[7; 512]).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!writer.is_finished());
    server.told(&["unpause"]);
    assert_eq!(writer.join().unwrap(), 0);
    assert_eq!(server.client().read(0, 512), [7; 512]);
    server.stop();
    assert!(std::fs::read(dir.path().join("base.raw")).unwrap()[..BLOCK] == stamped(0, 1));
}

#[test]
fn an_overlay_grows_and_its_users_see_it() {
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let server = Server::start(dir.path(), &["--overlay", "top.qcow2", "base.raw"]);
    let before = server.client().size;
    let answer = server.told(&["resize", "64M"]);
    assert_eq!(answer["size_bytes"], 64 << 20);
    let mut client = server.client();
    assert_eq!((before, client.size), (BLOCK as u64 * BLOCKS, 64 << 20));
    assert_eq!(client.write(50 << 20, &[3; 512]).unwrap(), 0);
    assert_eq!(client.read((50 << 20) - 512, 1024), [[0; 512], [3; 512]].concat());
    let refused = server.tell(&["resize", "1M"]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("smaller"));
    server.stop();
}

#[test]
fn a_flattened_overlay_needs_nothing_below_any_more() {
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let server = Server::start(dir.path(), &["--overlay", "top.qcow2", "base.raw"]);
    let mut client = server.client();
    assert_eq!(client.write(0, &stamped(0, 9)).unwrap(), 0);
    server.told(&["snapshot", "frozen.qcow2"]);
    assert_eq!(client.write(8192, &stamped(2, 9)).unwrap(), 0);
    let job = server.told(&["flatten", "--wait"]);
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(client.write(4096, &stamped(1, 9)).unwrap(), 0);
    assert_eq!(server.told(&["list"])["exports"][0]["layers"].as_array().unwrap().len(), 1);
    server.stop();
    std::fs::remove_file(dir.path().join("base.raw")).unwrap();
    std::fs::remove_file(dir.path().join("frozen.qcow2")).unwrap();
    tool(dir.path(), "qemu-img", &["convert", "-O", "raw", "top.qcow2", "out.raw"]);
    let out = std::fs::read(dir.path().join("out.raw")).unwrap();
    for (block, now) in out.chunks(BLOCK).enumerate() {
        assert!(now == stamped(block as u64, if block < 3 { 9 } else { 1 }), "{block}");
    }
}

#[test]
fn an_image_is_written_itself_only_when_asked_and_a_snapshot_of_it_merges_back_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    tool(dir.path(), "qemu-img", &["create", "-q", "-f", "raw", "disk.raw", "16M"]);
    let server = Server::start(dir.path(), &["--writable", "disk.raw"]);
    let mut client = server.client();
    assert_eq!(client.write(0, &stamped(0, 2)).unwrap(), 0);
    let answer = server.told(&["snapshot", "over.qcow2"]);
    assert!(answer["top"].as_str().unwrap().ends_with("over.qcow2"));
    assert_eq!(client.write(4096, &stamped(1, 2)).unwrap(), 0);
    assert_eq!(client.flush().unwrap(), 0);
    let disk = || std::fs::read(dir.path().join("disk.raw")).unwrap();
    assert!(disk()[4096..8192].iter().all(|&byte| byte == 0), "the snapshot is frozen");
    let refused = String::from_utf8(server.tell(&["commit"]).stderr).unwrap();
    assert!(refused.contains("--into-original"), "{refused}");
    let job = server.told(&["commit", "--wait", "--into-original"]);
    assert_eq!(job["state"], "done");
    assert_eq!(client.write(8192, &stamped(2, 2)).unwrap(), 0);
    server.stop();
    assert!(!dir.path().join("over.qcow2").exists());
    for block in 0..3 {
        let at = block as usize * BLOCK;
        assert!(disk()[at..at + BLOCK] == stamped(block, 2), "{block}");
    }
}

#[test]
fn a_limit_and_counters_are_changed_and_read_while_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let filters = ["--filter", "error:count=3,ops=read", "--filter", "retry:wait=1ms"];
    let more = ["--filter", "ratelimit", "--overlay", ":temp:", "base.raw"];
    let server = Server::start(dir.path(), &[&filters[..], &more[..]].concat());
    assert_eq!(server.client().read(0, 4096), stamped(0, 1));
    let stats = server.told(&["stats"]);
    let counters = &stats["exports"][0]["counters"];
    assert_eq!((&counters["retry_retried"], &counters["retry_failed"]), (&3.into(), &0.into()));
    assert_eq!(counters["errors"], 0, "the client saw nothing of it");
    server.told(&["ratelimit", "--ops", "50"]);
    let begun = std::time::Instant::now();
    let mut client = server.client();
    (0..20).for_each(|block| drop(client.read(block * 4096, 512)));
    assert!(begun.elapsed().as_millis() > 150, "{:?}", begun.elapsed());
    server.told(&["ratelimit", "--ops", "0"]);
    server.stop();
}

#[test]
fn a_closed_export_is_gone_and_its_clients_are_told() {
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let server = Server::start(dir.path(), &["--overlay", ":temp:", "base.raw"]);
    let mut client = server.client();
    assert_eq!(client.read(0, 512).len(), 512);
    server.told(&["close"]);
    assert_eq!(client.try_read(0, 512).unwrap(), Err(108));
    assert_eq!(server.told(&["list"])["exports"][0]["closed"], true);
    server.stop();
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let server = Server::start(dir.path(), &["--overlay", "top.qcow2", "base.raw"]);
    let said = |arguments: &[&str]| String::from_utf8(server.tell(arguments).stderr).unwrap();
    std::fs::write(dir.path().join("taken.qcow2"), "mine").unwrap();
    assert!(said(&["snapshot", "taken.qcow2"]).contains("denied"));
    assert!(said(&["snapshot", "../x.qcow2"]).contains("invalid"));
    assert!(said(&["commit"]).contains("denied"));
    assert!(said(&["commit", "--into-original"]).contains("overlay commit"));
    assert!(said(&["cancel", "5"]).contains("not-found"));
    assert!(said(&["swap", "taken.qcow2"]).contains("corrupt"));
    assert!(said(&["ratelimit", "--ops", "5"]).contains("unsupported"));
    assert!(said(&["stats", "-e", "nobody"]).is_empty());
    assert!(said(&["pause", "-e", "nobody"]).contains("not-found"));
    assert_eq!(std::fs::read(dir.path().join("taken.qcow2")).unwrap(), b"mine");
    assert_eq!(server.told(&["list"])["exports"][0]["layers"].as_array().unwrap().len(), 2);
    assert_eq!(server.client().read(0, 4096), stamped(0, 1));
    server.stop();
    let gone = complained(dir.path(), 1, &["ctl", "nbd.ctl", "list"]);
    assert!(gone.contains("kind  not-found"), "{gone}");
}

#[test]
fn only_its_owner_reaches_the_control_socket_and_rubbish_on_it_does_no_harm() {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    let server = Server::start(dir.path(), &["--overlay", ":temp:", "base.raw"]);
    let mode = server.control.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ask = |line: &[u8]| {
        let mut stream = UnixStream::connect(&server.control).unwrap();
        // It may hang up while we still talk.
        let _ = stream.write_all(line).and_then(|()| stream.write_all(b"\n"));
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        answer
    };
    for line in
        [&b"x"[..], b"{}", b"[]", b"{\"cmd\":7}", b"{\"cmd\":\"list\"", b"\xff\xfe", b"null"]
    {
        assert!(ask(line).contains("\"ok\":false"), "{line:?}");
    }
    let deep = ["{\"cmd\":".repeat(5000), "1".into()].concat();
    assert!(ask(deep.as_bytes()).contains("\"ok\":false"));
    let long = ask(&vec![b'a'; 1 << 20]);
    assert!(long.is_empty() || long.contains("limit"), "{long}");
    let mut random = Random::new(4);
    for _ in 0..300 {
        let mut line = b"{\"cmd\":\"resize\",\"export\":\"\",\"size_bytes\":12}".to_vec();
        for _ in 0..1 + random.below(4) {
            let place = random.below(line.len() as u64) as usize;
            line[place] = random.bits() as u8;
        }
        let _ = ask(&line);
    }
    assert_eq!(server.told(&["list"])["exports"][0]["size_bytes"], BLOCK as u64 * BLOCKS);
    server.stop();
}

#[test]
fn another_overlay_of_the_same_disk_takes_over_while_a_client_is_there() {
    let dir = tempfile::tempdir().unwrap();
    base(dir.path());
    for (name, stamp) in [("one.qcow2", 2), ("two.qcow2", 3)] {
        let server = Server::start(dir.path(), &["--overlay", name, "base.raw"]);
        assert_eq!(server.client().write(0, &stamped(0, stamp)).unwrap(), 0);
        server.stop();
    }
    let server = Server::start(dir.path(), &["--overlay", "one.qcow2", "base.raw"]);
    let mut client = server.client();
    assert_eq!(client.read(0, BLOCK), stamped(0, 2));
    server.told(&["swap", "two.qcow2"]);
    assert_eq!(client.read(0, BLOCK), stamped(0, 3));
    assert_eq!(client.write(4096, &stamped(1, 3)).unwrap(), 0);
    let list = server.told(&["list"]);
    assert!(list["exports"][0]["layers"][0].as_str().unwrap().ends_with("two.qcow2"), "{list}");
    server.stop();
    for name in ["one.qcow2", "two.qcow2"] {
        tool(dir.path(), "qemu-img", &["check", "-q", name]);
    }
}
