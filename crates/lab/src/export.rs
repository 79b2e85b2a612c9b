//! The page and one trace as a single file that opens anywhere, also without a server and a network.
//!
//! The page's modules become `data:` addresses under names of an import map, so that they are the same files that the
//! server serves: no bundler rewrites them.

use crate::assets::{self, ASSETS};
use crate::trace::Trace;
use std::fmt::Write as _;

/// Bytes of events that an exported page may carry; a browser reads all of them at once.
pub const EXPORT_BYTES_MAX: usize = 64 << 20;

/// The file may load nothing from anywhere.
const POLICY: &str =
    "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data:";

/// Why a page cannot be exported.
#[derive(Debug)]
pub enum ExportError {
    /// The trace has more than [`EXPORT_BYTES_MAX`] bytes of events.
    TooLarge(usize),
    /// A file of the page cannot be read, which happens in a development build only.
    Asset(&'static str, std::io::Error),
}

impl std::fmt::Display for ExportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExportError::TooLarge(bytes) => write!(
                f,
                "the run has {bytes} bytes of events and a page carries {EXPORT_BYTES_MAX}: let it be shorter with `for`"
            ),
            ExportError::Asset(name, error) => write!(f, "the page's file {name} cannot be read: {error}"),
        }
    }
}

impl std::error::Error for ExportError {}

/// The page with `trace` in it, as one HTML file.
///
/// # Errors
/// [`ExportError`].
pub fn export(trace: &Trace) -> Result<String, ExportError> {
    if trace.bytes() > EXPORT_BYTES_MAX {
        return Err(ExportError::TooLarge(trace.bytes()));
    }
    let icon = format!("data:image/svg+xml,{}", percent_encoded(&text("icon.svg")?));
    let head = format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n<meta charset=");
    let script = format!(
        "<script type=\"importmap\">{}</script>\n<script type=\"application/json\" id=\"embedded\">{}</script>\n\
         <script type=\"module\">import 'synod/main.js';</script>",
        import_map()?,
        // Nothing in the data may look like the end of the element that holds it.
        trace.to_json().replace('<', "\\u003c"),
    );
    Ok(text("index.html")?
        .replacen("<meta charset=", &head, 1)
        .replace("\"icon.svg\"", &format!("\"{icon}\""))
        .replacen(
            "<link rel=\"stylesheet\" href=\"style.css\">",
            &format!("<style>{}</style>", text("style.css")?),
            1,
        )
        .replacen("<script type=\"module\" src=\"main.js\"></script>", &script, 1))
}

/// `synod/trace.js` and so on, each with its text.
fn import_map() -> Result<String, ExportError> {
    let mut imports = serde_json::Map::new();
    for asset in ASSETS.iter().filter(|asset| asset.name.ends_with(".js")) {
        let source = text(asset.name)?.replace(" from './", " from 'synod/");
        let address = format!("data:text/javascript,{}", percent_encoded(&source));
        imports.insert(format!("synod/{}", asset.name), address.into());
    }
    Ok(serde_json::json!({ "imports": imports }).to_string())
}

fn text(name: &'static str) -> Result<String, ExportError> {
    let asset = assets::find(name).expect("the page has this file");
    let bytes = asset.bytes().map_err(|error| ExportError::Asset(name, error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3 / 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' | b'(' | b')' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}
