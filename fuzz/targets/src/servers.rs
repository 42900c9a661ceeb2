//! Targets that talk to servers: NBD, and the control socket.

use adit_core::{Disk, Error, MemoryDisk, Result, WritableDisk};
use adit_filters::{Entry, Filters, Sink};
use adit_nbd::{Export, Keeper, Managed, Server, ServerOptions};
use adit_overlay::{Job, Layer, Live, Temporary};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

const SIZE: usize = 256 << 10;

/// What a client sends, from the first byte, or as requests after a negotiation that succeeds.
///
/// The first byte of the input chooses: bit 0 negotiates, bits 1 and 2 are how, bit 3 chooses the
/// export that can be written, bit 4 takes the rest as it is instead of as descriptions of
/// requests.
pub fn nbd(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else { return };
    watch_panics();
    let mut said = Vec::new();
    if how & 1 == 0 {
        said.extend_from_slice(rest);
    } else {
        let extended = how & 4 != 0;
        negotiate(how, &mut said);
        if how & 16 != 0 {
            said.extend_from_slice(rest);
        } else {
            rest.chunks_exact(8).for_each(|raw| request(raw, extended, &mut said));
        }
    }
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    server().serve_client(theirs);
    let answer = converse(&ours, &said);
    // A server that has too many clients says nothing at all.
    assert!(answer.is_empty() || answer.starts_with(b"NBDMAGICIHAVEOPT"));
    assert!(!PANICKED.load(Ordering::SeqCst), "a thread of the server panicked");
}

/// Lines for the control socket of a server with two exports.
pub fn control(data: &[u8]) {
    watch_panics();
    let disk = MemoryDisk::open("memory", vec![1; 64 << 10]);
    let changes = Temporary::new(disk.clone(), &std::env::temp_dir()).expect("a temporary file");
    let layers = vec![
        Layer::read_only("below", disk.clone() as Arc<dyn Disk>),
        Layer::writable("top", Arc::new(changes)),
    ];
    let live = Live::new(layers).expect("a stack");
    let sink: Arc<dyn Sink> = Arc::new(Deaf);
    let filters = Filters::parse(["ratelimit"], &sink).expect("a filter");
    let export = Export::writable("live", Arc::clone(&live) as Arc<dyn WritableDisk>);
    let exports = [
        Managed::live(export, filters, live, Arc::new(NoKeeper)),
        Managed::fixed(Export::read_only("fixed", disk), Filters::default()),
    ];
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| drop(adit_nbd::control::converse(theirs, &exports)));
        converse(&ours, data)
    });
    for line in answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let value: Value = serde_json::from_slice(line).expect("every answer is JSON");
        assert!(value["ok"].is_boolean());
    }
    assert!(!PANICKED.load(Ordering::SeqCst), "a thread of the server panicked");
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 3) as u8).collect();
        let disk: Arc<dyn Disk> = MemoryDisk::open("memory", bytes);
        let changes = Temporary::new(Arc::clone(&disk), &std::env::temp_dir());
        let exports = vec![
            Export::read_only("x", disk).with_bitmap("b", vec![4096..8192, 12288..16384]),
            Export::writable("w", Arc::new(changes.expect("a temporary file"))),
        ];
        Server::new(exports, ServerOptions::default()).expect("two exports")
    })
}

/// Says all of it, and gives what was answered until the other side hung up.
fn converse(stream: &UnixStream, said: &[u8]) -> Vec<u8> {
    const ANSWER_MAX: u64 = 64 << 20;
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("a time limit");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The other side may hang up in the middle of it.
            let _ = (&mut &*stream).write_all(said);
            let _ = stream.shutdown(Shutdown::Write);
        });
        let mut answer = Vec::new();
        let got = stream.take(ANSWER_MAX).read_to_end(&mut answer);
        let slow = got.is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!slow, "the server hangs");
        answer
    })
}

fn option(said: &mut Vec<u8>, number: u32, data: &[u8]) {
    said.extend_from_slice(b"IHAVEOPT");
    said.extend_from_slice(&number.to_be_bytes());
    said.extend_from_slice(&(data.len() as u32).to_be_bytes());
    said.extend_from_slice(data);
}

/// A negotiation that ends in the export.
fn negotiate(how: u8, said: &mut Vec<u8>) {
    said.extend_from_slice(&3u32.to_be_bytes());
    match how >> 1 & 3 {
        0 => {}
        1 => option(said, 8, &[]),
        _ => option(said, 11, &[]),
    }
    let name: &[u8] = if how & 8 == 0 { b"x" } else { b"w" };
    let named = [&1u32.to_be_bytes()[..], name].concat();
    if how & 6 != 0 {
        let query = [&named, &1u32.to_be_bytes()[..], &5u32.to_be_bytes(), b"base:"].concat();
        option(said, 10, &query);
    }
    option(said, 7, &[&named, &0u16.to_be_bytes()[..]].concat());
}

/// A request by eight bytes: command, flags, offset, length.
fn request(raw: &[u8], extended: bool, said: &mut Vec<u8>) {
    let &[command, flags, a, b, c, d, e, f] = raw else { return };
    let offset = u64::from(u32::from_be_bytes([0, a, b, c]) >> 4);
    let length = u64::from(u32::from_be_bytes([0, d, e, f]) >> 5);
    let magic = if extended { 0x21e4_1c71u32 } else { 0x2560_9513 };
    said.extend_from_slice(&magic.to_be_bytes());
    said.extend_from_slice(&u16::from(flags).to_be_bytes());
    said.extend_from_slice(&u16::from(command % 10).to_be_bytes());
    said.extend_from_slice(&[raw, raw].concat()[..8]);
    said.extend_from_slice(&offset.to_be_bytes());
    if extended {
        said.extend_from_slice(&length.to_be_bytes());
    } else {
        said.extend_from_slice(&(length as u32).to_be_bytes());
    }
    if command % 10 == 1 || extended && flags & 32 != 0 {
        said.resize(said.len() + length as usize, command ^ flags);
    }
}

/// Whether any thread panicked: those of a server would otherwise do so unseen.
static PANICKED: AtomicBool = AtomicBool::new(false);

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |about| {
            // The FUSE library asserts what only a kernel says; its own target knows that.
            let thread = std::thread::current();
            if !thread.name().is_some_and(|name| name.starts_with("fuser-")) {
                PANICKED.store(true, Ordering::SeqCst);
            }
            before(about);
        }));
    });
}

#[derive(Debug)]
struct Deaf;

impl Sink for Deaf {
    fn note(&self, _entry: &Entry<'_>) {}
}

/// Nothing is kept: what is fuzzed is how commands are read.
#[derive(Debug)]
struct NoKeeper;

fn no<T>() -> Result<T> {
    Err(Error::unsupported("nothing is kept"))
}

impl Keeper for NoKeeper {
    fn snapshot(&self, _: &Arc<Live>, _: Duration, _: Option<&str>) -> Result<Value> {
        no()
    }

    fn commit(&self, _: &Arc<Live>, _: Duration, _: bool) -> Result<Arc<Job>> {
        no()
    }

    fn flatten(&self, _: &Arc<Live>, _: Duration) -> Result<Arc<Job>> {
        no()
    }

    fn swap(&self, _: &Arc<Live>, _: Duration, _: &Path) -> Result<Value> {
        no()
    }
}
