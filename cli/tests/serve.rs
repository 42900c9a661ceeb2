//! `serve nbd` beyond reading: temporary overlays, filters, the parent's end.

mod common;
mod nbd;

use common::{complained, said};
use nbd::{Server, tool};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_temporary_overlay_is_forgotten_and_the_disk_stays() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), vec![1; 4 << 20]).unwrap();
    let server = Server::start(dir.path(), &["--overlay", ":temp:", "disk.raw"]);
    let uri = server.uri();
    let write = ["-f", "raw", "-c", "write -P 9 1M 64k", "-c", "read -P 9 1M 64k", &uri];
    tool(dir.path(), "qemu-io", &write);
    server.stop();
    assert!(std::fs::read(dir.path().join("disk.raw")).unwrap().iter().all(|&byte| byte == 1));
    let server = Server::start(dir.path(), &["--overlay", ":temp:", "disk.raw"]);
    assert!(server.client().read(0, 4 << 20).iter().all(|&byte| byte == 1));
    server.stop();
}

#[test]
fn what_is_not_writable_is_refused_to_clients() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), vec![1; 1 << 20]).unwrap();
    let server = Server::start(dir.path(), &["disk.raw"]);
    assert_eq!(server.client().write(0, &[2; 512]).unwrap(), 1);
    server.stop();
    let both = ["serve", "nbd", "--socket", "s", "--writable", "--overlay", "x", "disk.raw"];
    assert!(complained(dir.path(), 2, &both).contains("cannot be used with"));
    let odd = ["serve", "nbd", "--socket", "s", "--filter", "sieve", "disk.raw"];
    assert!(complained(dir.path(), 1, &odd).contains("readahead"));
}

#[test]
fn errors_of_the_source_reach_the_client_until_it_heals_and_service_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), vec![1; 1 << 20]).unwrap();
    let fault = "error:range=64K-128K,ops=read,count=2";
    let server = Server::start(dir.path(), &["--filter", fault, "--overlay", ":temp:", "disk.raw"]);
    let mut client = server.client();
    assert_eq!(client.try_read(0, 65536).unwrap().map(|bytes| bytes.len()), Ok(65536));
    assert_eq!(client.try_read(100 << 10, 512).unwrap(), Err(5));
    // Part of a block is written: the rest of it cannot be had.
    assert_eq!(client.write(100 << 10, &[5; 512]).unwrap(), 5);
    assert_eq!(client.write(100 << 10, &[5; 512]).unwrap(), 0);
    assert_eq!(client.read(100 << 10, 1024), [[5; 512], [1; 512]].concat());
    server.stop();
}

#[test]
fn a_server_ends_with_the_program_that_started_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), vec![1; 1 << 20]).unwrap();
    let adit = env!("CARGO_BIN_EXE_adit");
    let script = format!(
        "'{adit}' serve nbd --quiet --exit-with-parent --socket s.sock disk.raw & \
         while [ ! -S s.sock ]; do sleep 0.01; done; echo $!"
    );
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(shell.wait().unwrap().success());
    let begun = Instant::now();
    while dir.path().join("s.sock").exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the server lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_disk_of_another_server_is_a_place_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = vec![1; 8 << 20];
    bytes[5 << 20..][..5].copy_from_slice(b"there");
    // An MBR with one partition from 1 MiB to the end.
    bytes[..512].fill(0);
    bytes[446 + 4] = 0x83;
    bytes[446 + 8..][..4].copy_from_slice(&2048u32.to_le_bytes());
    bytes[446 + 12..][..4].copy_from_slice(&(7u32 << 11).to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(dir.path().join("disk.raw"), &bytes).unwrap();
    let server = Server::start(dir.path(), &["disk.raw"]);
    let uri = server.uri();
    let cat = ["cat", "--offset", "5M", "--length", "5", &uri];
    assert_eq!(common::said(dir.path(), 0, &cat), "there");
    let inside = format!("{uri}//p1");
    let cat = ["cat", "--offset", "4M", "--length", "5", &inside];
    assert_eq!(common::said(dir.path(), 0, &cat), "there");
    // An overlay over it records the place.
    let second = tempfile::tempdir().unwrap();
    let over = Server::start(second.path(), &["--overlay", "top.qcow2", &inside]);
    assert_eq!(over.client().write(0, &[9; 512]).unwrap(), 0);
    over.stop();
    let info = common::json(second.path(), 0, &["overlay", "info", "top.qcow2"]);
    assert_eq!(info["backing"], inside);
    server.stop();
    assert!(complained(dir.path(), 1, &["cat", &uri]).contains("kind"), "nobody serves it now");
}

