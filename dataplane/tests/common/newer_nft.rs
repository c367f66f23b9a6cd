//! The `nft` of a newer Debian, unpacked beside the one that is installed.

use std::path::Path;
use std::process::Command;

/// A program that runs, or why there is none.
pub(crate) fn find() -> Result<String, String> {
    let named = std::env::var("TORTIE_NEWER_NFT").ok();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/newer-nft/nft");
    let program = named.unwrap_or_else(|| unpacked.display().to_string());
    match Command::new(&program).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(program),
        _ => Err(format!("no newer nft at {program}: run tools/fetch-nft")),
    }
}
