//! A headless Chromium, driven through its DevTools protocol: just enough for tests of a page.
//!
//! Everything waits with a limit and fails with what the page shows then. Whatever the page does
//! that no page of ours may do (an uncaught error, a request to another machine) is kept, and
//! [`Page::assert_clean`] fails on it.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// How long Chromium may take to start and to answer one command.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long a page may take until it shows what is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running Chromium with an empty profile of its own; both are gone when it is dropped.
pub struct Browser {
    child: Child,
    profile: PathBuf,
    address: String,
}

impl Browser {
    /// Starts Chromium, or says loudly that there is none. `SYNOD_CHROMIUM` names one elsewhere;
    /// with `SYNOD_REQUIRE_TOOLS` set, a missing one is a failure.
    pub fn start() -> Option<Browser> {
        let Some(program) = find() else {
            assert!(
                std::env::var_os("SYNOD_REQUIRE_TOOLS").is_none(),
                "SYNOD_REQUIRE_TOOLS is set, but no Chromium was found"
            );
            eprintln!("\n*** SKIPPED: no Chromium found. Install it, or name it in SYNOD_CHROMIUM. ***\n");
            return None;
        };
        let profile =
            std::env::temp_dir().join(format!("synod-chromium-{}-{}", std::process::id(), unique()));
        std::fs::create_dir_all(&profile).expect("a folder for the profile");
        let mut child = Command::new(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--hide-scrollbars", "--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Chromium starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned))
            .expect("Chromium says where its DevTools listen");
        // Read on, or it would block once the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Browser { child, profile, address })
    }

    /// A new page of this size in CSS pixels.
    pub fn page(&self, width: u32, height: u32) -> Page {
        let (socket, _) = tungstenite::connect(self.address.as_str()).expect("DevTools answer");
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            let _: &TcpStream = stream;
            stream.set_read_timeout(Some(ANSWER_MAX)).expect("a time limit");
        }
        let mut page = Page { socket, session: None, next: 0, faults: Vec::new() };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = target["targetId"].as_str().expect("a target").to_owned();
        let attached = page.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        page.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            page.call(domain, json!({}));
        }
        page.resize(width, height);
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its helpers may take a moment to let go of the profile.
        for _ in 0..20 {
            if std::fs::remove_dir_all(&self.profile).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SYNOD_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|file| file.is_file())
}

fn unique() -> u128 {
    std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_nanos()
}

/// One page.
pub struct Page {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    next: u64,
    faults: Vec<String>,
}

impl Page {
    /// Sends a command and waits for its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(command.to_string())).expect("DevTools listen");
        loop {
            let message =
                self.socket.read().unwrap_or_else(|error| panic!("{method} is not answered: {error}"));
            let Message::Text(text) = message else { continue };
            let mut message: Value = serde_json::from_str(&text).expect("JSON");
            if message["id"] == json!(id) {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.faults
                    .push(format!("uncaught: {}", params["exceptionDetails"]["exception"]["description"]));
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.faults.push(format!("{} {}", params["entry"]["text"], params["entry"]["url"]));
            }
            Some("Network.requestWillBeSent") => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                if !["http://127.0.0.1:", "http://localhost:", "file:", "data:", "about:"]
                    .iter()
                    .any(|own| url.starts_with(own))
                {
                    self.faults.push(format!("a request to another machine: {url}"));
                }
            }
            _ => {}
        }
    }

    /// Sets the size of the page in CSS pixels; a narrow one is taken for a phone.
    pub fn resize(&mut self, width: u32, height: u32) {
        let mobile = width < 500;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Sets what the page is told of the reader's wishes, such as `prefers-color-scheme` `dark`.
    pub fn prefer(&mut self, feature: &str, value: &str) {
        self.call("Emulation.setEmulatedMedia", json!({ "features": [{ "name": feature, "value": value }] }));
    }

    /// Opens an address. One that differs only in its fragment is an address of the same page.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// Loads the page again, from nothing but its address.
    pub fn reload(&mut self) {
        self.evaluate("delete document.getElementById('lab')?.dataset.ready");
        self.call("Page.reload", json!({}));
    }

    /// The value of an expression; a promise is awaited.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true, and returns its value.
    pub fn wait_for(&mut self, what: &str, expression: &str) -> Value {
        let start = Instant::now();
        loop {
            // While a page loads, what the expression names may not be there yet.
            let guarded = format!("(() => {{ try {{ return {expression} }} catch {{ return null }} }})()");
            let value = self.evaluate(&guarded);
            if !(value.is_null() || value == json!(false) || value == json!("") || value == json!(0)) {
                return value;
            }
            if start.elapsed() > PATIENCE {
                let text = self.evaluate("document.body.innerText.slice(0, 3000)");
                panic!(
                    "waited in vain for {what} ({expression}); the page shows:\n{}",
                    text.as_str().unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The text of an element.
    pub fn text(&mut self, selector: &str) -> String {
        let value = self.evaluate(&format!("document.querySelector({})?.textContent ?? ''", json!(selector)));
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks in the middle of an element, as a mouse does: what lies above it gets the click.
    pub fn click(&mut self, selector: &str) {
        let place = self.wait_for(
            selector,
            &format!(
                "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{ block: 'nearest' }}); \
                 const r = e.getBoundingClientRect(); \
                 return r.width + r.height > 0 && {{ x: r.x + r.width / 2, y: r.y + r.height / 2 }} }})()",
                json!(selector)
            ),
        );
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let event = json!({
                "type": kind, "x": place["x"], "y": place["y"], "button": if kind == "mouseMoved" { "none" } else { "left" },
                "buttons": buttons, "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Takes hold at one place of the page and lets go at another, in CSS pixels, with moves in between.
    pub fn drag(&mut self, from: (f64, f64), to: (f64, f64)) {
        const MOVES: u32 = 8;
        let mut mouse = |kind: &str, buttons: u8, (x, y): (f64, f64)| {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({ "type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        };
        mouse("mouseMoved", 0, from);
        mouse("mousePressed", 1, from);
        for step in 1..=MOVES {
            let part = f64::from(step) / f64::from(MOVES);
            mouse("mouseMoved", 1, (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part));
        }
        mouse("mouseReleased", 0, to);
    }

    /// Presses and releases a key, by its name in `KeyboardEvent.key`.
    pub fn press(&mut self, key: &str) {
        let text = if key.chars().count() == 1 {
            key
        } else if key == "Enter" {
            "\r"
        } else {
            ""
        };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": key, "text": if kind == "keyDown" { text } else { "" } });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Keeps a picture of what is shown, for people: where `SYNOD_SCREENSHOTS` says, if it is set.
    pub fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("SYNOD_SCREENSHOTS") else { return };
        let answer = self.call("Page.captureScreenshot", json!({}));
        let bytes = base64(answer["data"].as_str().expect("a picture"));
        std::fs::create_dir_all(&folder).expect("the folder for pictures");
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), bytes).expect("the picture is kept");
    }

    /// Fails if the page did what no page of ours may do.
    pub fn assert_clean(&mut self) {
        self.evaluate("0");
        assert!(self.faults.is_empty(), "the page misbehaved:\n{}", self.faults.join("\n"));
    }
}

/// Decodes the standard alphabet; the protocol sends pictures in it.
fn base64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}
