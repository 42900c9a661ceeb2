//! A disk that remembers, and a client that knows nothing but bytes.
#![allow(dead_code)]

use adit_core::{
    Disk, DiskExt, Error, Extent, ExtentKind, Geometry, Hop, Next, Problem, ReadRequest, Result,
    WritableDisk, read_each,
};
use adit_nbd::{Export, Server, ServerOptions};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// Memory that can be written, with bytes that cannot be read and a log of what was asked.
#[derive(Debug)]
pub struct Board {
    pub bytes: Mutex<Vec<u8>>,
    pub bad: Option<Range<u64>>,
    pub log: Mutex<Vec<String>>,
    pub delay: Duration,
    /// Reads that are under way, and the most there ever were.
    pub reads: Mutex<(usize, usize)>,
}

impl Board {
    pub fn new(bytes: Vec<u8>) -> Board {
        Board {
            bytes: bytes.into(),
            bad: None,
            log: Mutex::default(),
            delay: Duration::ZERO,
            reads: Mutex::default(),
        }
    }

    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }
}

impl Disk for Board {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.bytes.lock().unwrap().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        {
            let mut reads = self.reads.lock().unwrap();
            reads.0 += 1;
            reads.1 = reads.1.max(reads.0);
        }
        std::thread::sleep(self.delay);
        self.reads.lock().unwrap().0 -= 1;
        let end = offset + buf.len() as u64;
        if self.bad.as_ref().is_some_and(|bad| bad.start < end && offset < bad.end) {
            let why = std::io::Error::from_raw_os_error(5);
            return Err(Error::io(Problem::Unreadable, "a bad sector", &why));
        }
        buf.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..end as usize]);
        Ok(())
    }

    fn read_batch(&self, batch: &mut [ReadRequest<'_>]) -> Result<()> {
        read_each(self, batch)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.check_range(offset, 1)?;
        Ok(Extent { offset, length: self.size_bytes() - offset, kind: ExtentKind::Data })
    }

    fn as_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn explain(&self, offset: u64) -> Result<Hop> {
        Ok(Hop { layer: "board".into(), offset, steps: Vec::new(), next: Next::Here })
    }
}

impl WritableDisk for Board {
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let start = offset as usize;
        self.bytes.lock().unwrap()[start..start + buf.len()].copy_from_slice(buf);
        self.note(format!("write {offset}+{}", buf.len()));
        Ok(())
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.check_range(range.start, range.end - range.start)?;
        self.bytes.lock().unwrap()[range.start as usize..range.end as usize].fill(0);
        self.note(format!("zeroes {range:?}"));
        Ok(())
    }

    fn discard(&self, range: Range<u64>) -> Result<()> {
        self.note(format!("discard {range:?}"));
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.note("flush".into());
        Ok(())
    }
}

/// Bytes that differ everywhere, from a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// xorshift64*, seeded; good enough to surprise a parser.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A server on a socket in a folder of its own.
pub struct Served {
    pub server: Server,
    pub socket: PathBuf,
    pub folder: tempfile::TempDir,
}

pub fn serve(exports: Vec<Export>) -> Served {
    serve_with(exports, ServerOptions::default())
}

pub fn serve_with(exports: Vec<Export>, options: ServerOptions) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nbd.sock");
    let server = Server::new(exports, options).unwrap();
    server.serve_unix(&socket).unwrap();
    Served { server, socket, folder }
}

impl Served {
    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    pub fn raw(&self) -> Raw {
        Raw::connect(&self.socket)
    }
}

/// The protocol by hand.
pub struct Raw(pub UnixStream);

/// One option reply: kind and payload.
pub type OptionReply = (u32, Vec<u8>);

/// One structured chunk: flags, kind, cookie, payload.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    pub flags: u16,
    pub kind: u16,
    pub cookie: u64,
    pub payload: Vec<u8>,
}

impl Raw {
    pub fn connect(socket: &std::path::Path) -> Raw {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Raw(stream)
    }

    pub fn send(&mut self, parts: &[&[u8]]) {
        self.0.write_all(&parts.concat()).unwrap();
    }

    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    pub fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 1]), Ok(0) | Err(_))
    }

    /// Reads the greeting and answers it.
    pub fn greet(mut self) -> Raw {
        assert_eq!(self.take(16), b"NBDMAGICIHAVEOPT");
        assert_eq!(self.u16(), 3);
        self.send(&[&3u32.to_be_bytes()]);
        self
    }

    pub fn ask(&mut self, option: u32, data: &[u8]) {
        let length = (data.len() as u32).to_be_bytes();
        self.send(&[b"IHAVEOPT", &option.to_be_bytes(), &length, data]);
    }

    pub fn option(&mut self, option: u32, data: &[u8]) -> Vec<OptionReply> {
        self.ask(option, data);
        let mut replies = Vec::new();
        loop {
            assert_eq!(self.u64(), 0x0003_e889_0455_65a9);
            assert_eq!(self.u32(), option);
            let kind = self.u32();
            let length = self.u32() as usize;
            replies.push((kind, self.take(length)));
            if kind == 1 || kind & 1 << 31 != 0 {
                return replies;
            }
        }
    }

    /// Greets, agrees on structured replies and the contexts, and enters the export.
    pub fn enter(self, export: &str, contexts: &[&str]) -> Raw {
        let mut raw = self.greet();
        assert_eq!(raw.option(8, &[]), [(1, vec![])]);
        if !contexts.is_empty() {
            let replies = raw.option(10, &meta(export, contexts));
            assert_eq!(replies.len(), contexts.len() + 1);
        }
        raw.go(export)
    }

    /// Greets and enters the export with simple replies.
    pub fn enter_simple(self, export: &str) -> Raw {
        self.greet().go(export)
    }

    pub fn go(mut self, export: &str) -> Raw {
        let replies = self.option(7, &go(export, &[]));
        assert_eq!(replies.last(), Some(&(1, vec![])));
        self
    }

    pub fn request(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, length: u32) {
        self.send(&[
            &0x2560_9513u32.to_be_bytes(),
            &flags.to_be_bytes(),
            &command.to_be_bytes(),
            &cookie.to_be_bytes(),
            &offset.to_be_bytes(),
            &length.to_be_bytes(),
        ]);
    }

    /// Error and cookie of a simple reply.
    pub fn simple(&mut self) -> (u32, u64) {
        assert_eq!(self.u32(), 0x6744_6698);
        (self.u32(), self.u64())
    }

    pub fn chunk(&mut self) -> Chunk {
        assert_eq!(self.u32(), 0x668e_33ef);
        let (flags, kind, cookie) = (self.u16(), self.u16(), self.u64());
        let length = self.u32() as usize;
        Chunk { flags, kind, cookie, payload: self.take(length) }
    }

    /// All chunks of one reply.
    pub fn chunks(&mut self) -> Vec<Chunk> {
        let mut chunks = vec![self.chunk()];
        while chunks[chunks.len() - 1].flags & 1 == 0 {
            chunks.push(self.chunk());
        }
        chunks
    }
}

pub fn go(export: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = (export.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(export.as_bytes());
    data.extend_from_slice(&(infos.len() as u16).to_be_bytes());
    infos.iter().for_each(|info| data.extend_from_slice(&info.to_be_bytes()));
    data
}

pub fn meta(export: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (export.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(export.as_bytes());
    data.extend_from_slice(&(queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend_from_slice(&(query.len() as u32).to_be_bytes());
        data.extend_from_slice(query.as_bytes());
    }
    data
}
