//! The packets of probes that are told by arrival. Each carries a token that names its probe.

use crate::lab::Traffic;

const MARK: [u8; 4] = *b"TRTL";
const TOKEN_LENGTH: usize = 12;

/// The payload that names a probe of this process.
pub(super) fn token(id: u32) -> [u8; TOKEN_LENGTH] {
    let mut token = [0; TOKEN_LENGTH];
    token[..4].copy_from_slice(&MARK);
    token[4..8].copy_from_slice(&std::process::id().to_be_bytes());
    token[8..].copy_from_slice(&id.to_be_bytes());
    token
}

/// The probe that a received packet names, wherever in it the token is.
pub(super) fn find_token(packet: &[u8]) -> Option<u32> {
    let found = packet
        .windows(TOKEN_LENGTH)
        .find(|w| w[..4] == MARK && w[4..8] == std::process::id().to_be_bytes())?;
    Some(u32::from_be_bytes(found[8..].try_into().ok()?))
}

/// What follows the IP header for a probe of `traffic`; `source_port` matters to SCTP only.
pub(super) fn build(traffic: Traffic, id: u32, source_port: u16) -> Vec<u8> {
    match traffic {
        Traffic::Icmp { kind, code } => {
            let mut packet = icmp(kind, code, id);
            let sum = internet_checksum(&packet).to_be_bytes();
            packet[2..4].copy_from_slice(&sum);
            packet
        }
        Traffic::Icmpv6 { kind, code } => icmp(kind, code, id), // the kernel adds the checksum
        Traffic::Sctp { port, .. } => sctp_init(source_port, port, id),
        Traffic::Tcp { .. } | Traffic::Udp { .. } | Traffic::Ip { .. } => token(id).to_vec(),
    }
}

/// A message with the layout of an echo (RFC 792, RFC 4443) and no checksum; the identifier keeps flows apart.
fn icmp(kind: u8, code: u8, id: u32) -> Vec<u8> {
    let [_, _, high, low] = id.to_be_bytes();
    [&[kind, code, 0, 0, high, low, 0, 1][..], &token(id)].concat()
}

/// An INIT chunk (RFC 9260, section 3.3.2) whose only parameter, of a type to be skipped, holds the token.
fn sctp_init(source_port: u16, port: u16, id: u32) -> Vec<u8> {
    let mut packet = [source_port.to_be_bytes(), port.to_be_bytes()].concat();
    packet.extend([0; 8]); // verification tag, checksum
    packet.extend([1, 0, 0, 36]); // INIT, no flags, length
    packet.extend(id.saturating_add(1).to_be_bytes()); // initiate tag: not 0
    packet.extend(65_536_u32.to_be_bytes()); // window
    packet.extend([0, 1, 0, 1]); // streams out and in
    packet.extend(1_u32.to_be_bytes()); // initial sequence number
    packet.extend([0xc0, 0x01, 0, 16]);
    packet.extend(token(id));
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// CRC-32C, bit by bit (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_agree_with_published_values() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283); // the check value of CRC-32C
        assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2); // RFC 1071, 3
    }

    #[test]
    fn every_packet_names_its_probe() {
        for text in ["SCTP/80", "ICMP", "ICMPv6", "253"] {
            let packet = build(text.parse().unwrap(), 77, 20_000);
            assert_eq!(find_token(&[&[0x45; 20], &packet[..]].concat()), Some(77), "{text}");
        }
        assert_eq!(find_token(b"TRTL"), None);
    }
}
