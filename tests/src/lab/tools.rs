//! The programs that the lab calls, and where ordinary users have them.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use super::LabError;

/// What the lab and the agents in it call: program and Debian package.
const NEEDED: [(&str, &str); 3] = [("ip", "iproute2"), ("iptables", "iptables"), ("ipset", "ipset")];

/// Checks that every program needed is installed.
pub(super) fn check() -> Result<(), LabError> {
    for (program, package) in NEEDED {
        if !env::split_paths(&search_path()).any(|dir| dir.join(program).is_file()) {
            return Err(LabError::MissingProgram { program, package });
        }
    }
    Ok(())
}

/// The search path with the system's directories added, which an ordinary user's lacks on Debian.
pub(super) fn search_path() -> OsString {
    let mut dirs: Vec<PathBuf> =
        env::var_os("PATH").map(|p| env::split_paths(&p).collect()).unwrap_or_default();
    for dir in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        if !dirs.iter().any(|d| d.as_os_str() == dir) {
            dirs.push(dir.into());
        }
    }
    env::join_paths(dirs).unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into())
}
