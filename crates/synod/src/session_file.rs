//! Sessions of a shell: a token that stands in a file, so that one command after another is one session.

use crate::Failure;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Bytes of a file with a token at the most: a token has up to 16 KiB, and four characters for three bytes.
const FILE_BYTES_MAX: u64 = 24 << 10;
/// Bytes of the shortest token.
const TOKEN_BYTES_MIN: usize = 11;

/// Where a session's token comes from, and goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// Read from here and written here.
    File(PathBuf),
    /// Given as it is; the next one is said.
    Given,
}

/// The session that the command line names: where its token stands, and what it is. The first one of a file is none.
pub fn open(text: &str) -> Result<(Place, Option<String>), Failure> {
    let path = Path::new(text);
    if !path.exists() && is_token(text) {
        return Ok((Place::Given, Some(text.to_owned())));
    }
    let unusable = |why: &dyn std::fmt::Display| {
        Failure::Usage(format!("the session's file {}: {why}: name another one", path.display()))
    };
    let token = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(unusable(&error)),
        Ok(found) if !found.is_file() || found.len() > FILE_BYTES_MAX => {
            return Err(unusable(&"it holds no session"));
        }
        Ok(_) => Some(fs::read_to_string(path).map_err(|error| unusable(&error))?),
    };
    let token = token.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    match token {
        Some(token) if !is_token(&token) => Err(unusable(&"it holds no session, and is left as it is")),
        token => Ok((Place::File(path.to_owned()), token)),
    }
}

/// Keeps a session's next token. A command that is killed meanwhile leaves the one before.
pub fn keep(place: &Place, token: &str) -> Result<(), Failure> {
    let Place::File(path) = place else {
        eprintln!("session: {token}");
        return Ok(());
    };
    let beside = {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        path.with_file_name(name)
    };
    let written = fs::File::create(&beside)
        .and_then(|mut file| file.write_all(format!("{token}\n").as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        Failure::Usage(format!("it was done, but the session's file {}: {error}", path.display()))
    })
}

/// Whether this may be a token: the members know whether it is one.
fn is_token(text: &str) -> bool {
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    // The first byte is the format.
    bytes.len() >= TOKEN_BYTES_MIN && matches!(bytes[0], 1 | 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "AfbUiarzmtvgfwIBAQEBAQGxkY7scrJ8vQ";

    #[test]
    fn a_file_is_read_and_written_and_a_token_is_one() {
        let folder = std::env::temp_dir().join(format!("synod-session-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("me");
        let name = path.to_str().expect("text");
        let (place, token) = open(name).expect("there is none yet");
        assert_eq!((&place, token), (&Place::File(path.clone()), None));
        keep(&place, TOKEN).expect("written");
        assert_eq!(open(name).expect("read").1.as_deref(), Some(TOKEN));
        fs::write(&path, "dear diary").expect("written");
        assert!(matches!(open(name), Err(Failure::Usage(why)) if why.contains("left as it is")));
        assert_eq!(fs::read_to_string(&path).expect("read"), "dear diary");
        assert!(open(folder.to_str().expect("text")).is_err(), "a folder is no file");
        assert_eq!(open(TOKEN).expect("a token"), (Place::Given, Some(TOKEN.to_owned())));
        assert_eq!(fs::read_dir(&folder).expect("there").count(), 1, "nothing is left behind");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
