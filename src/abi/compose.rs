//! Stand-in until the parts are composed here.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::token::Library;

/// Builds the library from its parts.
///
/// # Errors
/// What the configuration or the store answers.
pub fn library(_config_path: Option<&str>, _threads_allowed: bool) -> Result<Arc<Library>> {
    Err(Error::from(Kind::FunctionNotSupported))
}