#[test]
fn an_export_that_is_killed_does_not_touch_another() {
    let dir = tempfile::tempdir().unwrap();
    for (name, byte) in [("a.raw", 1), ("b.raw", 2)] {
        std::fs::write(dir.path().join(name), vec![byte; 1 << 20]).unwrap();
    }
    let mut watcher = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(["serve", "nbd", "-q", "--isolate", "--socket", "socks", "--overlay", ":temp:"])
        .args(["--control", "socks", "a.raw", "b.raw"])
        .current_dir(dir.path())
        .spawn()
        .unwrap();
    let socket = |name: &str| dir.path().join("socks").join(name);
    let begun = Instant::now();
    while !(socket("a.raw.sock").exists() && socket("b.raw.sock").exists()) {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut b = nbd::Client::connect(&socket("b.raw.sock"));
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", watcher.id()));
    let children = children.unwrap();
    let first = children.split_whitespace().next().unwrap();
    assert!(Command::new("kill").args(["-KILL", first]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(200));
    assert!(std::os::unix::net::UnixStream::connect(socket("a.raw.sock")).is_err());
    assert_eq!(b.read(0, 512), [2; 512]);
    let end = watcher.id().to_string();
    assert!(Command::new("kill").args(["-INT", &end]).status().unwrap().success());
    assert_eq!(watcher.wait().unwrap().code(), Some(3), "one of them broke");
    assert!(!socket("b.raw.sock").exists());
}

#[test]
fn a_sandboxed_server_still_serves_takes_snapshots_and_merges_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk.raw"), vec![1; 1 << 20]).unwrap();
    let server = Server::start(dir.path(), &["--sandbox", "--overlay", "top.qcow2", "disk.raw"]);
    let mut client = server.client();
    assert_eq!(client.write(0, &[5; 512]).unwrap(), 0);
    server.told(&["snapshot"]);
    assert_eq!(client.write(512, &[6; 512]).unwrap(), 0);
    assert_eq!(server.told(&["commit", "--wait"])["state"], "done");
    assert_eq!(client.read(0, 1536), [[5; 512], [6; 512], [1; 512]].concat());
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    assert!(status.contains("Seccomp:\t2\n"), "system calls are filtered: {status}");
    // Where the kernel can, other folders are out of reach.
    if std::fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|it| it.contains("landlock")) {
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("top.qcow2"), other.path().join("x.qcow2")).unwrap();
        let path = other.path().join("x.qcow2");
        let refused = server.tell(&["swap", path.to_str().unwrap()]);
        assert!(!refused.status.success());
    }
    server.stop();
}

/// An authority, and a server and a client that it vouches for, in `certs`.
fn certificates(dir: &Path) {
    std::fs::create_dir(dir.join("certs")).unwrap();
    let make = "set -e; cd certs
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca-cert.pem \
          -subj /CN=authority -days 2 -addext keyUsage=critical,keyCertSign
        for who in server client; do
          openssl req -newkey rsa:2048 -nodes -keyout $who-key.pem -out $who.csr -subj /CN=localhost
          printf 'subjectAltName=DNS:localhost\\nextendedKeyUsage=serverAuth,clientAuth\\n' > $who.ext
          openssl x509 -req -in $who.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial \
            -days 2 -out $who-cert.pem -extfile $who.ext
        done";
    tool(dir, "sh", &["-c", make]);
}

