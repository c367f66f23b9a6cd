//! Version numbers of programs and kernels.

use std::fmt;

/// Major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// From the answer to `iptables --version`, e.g. `iptables v1.8.9 (nf_tables)`.
    pub fn of_iptables(answer: &str) -> Option<Self> {
        answer.match_indices('v').find_map(|(at, _)| {
            let (version, parts) = leading(&answer[at + 1..]);
            (parts == 3).then_some(version)
        })
    }

    /// From a kernel release, e.g. `6.1.0-13-amd64` or `4.4-generic`.
    pub fn of_kernel(release: &str) -> Option<Self> {
        let (version, parts) = leading(release);
        (parts >= 2).then_some(version)
    }
}

/// The version at the start of a text and how many of its parts were there.
fn leading(text: &str) -> (Version, usize) {
    let mut numbers = [0; 3];
    let mut parts = 0;
    let mut rest = text;
    for number in &mut numbers {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let Ok(value) = rest[..end].parse() else { break };
        *number = value;
        parts += 1;
        let Some(tail) = rest[end..].strip_prefix('.') else { break };
        rest = tail;
    }
    (Version(numbers[0], numbers[1], numbers[2]), parts)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iptables_versions_are_read() {
        assert_eq!(Version::of_iptables("iptables v1.8.9 (nf_tables)\n"), Some(Version(1, 8, 9)));
        assert_eq!(Version::of_iptables("iptables v1.4.21"), Some(Version(1, 4, 21)));
        assert_eq!(Version::of_iptables("very v1.8"), None);
        assert_eq!(Version::of_iptables(""), None);
    }

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(Version::of_kernel("6.18.44-fc-v657"), Some(Version(6, 18, 44)));
        assert_eq!(Version::of_kernel("4.4-generic"), Some(Version(4, 4, 0)));
        assert_eq!(Version::of_kernel("5"), None);
        assert_eq!(Version::of_kernel("99999999999.1"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version(1, 6, 2) > Version(1, 6, 0));
        assert!(Version(1, 10, 0) > Version(1, 9, 9));
    }
}
