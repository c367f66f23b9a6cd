//! Making a namespace forget its tracked connections, without the `conntrack` program.

use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{LabError, Netns};

/// `AF_NETLINK` and `NETLINK_NETFILTER` of linux/netlink.h.
const AF_NETLINK: i32 = 16;
const NETLINK_NETFILTER: i32 = 12;
/// `IPCTNL_MSG_CT_DELETE` of the subsystem `NFNL_SUBSYS_CTNETLINK` (linux/netfilter/nfnetlink*.h); without
/// attributes it deletes every entry.
const CT_DELETE: u16 = (1 << 8) | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_ACK: u16 = 1 | 4;

/// Deletes all entries of the namespace's connection table.
pub(super) fn flush(netns: &Netns) -> Result<(), LabError> {
    netns.enter(flush_here)?.map_err(LabError::io(format!("flush connection tracking of {}", netns.label())))
}

fn flush_here() -> io::Result<()> {
    let mut socket =
        Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_NETFILTER)))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::with_capacity(20);
    request.extend(20_u32.to_ne_bytes());
    request.extend(CT_DELETE.to_ne_bytes());
    request.extend(REQUEST_ACK.to_ne_bytes());
    request.extend([0; 12]); // sequence, port, and a netfilter header of any family
    socket.write_all(&request)?;
    let mut answer = [0; 256];
    let length = loop {
        match socket.read(&mut answer) {
            // The end of a program that another test ran interrupts waits.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => break length?,
        }
    };
    // An NLMSG_ERROR: the header, then a negated error number, 0 for success.
    match answer[..length].get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}
