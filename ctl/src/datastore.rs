//! From `--datastore` to an open store.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tortie_datastore::LocalStore;

use crate::Error;
use crate::cli::Shared;

/// Opens the datastore that the command line or the environment names.
pub(crate) fn open(shared: &Shared) -> Result<LocalStore, Error> {
    let missing = || "no datastore: give --datastore local:DIR, or set TORTIE_DATASTORE".to_owned();
    let text = shared.datastore.as_deref().filter(|text| !text.is_empty());
    let dir = local_dir(text.ok_or_else(|| Error::Usage(missing()))?)?;
    Ok(LocalStore::open(dir)?)
}

fn local_dir(text: &OsStr) -> Result<&Path, Error> {
    match text.as_bytes().strip_prefix(b"local:") {
        Some(dir) if !dir.is_empty() => Ok(Path::new(OsStr::from_bytes(dir))),
        _ => Err(Error::Usage(format!("{} is no datastore; use local:DIR", text.display()))),
    }
}
