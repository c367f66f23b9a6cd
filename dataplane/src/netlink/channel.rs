//! A socket to the kernel that is kept open and opened again after it failed.
//!
//! Kept open because closing a netfilter socket can wait for the kernel's deferred work (10 ms and more).
//! The kernel handles requests inside the send, so every answer but a long dump waits in the buffer
//! when the send returns; the receive timeout only guards against a lost answer.

use std::io;

use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::wire::HEADER_LEN;
use super::{Attributes, Batch, Message, Messages, NetlinkError, Refusal};

/// `NLMSG_ERROR`: a refusal, or an acknowledgement when the code is 0.
pub(super) const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;
/// `NLM_F_DUMP`.
const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: the state changed while it was dumped.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_CAPPED`: the refused request is not repeated in the answer.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: the answer carries an explanation.
const ACK_ATTRIBUTES: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;

/// The largest datagram that is read: an ip set error repeats a request of 64 KiB.
const DATAGRAM: usize = 128 * 1024;
/// Wanted receive buffer in bytes; without privileges the kernel gives less.
pub(crate) const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;
const RECEIVE_TIMEOUT_SECS: i64 = 10;
/// How often a dump is begun again when the state changes under it.
const DUMP_TRIES: usize = 5;

/// Which part of the kernel is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `NETLINK_ROUTE`, with strict checking, so that dumps are filtered by the kernel.
    Route,
    /// `NETLINK_NETFILTER`.
    Netfilter,
}

/// What came back for a message of a batch.
#[derive(Debug)]
pub enum Reply<'a> {
    /// An answer with content.
    Data {
        /// Which message of the batch.
        index: usize,
        /// The answer.
        message: Message<'a>,
    },
    /// The message was not carried out. The others were.
    Refused {
        /// Which message of the batch.
        index: usize,
        /// Why.
        refusal: Refusal,
        /// The payload of the refused request, where the kernel repeats it, else empty.
        request: &'a [u8],
    },
}

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpEnd {
    /// The state was the same from the first message to the last.
    Steady,
    /// All of it came, and the state changed meanwhile (`NLM_F_DUMP_INTR`). Some subsystems say so of a change of
    /// anything that they hold, whether it was dumped or not.
    Interrupted,
    /// It was broken off by a change, or what came while the state changed could not be read.
    Cut,
}

/// Takes the messages of a dump.
pub trait DumpSink {
    /// The dump begins, perhaps not for the first time: forget what came before.
    fn restart(&mut self);

    /// The next message.
    fn message(&mut self, message: Message<'_>) -> Result<(), NetlinkError>;
}

/// A blocking connection to the kernel.
pub struct Channel {
    protocol: Protocol,
    socket: Option<Socket>,
    sequence: u32,
    pub(super) buffer: Vec<u8>,
    requests: usize,
    /// Wanted send buffer in bytes; the kernel's default if absent.
    send_buffer: Option<usize>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Channel {
    /// A channel in the network namespace of the thread that first uses it.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, socket: None, sequence: 1, buffer: Vec::new(), requests: 0, send_buffer: None }
    }

    /// The same with a send buffer of about so many bytes; without privileges the kernel gives less.
    pub fn with_send_buffer(self, bytes: usize) -> Self {
        Self { send_buffer: Some(bytes), ..self }
    }

    /// Sends made since the beginning: batches, queries and dumps.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Sends the batch and hands every answer to `on_reply`. On error the outcome of the batch is not known.
    pub fn execute(
        &mut self,
        batch: &mut Batch,
        on_reply: &mut dyn FnMut(Reply<'_>),
    ) -> Result<(), NetlinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = self.send(batch)?;
        let result = self.collect(first, batch.len(), batch.awaited(), on_reply);
        self.drop_socket_on_error(&result);
        result
    }

    /// Sends one message and returns nothing but whether it was carried out.
    pub fn request(&mut self, batch: &mut Batch) -> Result<(), NetlinkError> {
        let mut refused = None;
        self.execute(batch, &mut |reply| {
            if let Reply::Refused { refusal, .. } = reply {
                refused = Some(refusal);
            }
        })?;
        refused.map_or(Ok(()), |refusal| Err(NetlinkError::Refused(refusal)))
    }

    /// Asks for a dump (`NLM_F_DUMP` is added) and hands its messages to `sink`, from the start again
    /// when the kernel says that the state changed meanwhile.
    pub fn dump(
        &mut self,
        kind: u16,
        body: &dyn Fn(&mut super::Writer<'_>),
        sink: &mut dyn DumpSink,
    ) -> Result<(), NetlinkError> {
        for _ in 0..DUMP_TRIES {
            if self.dump_once(kind, body, sink)? == DumpEnd::Steady {
                return Ok(());
            }
        }
        Err(NetlinkError::Unsteady)
    }

    /// The same, once: who asks decides what a reading is worth during which the state changed.
    pub fn dump_once(
        &mut self,
        kind: u16,
        body: &dyn Fn(&mut super::Writer<'_>),
        sink: &mut dyn DumpSink,
    ) -> Result<DumpEnd, NetlinkError> {
        sink.restart();
        let mut batch = Batch::new();
        batch.push(kind, DUMP, body);
        let first = self.send(&mut batch)?;
        let result = self.collect_dump(first, sink);
        self.drop_socket_on_error(&result);
        result
    }

    fn send(&mut self, batch: &mut Batch) -> Result<u32, NetlinkError> {
        let first = self.reserve(batch.len())?;
        let socket = self.socket.as_ref().ok_or(NetlinkError::Malformed("no socket"))?;
        let bytes = batch.seal(first);
        loop {
            match socket.send(bytes, 0) {
                Ok(_) => return Ok(first),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.socket = None;
                    return Err(NetlinkError::Send(error));
                }
            }
        }
    }

    /// The socket, opened if it is not.
    pub(super) fn connect(&mut self) -> Result<&Socket, NetlinkError> {
        if self.socket.is_none() {
            let socket = open(self.protocol).map_err(NetlinkError::Open)?;
            if let Some(bytes) = self.send_buffer {
                grow_send_buffer(&socket, bytes);
            }
            self.socket = Some(socket);
            self.buffer.clear();
            self.buffer.reserve_exact(DATAGRAM);
        }
        self.socket.as_ref().ok_or(NetlinkError::Malformed("no socket"))
    }

    /// Numbers for so many messages, of which the first is returned, and a socket for them.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<u32, NetlinkError> {
        self.connect()?;
        let count = u32::try_from(count).map_err(|_| NetlinkError::Malformed("too many messages"))?;
        // 0 is the number of events; it must never be ours.
        let first = if self.sequence.saturating_add(count) < u32::MAX / 2 { self.sequence } else { 1 };
        self.sequence = first.saturating_add(count);
        self.requests += 1;
        Ok(first)
    }

    /// Forgets the socket: the next request opens another.
    pub(super) fn close(&mut self) {
        self.socket = None;
    }

    fn collect(
        &mut self,
        first: u32,
        count: usize,
        awaited: usize,
        on_reply: &mut dyn FnMut(Reply<'_>),
    ) -> Result<(), NetlinkError> {
        loop {
            self.receive()?;
            for message in Messages::new(&self.buffer) {
                let message = message?;
                let index = message.sequence.wrapping_sub(first) as usize;
                if index >= count {
                    continue;
                }
                if message.kind != ERROR {
                    on_reply(Reply::Data { index, message });
                    continue;
                }
                let (refusal, request) = parse_error(&message)?;
                if let Some(refusal) = refusal {
                    on_reply(Reply::Refused { index, refusal, request });
                }
                if index == awaited {
                    return Ok(());
                }
            }
        }
    }

    /// Reads to the end of a dump. What the sink does not understand is reported at the end, so that the dump does
    /// not block the socket.
    fn collect_dump(&mut self, sequence: u32, sink: &mut dyn DumpSink) -> Result<DumpEnd, NetlinkError> {
        let mut steady = true;
        let mut outcome = Ok(());
        loop {
            self.receive()?;
            for message in Messages::new(&self.buffer) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                steady &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    ERROR => match parse_error(&message)?.0 {
                        Some(refusal) if refusal.is(Errno::EINTR) => return Ok(DumpEnd::Cut),
                        Some(refusal) => return Err(NetlinkError::Refused(refusal)),
                        None => {}
                    },
                    DONE => {
                        let refusal = parse_error(&message).ok().and_then(|(refusal, _)| refusal);
                        return match refusal {
                            Some(refusal) if refusal.is(Errno::EINTR) => Ok(DumpEnd::Cut),
                            Some(refusal) => Err(NetlinkError::Refused(refusal)),
                            None if steady => outcome.map(|()| DumpEnd::Steady),
                            None if outcome.is_ok() => Ok(DumpEnd::Interrupted),
                            None => Ok(DumpEnd::Cut),
                        };
                    }
                    _ if outcome.is_ok() => outcome = sink.message(message),
                    _ => {}
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), NetlinkError> {
        let Some(socket) = &self.socket else { return Err(NetlinkError::Malformed("no socket")) };
        loop {
            self.buffer.clear();
            match socket.recv(&mut self.buffer, nix::libc::MSG_TRUNC) {
                Ok(len) if len > self.buffer.len() => {
                    return Err(NetlinkError::Malformed("datagram larger than the buffer"));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    return Err(NetlinkError::Overrun);
                }
                Err(error) => return Err(NetlinkError::Receive(error)),
            }
        }
    }

    /// After a refusal the socket is fine; after anything else unread answers may be waiting in it.
    fn drop_socket_on_error<T>(&mut self, result: &Result<T, NetlinkError>) {
        if let Err(error) = result
            && error.refusal().is_none()
        {
            self.socket = None;
        }
    }
}

fn open(protocol: Protocol) -> io::Result<Socket> {
    let number = match protocol {
        Protocol::Route => netlink_sys::protocols::NETLINK_ROUTE,
        Protocol::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
    };
    let mut socket = Socket::new(number)?;
    socket.bind_auto()?;
    // Connected, so that only the kernel can send to us.
    socket.connect(&SocketAddr::new(0, 0))?;
    // Old kernels lack these options and do without: answers are longer, and dumps are filtered here too.
    let _ = socket.set_cap_ack(true);
    let _ = socket.set_ext_ack(true);
    if protocol == Protocol::Route {
        let _ = socket.set_netlink_get_strict_chk(true);
    }
    grow_receive_buffer(&socket);
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(RECEIVE_TIMEOUT_SECS))?;
    Ok(socket)
}

/// Asks for [`RECEIVE_BUFFER`]; without privileges in the first user namespace only up to `rmem_max`.
pub(crate) fn grow_receive_buffer(socket: &Socket) {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
}

/// Asks for so many bytes; without privileges in the first user namespace only up to `wmem_max`.
fn grow_send_buffer(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
    }
}

/// The refusal in an error message, `None` for an acknowledgement, and the payload of the request.
/// The payload of `NLMSG_DONE` begins with the same code.
pub(super) fn parse_error<'a>(message: &Message<'a>) -> Result<(Option<Refusal>, &'a [u8]), NetlinkError> {
    let payload = message.payload;
    let Some((code, rest)) = payload.split_first_chunk::<4>() else {
        return Err(NetlinkError::Malformed("error without a code"));
    };
    let errno = i32::from_ne_bytes(*code).wrapping_neg();
    if errno == 0 {
        return Ok((None, &[]));
    }
    let repeated = if message.kind == DONE || message.flags & CAPPED != 0 {
        &[]
    } else {
        let len = rest.first_chunk::<4>().map_or(0, |len| u32::from_ne_bytes(*len) as usize);
        rest.get(HEADER_LEN..len).unwrap_or_default()
    };
    let mut explanation = None;
    if message.flags & ACK_ATTRIBUTES != 0 {
        let header = if message.kind == DONE { 0 } else { HEADER_LEN };
        let skip = (header + repeated.len()).next_multiple_of(4);
        for attribute in Attributes::new(rest.get(skip..).unwrap_or_default()).flatten() {
            if attribute.kind == ERROR_TEXT {
                explanation = attribute.text().ok().map(ToOwned::to_owned);
            }
        }
    }
    Ok((Some(Refusal { errno, explanation }), repeated))
}
