//! Fixed newstyle negotiation, the server's side.

use crate::export::Export;
use crate::protocol::*;
use crate::server::context::{Context, Queries};
use crate::server::tls::Tls;
use crate::socket::Socket;
use adit_core::DiskExt;
use adit_core::bytes::u16_be;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest option a client may send. Larger ones end the connection. Unit: bytes.
const OPTION_BYTES_MAX: usize = 64 << 10;
/// A client that haggles longer than this, in options or in time, is no client.
const OPTIONS_MAX: u32 = 1000;
const TIME_MAX: Duration = Duration::from_secs(60);
/// Silence after which a client that has not chosen an export is sent away.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What both sides agreed on.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) export: Arc<Export>,
    pub(crate) mode: Mode,
    /// Context `n` has the id `n + 1`.
    pub(crate) contexts: Vec<Context>,
    /// The inside of the encrypted connection, if it became one.
    pub(crate) inside: Option<Arc<Socket>>,
}

/// What every negotiation needs of the server.
pub(crate) struct House<'a> {
    pub(crate) exports: &'a [Arc<Export>],
    pub(crate) stopping: &'a AtomicBool,
    pub(crate) tls: Option<&'a Tls>,
}

/// Talks to a new client until it has chosen an export; nothing if it left without one.
pub(crate) fn negotiate(outside: &Arc<Socket>, house: &House<'_>) -> io::Result<Option<Agreed>> {
    let mut socket = Arc::clone(outside);
    let exports = house.exports;
    let mut inside = None;
    socket.receive_timeout(Some(SILENCE_MAX));
    socket.send_timeout(Some(SILENCE_MAX));
    let mut greeting = [0; 18];
    greeting[0..8].copy_from_slice(&INIT_MAGIC.to_be_bytes());
    greeting[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    let ours = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    greeting[16..18].copy_from_slice(&ours.to_be_bytes());
    socket.send_all(&greeting)?;
    let mut flags = [0; 4];
    socket.receive_all(&mut flags)?;
    let flags = u32::from_be_bytes(flags);
    if flags & !u32::from(ours) != 0 {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut haggling = Haggling {
        socket: Arc::clone(&socket),
        exports,
        tls: house.tls,
        is_encrypted: false,
        mode: Mode::Simple,
        chosen: None,
        no_zeroes: flags & u32::from(handshake::NO_ZEROES) != 0,
        out: Vec::new(),
    };
    let started = Instant::now();
    let mut data = Vec::new();
    for _ in 0..OPTIONS_MAX {
        if started.elapsed() > TIME_MAX {
            return Err(ErrorKind::TimedOut.into());
        }
        let number = haggling.receive_option(&mut data)?;
        if house.stopping.load(Ordering::Relaxed) && number != option::ABORT {
            haggling.refuse(number, reply::ERR_SHUTDOWN, "the server is stopping");
            haggling.send()?;
            continue;
        }
        let end = haggling.answer(number, &data)?;
        haggling.send()?;
        match end {
            End::GoOn => {}
            End::Leave => return Ok(None),
            End::Encrypt => {
                let Some(tls) = house.tls else { return Err(ErrorKind::InvalidData.into()) };
                socket = Arc::new(tls.enter(outside)?);
                socket.receive_timeout(Some(SILENCE_MAX));
                socket.send_timeout(Some(SILENCE_MAX));
                // What was agreed on in the clear may have been said by anybody.
                haggling.socket = Arc::clone(&socket);
                haggling.is_encrypted = true;
                haggling.mode = Mode::Simple;
                haggling.chosen = None;
                inside = Some(Arc::clone(&socket));
            }
            End::Go(export) => {
                socket.receive_timeout(None);
                socket.send_timeout(None);
                let mode = haggling.mode;
                let chosen = haggling.chosen.filter(|(name, _)| *name == export.name);
                let contexts = chosen.map(|(_, contexts)| contexts).unwrap_or_default();
                return Ok(Some(Agreed { export, mode, contexts, inside }));
            }
        }
    }
    Err(ErrorKind::InvalidData.into())
}

enum End {
    GoOn,
    Leave,
    Encrypt,
    Go(Arc<Export>),
}

struct Haggling<'a> {
    socket: Arc<Socket>,
    exports: &'a [Arc<Export>],
    tls: Option<&'a Tls>,
    is_encrypted: bool,
    mode: Mode,
    /// The export that metadata contexts were last set for, and which.
    chosen: Option<(String, Vec<Context>)>,
    no_zeroes: bool,
    out: Vec<u8>,
}

impl Haggling<'_> {
    fn receive_option(&mut self, data: &mut Vec<u8>) -> io::Result<u32> {
        let mut header = [0; 16];
        self.socket.receive_all(&mut header)?;
        let [magic @ .., a, b, c, d, e, f, g, h] = header;
        let length = u32::from_be_bytes([e, f, g, h]) as usize;
        if u64::from_be_bytes(magic) != OPTION_MAGIC || length > OPTION_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        data.clear();
        data.resize(length, 0);
        self.socket.receive_all(data)?;
        Ok(u32::from_be_bytes([a, b, c, d]))
    }

    fn answer(&mut self, number: u32, data: &[u8]) -> io::Result<End> {
        let must_encrypt = !self.is_encrypted && self.tls.is_some_and(Tls::is_required);
        match number {
            option::STARTTLS if self.tls.is_some() && !self.is_encrypted => {
                if !data.is_empty() {
                    self.refuse(number, reply::ERR_INVALID, "this option takes no data");
                    return Ok(End::GoOn);
                }
                self.reply(number, reply::ACK, &[]);
                return Ok(End::Encrypt);
            }
            option::EXPORT_NAME if must_encrypt => {
                return Err(ErrorKind::PermissionDenied.into());
            }
            _ if must_encrypt && number != option::ABORT => {
                self.refuse(number, reply::ERR_TLS_REQD, "ask for TLS first");
                return Ok(End::GoOn);
            }
            option::STARTTLS if self.is_encrypted => {
                self.refuse(number, reply::ERR_INVALID, "TLS is on already");
                return Ok(End::GoOn);
            }
            option::EXPORT_NAME => return self.export_name(data),
            option::ABORT => {
                self.reply(number, reply::ACK, &[]);
                return Ok(End::Leave);
            }
            option::INFO | option::GO => {
                if let Some(export) = self.info(number, data)
                    && number == option::GO
                {
                    return Ok(End::Go(export));
                }
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.meta_context(number, data);
            }
            option::STARTTLS => {
                self.refuse(number, reply::ERR_POLICY, "TLS is not offered here");
            }
            option::LIST | option::STRUCTURED_REPLY | option::EXTENDED_HEADERS
                if !data.is_empty() =>
            {
                self.refuse(number, reply::ERR_INVALID, "this option takes no data");
            }
            option::LIST => self.list(),
            option::STRUCTURED_REPLY if self.mode == Mode::Extended => {
                let why = "extended headers are agreed on already";
                self.refuse(number, reply::ERR_EXT_HEADER_REQD, why);
            }
            option::STRUCTURED_REPLY => {
                self.mode = Mode::Structured;
                self.reply(number, reply::ACK, &[]);
            }
            option::EXTENDED_HEADERS => {
                self.mode = Mode::Extended;
                self.reply(number, reply::ACK, &[]);
            }
            _ => self.refuse(number, reply::ERR_UNSUP, "unknown option"),
        }
        Ok(End::GoOn)
    }

    /// The old way in: no reply but the export itself, and no way to say no.
    fn export_name(&mut self, name: &[u8]) -> io::Result<End> {
        let Some(export) = self.find(name) else { return Err(ErrorKind::NotFound.into()) };
        self.out.extend_from_slice(&export.size_bytes().to_be_bytes());
        let flags = export.transmission_flags(self.mode != Mode::Simple);
        self.out.extend_from_slice(&flags.to_be_bytes());
        if !self.no_zeroes {
            self.out.extend_from_slice(&[0; 124]);
        }
        Ok(End::Go(export))
    }

    fn list(&mut self) {
        for export in self.exports.iter().filter(|export| !export.is_closed()) {
            let name = export.name.as_bytes();
            let mut data = (name.len() as u32).to_be_bytes().to_vec();
            data.extend_from_slice(name);
            data.extend_from_slice(export.description.as_bytes());
            reply_to(&mut self.out, option::LIST, reply::SERVER, &data);
        }
        self.reply(option::LIST, reply::ACK, &[]);
    }

    fn info(&mut self, number: u32, data: &[u8]) -> Option<Arc<Export>> {
        let Some((name, wanted)) = split_string(data).and_then(|(name, rest)| {
            let (count, wanted) = rest.split_first_chunk::<2>()?;
            (wanted.len() == usize::from(u16::from_be_bytes(*count)) * 2).then_some((name, wanted))
        }) else {
            self.refuse(number, reply::ERR_INVALID, "the option contradicts its own lengths");
            return None;
        };
        let Some(export) = self.find(name) else {
            self.refuse(number, reply::ERR_UNKNOWN, "there is no export of that name");
            return None;
        };
        let mut data = info::EXPORT.to_be_bytes().to_vec();
        data.extend_from_slice(&export.disk.size_bytes().to_be_bytes());
        let flags = export.transmission_flags(self.mode != Mode::Simple);
        data.extend_from_slice(&flags.to_be_bytes());
        self.reply(number, reply::INFO, &data);
        let wants = |kind| wanted.chunks_exact(2).any(|raw| u16_be(raw, 0) == Some(kind));
        for kind in [info::NAME, info::DESCRIPTION, info::BLOCK_SIZE] {
            if !wants(kind) || kind == info::DESCRIPTION && export.description.is_empty() {
                continue;
            }
            data.clear();
            data.extend_from_slice(&kind.to_be_bytes());
            match kind {
                info::NAME => data.extend_from_slice(export.name.as_bytes()),
                info::DESCRIPTION => data.extend_from_slice(export.description.as_bytes()),
                _ => export
                    .block_sizes()
                    .iter()
                    .for_each(|size| data.extend_from_slice(&size.to_be_bytes())),
            }
            self.reply(number, reply::INFO, &data);
        }
        self.reply(number, reply::ACK, &[]);
        Some(export)
    }

    fn meta_context(&mut self, number: u32, data: &[u8]) {
        let set = number == option::SET_META_CONTEXT;
        if set {
            self.chosen = None;
        }
        if self.mode == Mode::Simple {
            return self.refuse(number, reply::ERR_INVALID, "ask for structured replies first");
        }
        let Some((name, queries)) =
            split_string(data).and_then(|(name, rest)| Some((name, Queries::parse(rest)?)))
        else {
            return self.refuse(
                number,
                reply::ERR_INVALID,
                "the option contradicts its own lengths",
            );
        };
        let Some(export) = self.find(name) else {
            return self.refuse(number, reply::ERR_UNKNOWN, "there is no export of that name");
        };
        let contexts = queries.select(&export, set);
        for (index, context) in contexts.iter().enumerate() {
            let id = if set { index as u32 + 1 } else { 0 };
            let mut data = id.to_be_bytes().to_vec();
            data.extend_from_slice(context.name(&export).as_bytes());
            self.reply(number, reply::META_CONTEXT, &data);
        }
        self.reply(number, reply::ACK, &[]);
        if set {
            self.chosen = Some((export.name.clone(), contexts));
        }
    }

    /// The export of that name; the empty name means the only one there is.
    fn find(&self, name: &[u8]) -> Option<Arc<Export>> {
        let named = self.exports.iter().find(|export| export.name.as_bytes() == name);
        let only = self.exports.first().filter(|_| name.is_empty() && self.exports.len() == 1);
        named.or(only).filter(|export| !export.is_closed()).cloned()
    }

    fn refuse(&mut self, number: u32, error: u32, why: &str) {
        self.reply(number, error, why.as_bytes());
    }

    fn reply(&mut self, number: u32, kind: u32, data: &[u8]) {
        reply_to(&mut self.out, number, kind, data);
    }

    fn send(&mut self) -> io::Result<()> {
        self.socket.send_all(&self.out)?;
        self.out.clear();
        Ok(())
    }
}

fn reply_to(out: &mut Vec<u8>, number: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

/// A string with its length before it, and what follows it.
pub(super) fn split_string(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    (length <= STRING_BYTES_MAX).then(|| rest.split_at_checked(length))?
}
