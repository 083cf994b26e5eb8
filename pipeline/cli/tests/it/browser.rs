//! A real browser for tests: headless Chromium, told what to do over its debugging pipe.
//!
//! The pipe (two FIFOs, messages of JSON that end with a zero byte) needs neither a driver nor a web socket. What the page
//! does wrong is gathered while it runs: errors on its console, requests to anywhere but the one address, and, where it is
//! asked for, names that it reads and no answer has (`strict.js`).

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long the browser may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    sent: u64,
    events: Vec<Value>,
    _folder: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let folder = tempfile::tempdir().unwrap();
        let (to, from) = (folder.path().join("to"), folder.path().join("from"));
        for pipe in [&to, &from] {
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        // Opening a FIFO waits for its other end, so the shell opens both for reading and writing.
        let script = "exec chromium \"$@\" 3<>\"$TO\" 4<>\"$FROM\"";
        let process = Command::new("sh")
            .args(["-c", script, "sh", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args([
                "--no-first-run",
                "--hide-scrollbars",
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args(["--disable-sync", "--disable-extensions", "--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg("about:blank")
            .env("TO", &to)
            .env("FROM", &from)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).unwrap();
        let (to, answers) = (open(&to), read_from(open(&from)));
        let mut browser =
            Browser { process, to, from: answers, session: None, sent: 0, events: Vec::new(), _folder: folder };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1280, 800);
        browser
    }

    /// One whose pages may read no name of an answer that the answer doesn't have; it costs them time.
    pub(crate) fn strict() -> Browser {
        let mut browser = Browser::start();
        browser.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": include_str!("strict.js") }));
        browser
    }

    /// Sends a command, and waits for its answer; events that come meanwhile are kept.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let id = self.sent;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            let answer = self.from.recv_timeout(until.saturating_duration_since(Instant::now()));
            let answer = answer.unwrap_or_else(|_| panic!("chromium doesn't answer {method}"));
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Reads events for as long.
    pub(crate) fn wait(&mut self, during: Duration) {
        let until = Instant::now() + during;
        loop {
            match self.from.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => self.events.push(event),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => panic!("chromium ended"),
            }
        }
    }

    /// The value of an expression; a promise is waited for.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    #[track_caller]
    pub(crate) fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    /// Waits until an expression is true, for half a minute at most.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, expression: &str) {
        self.until_within(Duration::from_secs(30), what, expression);
    }

    /// The same for as long as somebody says.
    #[track_caller]
    pub(crate) fn until_within(&mut self, within: Duration, what: &str, expression: &str) {
        let until = Instant::now() + within;
        // What an expression reads may not be drawn yet: that is no error before the time is up, and is told then.
        let seen = format!(
            "(() => {{ try {{ return Boolean({expression}); }} catch (error) {{ return String(error); }} }})()"
        );
        loop {
            let seen = self.value(&seen);
            if seen == json!(true) {
                return;
            }
            if Instant::now() > until {
                let page = self.text("document.body.innerText.slice(0, 3000)");
                panic!("waited in vain: {what}\n{expression}: {seen}\n{page}\n{:#?}", self.troubles(""));
            }
            self.wait(Duration::from_millis(50));
        }
    }

    pub(crate) fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// Looks at another page of the console, as a link would.
    pub(crate) fn hash(&mut self, hash: &str) {
        let hash = serde_json::to_string(hash).unwrap();
        self.value(&format!("void (location.hash = {hash})"));
    }

    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    pub(crate) fn theme(&mut self, theme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": theme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Chooses an option, as a person does.
    #[track_caller]
    pub(crate) fn choose(&mut self, id: &str, text: &str) {
        let (id, text) = (serde_json::to_string(id).unwrap(), serde_json::to_string(text).unwrap());
        self.until(
            "the option is offered",
            &format!(
                "(() => {{ const of = document.getElementById({id}); if (!of) return false; \
                 if (![...of.options].some((one) => one.text === {text})) of.dispatchEvent(new Event('focus')); \
                 const at = [...of.options].findIndex((one) => one.text === {text}); if (at < 0) return false; \
                 of.selectedIndex = at; of.dispatchEvent(new Event('change', {{ bubbles: true }})); return true; }})()"
            ),
        );
    }

    /// Presses a key where the focus is.
    pub(crate) fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "ArrowLeft" => 37,
            "ArrowRight" => 39,
            "Home" => 36,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" && kind == "keyDown" { json!("\r") } else { json!("") };
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Types a text where the focus is.
    pub(crate) fn write(&mut self, text: &str) {
        for c in text.chars().map(String::from) {
            self.call("Input.dispatchKeyEvent", json!({ "type": "keyDown", "key": c, "text": c }));
            self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": c }));
        }
    }

    pub(crate) fn shot(&mut self, path: &Path) {
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let height = size["height"].as_f64().unwrap_or(800.0).min(6_000.0);
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1 });
        let parameters = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let data = self.call("Page.captureScreenshot", parameters)["data"].as_str().unwrap().to_owned();
        std::fs::write(path, decoded(&data)).unwrap();
    }

    /// What axe-core finds on the page, each with its places.
    pub(crate) fn violations(&mut self, axe: &str) -> Vec<String> {
        self.value(&format!("{axe}; undefined"));
        let found = self.value(
            "axe.run(document, { resultTypes: ['violations'] }).then((found) => found.violations.flatMap((one) => \
             one.nodes.map((node) => `${one.id} (${one.impact}): ${node.target.join(' ')} ${node.failureSummary}`)))",
        );
        found.as_array().unwrap().iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Errors and warnings of the console, exceptions, dialogs, and requests to anywhere but `address`.
    pub(crate) fn troubles(&self, address: &str) -> Vec<String> {
        let trouble = |event: &Value| {
            let of = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(of["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" if ["error", "warning", "assert"].contains(&of["type"].as_str()?) => {
                    Some(of["args"].to_string())
                }
                "Page.javascriptDialogOpening" => Some(of.to_string()),
                "Log.entryAdded" if of["entry"]["level"] != "verbose" => Some(of["entry"].to_string()),
                "Network.requestWillBeSent" => {
                    let url = of["request"]["url"].as_str()?;
                    let is_own = url.starts_with(address) || url.starts_with("data:") || url == "about:blank";
                    (!is_own).then(|| format!("a request to {url}"))
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(trouble).collect()
    }

    /// Forgets what was gathered.
    pub(crate) fn forget(&mut self) {
        self.events.clear();
    }

    /// The paths of all requests that were made, without what stands behind `?`.
    pub(crate) fn paths(&self) -> BTreeSet<String> {
        let path = |event: &Value| {
            let url = event["params"]["request"]["url"]
                .as_str()
                .filter(|_| event["method"] == "Network.requestWillBeSent")?;
            let behind = url.split_once("://")?.1;
            let path = behind.get(behind.find('/')?..)?;
            Some(path.split(['?', '#']).next().unwrap_or_default().to_owned())
        };
        self.events.iter().filter_map(path).collect()
    }

    /// How many requests were made whose address contains `part`.
    pub(crate) fn requests(&self, part: &str) -> usize {
        let is_one = |event: &&Value| {
            event["method"] == "Network.requestWillBeSent"
                && event["params"]["request"]["url"].as_str().is_some_and(|url| url.contains(part))
        };
        self.events.iter().filter(is_one).count()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its children end with it; killing the one process would leave them.
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The file of axe-core, which `parts.sh fetch` keeps.
pub(crate) fn axe() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../replay/parts/axe.sh");
    let output = Command::new(script).arg("fetch").output().unwrap();
    let path = String::from_utf8(output.stdout).unwrap();
    std::fs::read_to_string(PathBuf::from(path.trim())).unwrap()
}

fn read_from(mut pipe: File) -> Receiver<Value> {
    let (messages, received) = channel();
    std::thread::spawn(move || {
        let (mut read, mut piece) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(length) = pipe.read(&mut piece) {
            read.extend_from_slice(&piece[..length]);
            while let Some(end) = read.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = read.drain(..=end).collect();
                if let Ok(message) = serde_json::from_slice(&message[..end])
                    && messages.send(message).is_err()
                {
                    return;
                }
            }
        }
    });
    received
}

/// Bytes from base64.
fn decoded(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let whole = |digits: &[u8]| {
        let bits = digits.iter().enumerate().fold(0u32, |bits, (at, digit)| bits | u32::from(*digit) << (18 - 6 * at));
        bits.to_be_bytes()[1..digits.len()].to_vec()
    };
    digits.chunks(4).flat_map(whole).collect()
}
