//! Sockets of the service manager.

mod doubles;

use adit_core::MemoryDisk;
use adit_nbd::{Export, Server, ServerOptions};
use doubles::Raw;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn server() -> Server {
    let export = Export::read_only("x", MemoryDisk::open("memory", vec![6; 100]));
    Server::new(vec![export], ServerOptions::default()).unwrap()
}

#[test]
fn a_listening_socket_at_descriptor_3_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("unit.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // The shell moves the socket to descriptor 3, as a service manager would put it there.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "serves_until_its_client_leaves"])
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut raw = Raw::connect(&socket).enter("x", &[]);
    raw.request(0, 0, 1, 0, 100);
    assert_eq!(raw.chunk().payload[8..], [6; 100]);
    drop(raw);
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the other process of the test above"]
fn serves_until_its_client_leaves() {
    let server = server();
    assert_eq!(server.serve_listen_fds().unwrap(), 1);
    let counters = server.exports().next().unwrap().counters();
    for _ in 0..6000 {
        if counters.connections.load(Ordering::Relaxed) > 0 && server.clients() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no client came, or it did not leave");
}

#[test]
fn without_a_service_manager_there_are_none() {
    assert_eq!(server().serve_listen_fds().unwrap(), 0);
}
