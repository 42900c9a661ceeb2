//! Fixed newstyle negotiation, the client's side.

use super::address::Address;
use super::tls::ClientTls;
use crate::errors::tame;
use crate::protocol::*;
use crate::socket::Socket;
use adit_core::bytes::{u16_be, u32_be, u64_be};
use adit_core::{Error, Kind, Problem, Result};

/// Longest reply to an option that is believed. Unit: bytes.
const REPLY_BYTES_MAX: usize = 64 << 10;
/// Most replies to one option.
const REPLIES_MAX: u32 = 1000;

/// What the server offers. Two connections to one export must offer the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) mode: Mode,
    pub(super) size_bytes: u64,
    pub(super) block_bytes_min: u32,
    pub(super) block_bytes_preferred: u32,
    pub(super) request_bytes_max: u64,
    /// Whether block status may be asked for.
    pub(super) status: bool,
    /// Its id.
    pub(super) status_id: u32,
    /// Whether several connections are safe.
    pub(super) multi: bool,
}

/// Talks to a server until it lets us in; with `tls`, what comes first is the inside of the
/// connection from then on.
pub(super) fn negotiate(
    socket: &Socket,
    address: &Address,
    tls: Option<&ClientTls>,
) -> Result<(Option<Socket>, Offer)> {
    let mut greeting = [0; 18];
    receive(socket, &mut greeting)?;
    let magic = (u64_be(&greeting, 0), u64_be(&greeting, 8));
    if magic != (Some(INIT_MAGIC), Some(OPTION_MAGIC)) {
        return Err(Error::corrupt(Problem::BadMagic, "what listens there does not speak NBD")
            .advise("check the address; the oldstyle protocol is not understood"));
    }
    let theirs = u16_be(&greeting, 16).unwrap_or(0);
    if theirs & handshake::FIXED_NEWSTYLE == 0 {
        return Err(Error::unsupported("the server does not speak fixed newstyle NBD"));
    }
    let ours = theirs & (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
    send(socket, &u32::from(ours).to_be_bytes())?;
    let Some(tls) = tls else { return haggle(socket, address).map(|offer| (None, offer)) };
    if !(Haggling { socket, data: Vec::new() }).agree(option::STARTTLS)? {
        // Never in the clear instead.
        return Err(Error::unsupported("the server does not encrypt")
            .advise("say nbd:// instead of nbds:// if that is as it should be"));
    }
    let inside = tls.enter(socket)?;
    let offer = haggle(&inside, address)?;
    Ok((Some(inside), offer))
}

fn haggle(socket: &Socket, address: &Address) -> Result<Offer> {
    let mut haggling = Haggling { socket, data: Vec::new() };
    let mode = if haggling.agree(option::EXTENDED_HEADERS)? {
        Mode::Extended
    } else if haggling.agree(option::STRUCTURED_REPLY)? {
        Mode::Structured
    } else {
        Mode::Simple
    };
    let status_id = match mode {
        Mode::Simple => None,
        _ => haggling.base_allocation(&address.export)?,
    };
    let mut offer = Offer {
        mode,
        size_bytes: 0,
        block_bytes_min: 1,
        block_bytes_preferred: 4096,
        request_bytes_max: REQUEST_BYTES_MAX,
        status: status_id.is_some(),
        status_id: status_id.unwrap_or(0),
        multi: false,
    };
    haggling.go(&address.export, &mut offer)?;
    Ok(offer)
}

struct Haggling<'a> {
    socket: &'a Socket,
    data: Vec<u8>,
}

