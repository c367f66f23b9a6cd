//! Answers for programs.

use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};
use tortie_datastore::to_yaml;

use crate::Error;
use crate::cli::DataFormat;
use crate::console::Console;

/// Writes an answer.
pub(crate) fn say(value: &Value, format: DataFormat, console: &mut Console) -> Result<(), Error> {
    let text = match format {
        DataFormat::Json => to_json(value)?,
        DataFormat::Yaml => to_yaml(value),
    };
    console.say(&text);
    Ok(())
}

/// JSON as kubectl prints it, indented by four blanks.
pub(crate) fn to_json(value: &Value) -> Result<String, Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))?;
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
