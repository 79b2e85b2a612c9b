//! The page's files: embedded in a release, read from disk in a development build, so that an edit
//! there needs only a reload.

use std::borrow::Cow;

/// One file of the page.
pub(crate) struct Asset {
    /// Its path below `/`.
    pub(crate) name: &'static str,
    /// Its content type.
    pub(crate) kind: &'static str,
    #[cfg(not(debug_assertions))]
    bytes: &'static [u8],
}

impl Asset {
    #[cfg(not(debug_assertions))]
    pub(crate) fn bytes(&self) -> std::io::Result<Cow<'static, [u8]>> {
        Ok(Cow::Borrowed(self.bytes))
    }

    #[cfg(debug_assertions)]
    pub(crate) fn bytes(&self) -> std::io::Result<Cow<'static, [u8]>> {
        let web = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        std::fs::read(web.join(self.name)).map(Cow::Owned)
    }
}

macro_rules! assets {
    ($($name:literal $kind:expr;)*) => {
        &[$(Asset {
            name: $name,
            kind: $kind,
            #[cfg(not(debug_assertions))]
            bytes: include_bytes!(concat!("../web/", $name)),
        }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

/// Every file that the page may ask for; nothing else is served.
pub(crate) const ASSETS: &[Asset] = assets! {
    "index.html" HTML;
    "style.css" CSS;
    "icon.svg" SVG;
    "accounts.js" SCRIPT;
    "bars.js" SCRIPT;
    "cap.js" SCRIPT;
    "caplane.js" SCRIPT;
    "capwords.js" SCRIPT;
    "compare.js" SCRIPT;
    "dom.js" SCRIPT;
    "editor.js" SCRIPT;
    "flp.js" SCRIPT;
    "gestures.js" SCRIPT;
    "help.js" SCRIPT;
    "histories.js" SCRIPT;
    "inspector.js" SCRIPT;
    "keyspaces.js" SCRIPT;
    "kinds.js" SCRIPT;
    "ladder.js" SCRIPT;
    "lessons.js" SCRIPT;
    "live.js" SCRIPT;
    "main.js" SCRIPT;
    "matrix.js" SCRIPT;
    "matrix.json" JSON;
    "measures.js" SCRIPT;
    "members.js" SCRIPT;
    "menu.js" SCRIPT;
    "protocols.js" SCRIPT;
    "ring.js" SCRIPT;
    "script.js" SCRIPT;
    "sessions.js" SCRIPT;
    "spacetime.js" SCRIPT;
    "story.js" SCRIPT;
    "table.js" SCRIPT;
    "trace.js" SCRIPT;
    "transactions.js" SCRIPT;
    "transfer.js" SCRIPT;
    "transport.js" SCRIPT;
    "verdicts.js" SCRIPT;
    "view.js" SCRIPT;
    "words.js" SCRIPT;
};

/// The file of that name; the empty name is the page itself.
pub(crate) fn find(name: &str) -> Option<&'static Asset> {
    let name = if name.is_empty() { "index.html" } else { name };
    ASSETS.iter().find(|asset| asset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_of_the_page_is_served() {
        let web = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let on_disk: BTreeSet<String> = std::fs::read_dir(web)
            .expect("the page's folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.name.to_owned()).collect();
        assert_eq!(on_disk, served);
    }
}
