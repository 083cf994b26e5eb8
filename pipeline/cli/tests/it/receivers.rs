//! Receivers of alerts that run within the test: an HTTP server and an SMTP server, small and real.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as the server got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub path: String,
    pub key: String,
    pub authorization: String,
    pub body: String,
}

/// An HTTP server on a free port. `answer` gets each request with its number and says the status.
pub(crate) struct Http {
    pub port: u16,
    pub seen: Arc<Mutex<Vec<(Request, u16)>>>,
}

impl Http {
    pub(crate) fn start(answer: impl Fn(usize, &Request) -> u16 + Send + 'static) -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<(Request, u16)>>> = Arc::default();
        let note = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // One request per connection keeps this simple; a client that went away is no matter.
                let Some(request) = read_request(&stream) else { continue };
                let status = answer(note.lock().unwrap().len(), &request);
                note.lock().unwrap().push((request, status));
                let head = format!("HTTP/1.1 {status} So\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                let _ = (&stream).write_all(head.as_bytes());
            }
        });
        Http { port, seen }
    }

    /// Requests that were answered with 200.
    pub(crate) fn taken(&self) -> Vec<Request> {
        self.seen.lock().unwrap().iter().filter(|(_, status)| *status == 200).map(|(it, _)| it.clone()).collect()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut key, mut authorization) = (0, String::new(), String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "idempotency-key" => key = value.to_owned(),
            "authorization" => authorization = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, key, authorization, body: String::from_utf8(body).ok()? })
}

/// A mail as the server took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mail {
    pub to: String,
    pub subject: String,
    pub body: String,
}

/// An SMTP server on a free port. The first mails, `refused` of them, are not taken for now.
pub(crate) struct Smtp {
    pub port: u16,
    pub mails: Arc<Mutex<Vec<Mail>>>,
    pub refusals: Arc<Mutex<usize>>,
}

impl Smtp {
    pub(crate) fn start(refused: usize) -> Smtp {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mails, refusals) = (Arc::default(), Arc::default());
        let smtp = Smtp { port, mails: Arc::clone(&mails), refusals: Arc::clone(&refusals) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client may hang up at any time.
                let _ = converse(&stream, refused, &mails, &refusals);
            }
        });
        smtp
    }
}

fn converse(
    mut stream: &TcpStream,
    refused: usize,
    mails: &Mutex<Vec<Mail>>,
    refusals: &Mutex<usize>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    stream.write_all(b"220 test ESMTP\r\n")?;
    let (mut line, mut to) = (String::new(), String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let command = line.trim_end().to_owned();
        if let Some(rest) = command.strip_prefix("RCPT TO:<") {
            to = rest.split('>').next().unwrap_or_default().to_owned();
        }
        let answer: &[u8] = match command.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => b"250-test\r\n250 8BITMIME\r\n",
            "MAIL" | "RCPT" | "RSET" | "NOOP" => b"250 fine\r\n",
            "QUIT" => {
                return stream.write_all(b"221 bye\r\n");
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let mail = read_mail(&mut reader, &to)?;
                if *refusals.lock().unwrap() < refused {
                    *refusals.lock().unwrap() += 1;
                    b"451 not now\r\n"
                } else {
                    mails.lock().unwrap().push(mail);
                    b"250 taken\r\n"
                }
            }
            _ => b"500 what\r\n",
        };
        stream.write_all(answer)?;
    }
}

/// Headers and body up to the line with a dot, the body's quoted-printable undone.
fn read_mail(reader: &mut impl BufRead, to: &str) -> std::io::Result<Mail> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line == ".\r\n" {
            break;
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let subject = head.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default().to_owned();
    let body = body.replace("=\r\n", "").replace("=3D", "=").replace("\r\n", "\n");
    Ok(Mail { to: to.to_owned(), subject, body })
}