impl Haggling<'_> {
    fn ask(&self, number: u32, data: &[u8]) -> Result<()> {
        let mut out = OPTION_MAGIC.to_be_bytes().to_vec();
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
        send(self.socket, &out)
    }

    /// The next reply; its payload is in `data`.
    fn reply(&mut self, number: u32) -> Result<u32> {
        let mut header = [0; 20];
        receive(self.socket, &mut header)?;
        let about = (u64_be(&header, 0), u32_be(&header, 8));
        let length = u32_be(&header, 16).unwrap_or(u32::MAX) as usize;
        if about != (Some(OPTION_REPLY_MAGIC), Some(number)) || length > REPLY_BYTES_MAX {
            return Err(violation("a reply to an option makes no sense"));
        }
        self.data.clear();
        self.data.resize(length, 0);
        receive(self.socket, &mut self.data)?;
        Ok(u32_be(&header, 12).unwrap_or(0))
    }

    /// Asks for a feature without parameters.
    fn agree(&mut self, number: u32) -> Result<bool> {
        self.ask(number, &[])?;
        match self.reply(number)? {
            reply::ACK => Ok(true),
            reply::ERR_TLS_REQD => Err(self.refusal(reply::ERR_TLS_REQD)),
            kind if kind & reply::ERROR_BIT != 0 => Ok(false),
            _ => Err(violation("an option got an answer that does not belong to it")),
        }
    }

    fn base_allocation(&mut self, export: &str) -> Result<Option<u32>> {
        let mut data = (export.len() as u32).to_be_bytes().to_vec();
        data.extend_from_slice(export.as_bytes());
        data.extend_from_slice(&1u32.to_be_bytes());
        data.extend_from_slice(&(BASE_ALLOCATION.len() as u32).to_be_bytes());
        data.extend_from_slice(BASE_ALLOCATION.as_bytes());
        self.ask(option::SET_META_CONTEXT, &data)?;
        let mut id = None;
        for _ in 0..REPLIES_MAX {
            match self.reply(option::SET_META_CONTEXT)? {
                reply::ACK => return Ok(id),
                reply::META_CONTEXT if self.data.get(4..) == Some(BASE_ALLOCATION.as_bytes()) => {
                    id = u32_be(&self.data, 0);
                }
                kind if kind & reply::ERROR_BIT != 0 => return Ok(None),
                _ => return Err(violation("it selected a context that nobody asked for")),
            }
        }
        Err(violation("it never stops answering an option"))
    }

    fn go(&mut self, export: &str, offer: &mut Offer) -> Result<()> {
        let mut data = (export.len() as u32).to_be_bytes().to_vec();
        data.extend_from_slice(export.as_bytes());
        data.extend_from_slice(&1u16.to_be_bytes());
        data.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
        self.ask(option::GO, &data)?;
        let mut known = false;
        for _ in 0..REPLIES_MAX {
            match self.reply(option::GO)? {
                reply::ACK if known => return Ok(()),
                reply::INFO => known |= self.take_info(offer)?,
                kind if kind & reply::ERROR_BIT != 0 => return Err(self.refusal(kind)),
                _ => return Err(violation("it did not say how large the export is")),
            }
        }
        Err(violation("it never stops answering an option"))
    }

    /// True for the size of the export, which must come.
    fn take_info(&self, offer: &mut Offer) -> Result<bool> {
        let data = &self.data;
        match u16_be(data, 0) {
            Some(info::EXPORT) => {
                let (Some(size), Some(flags)) = (u64_be(data, 2), u16_be(data, 10)) else {
                    return Err(violation("its description of the export is cut short"));
                };
                // Larger ones cannot be addressed by a file offset anywhere else either.
                if size > i64::MAX as u64 {
                    return Err(violation("the export claims more than 2^63 bytes"));
                }
                offer.size_bytes = size;
                offer.multi = flags & transmission::CAN_MULTI_CONN != 0;
                Ok(true)
            }
            Some(info::BLOCK_SIZE) => {
                let sizes = (u32_be(data, 2), u32_be(data, 6), u32_be(data, 10));
                let (Some(least), Some(preferred), Some(most)) = sizes else {
                    return Err(violation("its block sizes are cut short"));
                };
                let sane = least.is_power_of_two() && least <= 1 << 16 && most >= least;
                if !sane || !preferred.is_power_of_two() {
                    return Err(violation("its block sizes are not what the protocol allows"));
                }
                offer.block_bytes_min = least;
                offer.block_bytes_preferred = preferred;
                let most = u64::from(most - most % least);
                offer.request_bytes_max = most.min(REQUEST_BYTES_MAX);
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn refusal(&self, kind: u32) -> Error {
        let said = tame(&self.data);
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        match kind {
            reply::ERR_UNKNOWN => Error::not_found(format!("the server has no such export{said}"))
                .advise("`nbdinfo --list` shows what it has"),
            reply::ERR_TLS_REQD => Error::unsupported(format!("the server insists on TLS{said}"))
                .advise("say nbds:// with ?tls-certificates=FOLDER"),
            reply::ERR_POLICY => {
                Error::new(Kind::Denied, Problem::Refused, format!("the server refuses{said}"))
            }
            reply::ERR_SHUTDOWN => {
                Error::new(Kind::Busy, Problem::Stopped, "the server is stopping")
            }
            _ => {
                Error::unsupported(format!("the server does not let us in (reply {kind:#x}){said}"))
            }
        }
    }
}

pub(super) fn violation(what: &str) -> Error {
    Error::corrupt(Problem::BadValue, format!("the NBD server breaks the protocol: {what}"))
}

pub(super) fn send(socket: &Socket, bytes: &[u8]) -> Result<()> {
    socket
        .send_all(bytes)
        .map_err(|why| Error::io(Problem::Unreadable, "asking the NBD server", &why))
}

pub(super) fn receive(socket: &Socket, buf: &mut [u8]) -> Result<()> {
    socket
        .receive_all(buf)
        .map_err(|why| Error::io(Problem::Unreadable, "listening to the NBD server", &why))
}