#[test]
fn qemu_reads_and_writes_over_tls_and_strangers_are_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..4u32 << 18).flat_map(u32::to_le_bytes).collect();
    std::fs::write(dir.path().join("disk.raw"), &bytes).unwrap();
    certificates(dir.path());
    let keys = ["--tls-cert", "certs/server-cert.pem", "--tls-key", "certs/server-key.pem"];
    let more = ["--tls-clients", "certs/ca-cert.pem", "--overlay", ":temp:", "disk.raw"];
    let server = Server::start(dir.path(), &[&keys[..], &more[..]].concat());
    let creds = "tls-creds-x509,id=t,endpoint=client,dir=certs,verify-peer=on";
    let image = format!(
        "driver=nbd,server.type=unix,server.path={},tls-creds=t,tls-hostname=localhost",
        server.socket.display()
    );
    let io = ["--object", creds, "--image-opts", "-c", "write -P 7 1M 1M", "-c"];
    tool(dir.path(), "qemu-io", &[&io[..], &["read -P 7 1M 1M", &image]].concat());
    let convert = ["convert", "--object", creds, "--image-opts", "-O", "raw"];
    tool(dir.path(), "qemu-img", &[&convert[..], &[&image, "out.raw"]].concat());
    let mut expected = bytes.clone();
    expected[1 << 20..2 << 20].fill(7);
    assert!(std::fs::read(dir.path().join("out.raw")).unwrap() == expected);
    // In the clear, or with no certificate that is known, nobody is served.
    let plain = Command::new("qemu-img").args(["info", &server.uri()]).output().unwrap();
    assert!(!plain.status.success());
    std::fs::remove_file(dir.path().join("certs/client-cert.pem")).unwrap();
    let unknown = Command::new("qemu-img")
        .args(["info", "--object", creds, "--image-opts", &image])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(!unknown.status.success());
    assert_eq!(server.told(&["list"])["exports"][0]["closed"], false);
    server.stop();
}

#[test]
fn our_client_reads_over_tls_from_our_server_and_from_qemu() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..4u32 << 18).flat_map(u32::to_le_bytes).collect();
    std::fs::write(dir.path().join("disk.raw"), &bytes).unwrap();
    certificates(dir.path());
    let keys = ["--tls-cert", "certs/server-cert.pem", "--tls-key", "certs/server-key.pem"];
    let more = ["--tls-clients", "certs/ca-cert.pem", "disk.raw"];
    let server = Server::start(dir.path(), &[&keys[..], &more[..]].concat());
    let folder = dir.path().join("certs").display().to_string();
    let uri = |socket: &Path| {
        let socket = socket.display();
        format!("nbds+unix:///?socket={socket}&tls-certificates={folder}&tls-hostname=localhost")
    };
    let ours = uri(&server.socket);
    said(dir.path(), 0, &["convert", "--to", "raw", &ours, "out.raw"]);
    assert!(std::fs::read(dir.path().join("out.raw")).unwrap() == bytes);
    // Whom the certificate does not name is not believed.
    let other = ours.replace("tls-hostname=localhost", "tls-hostname=elsewhere");
    let refused = complained(dir.path(), 1, &["info", &other]);
    assert!(refused.contains("kind  denied") && refused.contains("elsewhere"), "{refused}");
    // Nothing goes in the clear where encryption was asked for, and the other way round.
    let plain = complained(dir.path(), 1, &["info", &server.uri()]);
    assert!(plain.contains("insists on TLS"), "{plain}");
    let open = Server::start(&dir.path().join("certs"), &["ca-cert.pem"]);
    let refused = complained(dir.path(), 1, &["info", &uri(&open.socket)]);
    assert!(refused.contains("does not encrypt"), "{refused}");
    open.stop();
    // A server that asks for a certificate gets none from a stranger.
    std::fs::create_dir(dir.path().join("stranger")).unwrap();
    let trusted = (dir.path().join("certs/ca-cert.pem"), dir.path().join("stranger/ca-cert.pem"));
    std::fs::copy(trusted.0, trusted.1).unwrap();
    let stranger = ours.replace(&folder, &dir.path().join("stranger").display().to_string());
    complained(dir.path(), 1, &["info", &stranger]);
    server.stop();

    // qemu-nbd wants its own names for the same files.
    let socket = dir.path().join("qemu.sock");
    let creds = "tls-creds-x509,id=t,endpoint=server,dir=certs,verify-peer=on";
    let mut qemu = Command::new("qemu-nbd")
        .args(["-t", "-r", "-f", "raw", "--object", creds, "--tls-creds", "t", "-k"])
        .arg(&socket)
        .arg("disk.raw")
        .current_dir(dir.path())
        .spawn()
        .expect("qemu-nbd must be installed");
    let begun = std::time::Instant::now();
    while !socket.exists() && begun.elapsed() < std::time::Duration::from_secs(20) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let output = common::adit(dir.path(), &["hash", &uri(&socket)]);
    let _ = qemu.kill();
    let _ = qemu.wait();
    let ours = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = common::sha256sum(&dir.path().join("disk.raw"));
    assert!(ours.contains(&expected), "{output:?}");
}
