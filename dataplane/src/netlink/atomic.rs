//! Messages that must reach the kernel in one datagram: a transaction of nf_tables.
//!
//! No message asks for an acknowledgement. The kernel handles the datagram inside the send, and what it refused waits in
//! the receive buffer afterwards: nothing there means that everything was done.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;

use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, getsockopt, sendmsg, sockopt};

use super::channel::{ERROR, parse_error};
use super::{Channel, Messages, NetlinkError, Refusal};

/// What the kernel keeps of the send buffer for itself (`netlink_sendmsg`).
const SEND_OVERHEAD: usize = 32;

impl Channel {
    /// The largest datagram that the socket takes, in bytes.
    pub(crate) fn largest_send(&mut self) -> Result<usize, NetlinkError> {
        let socket = self.connect()?;
        let bytes = getsockopt(socket, sockopt::SndBuf).map_err(|errno| NetlinkError::Open(errno.into()))?;
        Ok(bytes.saturating_sub(SEND_OVERHEAD))
    }

    /// The socket's port.
    pub(crate) fn port(&mut self) -> Result<u32, NetlinkError> {
        let mut address = SocketAddr::new(0, 0);
        self.connect()?.get_address(&mut address).map_err(NetlinkError::Open)?;
        Ok(address.port_number())
    }

    /// Sends all pieces, whose messages are numbered from `first` on, in one datagram and hands what was refused to
    /// `on_refusal`, by index. True when refusals were lost because there were too many.
    pub(crate) fn send_atomic(
        &mut self,
        pieces: &[&[u8]],
        first: u32,
        on_refusal: &mut dyn FnMut(usize, Refusal),
    ) -> Result<bool, NetlinkError> {
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let socket = self.connect()?.as_raw_fd();
        loop {
            match sendmsg::<()>(socket, &slices, &[], MsgFlags::empty(), None) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    self.close();
                    return Err(NetlinkError::Send(errno.into()));
                }
            }
        }
        let drained = self.drain(first, on_refusal);
        if drained.is_err() {
            self.close();
        }
        drained
    }

    fn drain(
        &mut self,
        first: u32,
        on_refusal: &mut dyn FnMut(usize, Refusal),
    ) -> Result<bool, NetlinkError> {
        let mut lost = false;
        loop {
            self.buffer.clear();
            let mut buffer = std::mem::take(&mut self.buffer);
            let flags = nix::libc::MSG_DONTWAIT | nix::libc::MSG_TRUNC;
            let received = self.connect()?.recv(&mut buffer, flags);
            self.buffer = buffer;
            match received {
                Ok(len) if len > self.buffer.len() => {
                    return Err(NetlinkError::Malformed("datagram larger than the buffer"));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lost),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    lost = true;
                    continue;
                }
                Err(error) => return Err(NetlinkError::Receive(error)),
            }
            for message in Messages::new(&self.buffer) {
                let message = message?;
                // What is left of an older request has a lower number.
                if message.kind == ERROR
                    && message.sequence >= first
                    && let Some(refusal) = parse_error(&message)?.0
                {
                    on_refusal((message.sequence - first) as usize, refusal);
                }
            }
        }
    }
}
