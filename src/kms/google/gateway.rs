//! A gateway of the tests: it counts what goes to the test double of Cloud KMS, and answers in its place where a test wants that.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

/// A request on its way.
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The header lines in lower case.
    pub headers: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Names the operation: what follows the colon, or the last collection with the method.
    pub fn operation(&self) -> String {
        let path = self.path.split('?').next().unwrap();
        match path.rsplit_once(':') {
            Some((_, verb)) => verb.to_owned(),
            None => format!(
                "{} {}",
                self.method,
                path.rsplit('/').find(|part| !part.starts_with(char::is_numeric)).unwrap()
            ),
        }
    }

    /// Tells whether it carries a bearer token.
    pub fn has_token(&self) -> bool {
        self.headers.iter().any(|header| header.starts_with("authorization: bearer "))
    }
}

/// What to do with a request.
#[derive(Clone)]
pub enum Action {
    /// Hand it on.
    Forward,
    /// Answer with this status, these header lines and this body.
    Answer(u16, &'static str, String),
    /// Hand it on and change the answer.
    Alter(fn(&mut Value)),
    /// Close the connection.
    Drop,
    /// Answer nothing.
    Hang,
}

/// What a test decides on each request.
pub type Hook = Box<dyn Fn(&Request) -> Action + Send>;

/// A gateway before the test double.
pub struct Gateway {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    hook: Arc<Mutex<Hook>>,
    connections: Arc<AtomicUsize>,
}

impl Gateway {
    /// Listens before the double on `upstream`.
    pub fn before(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hook: Hook = Box::new(|_| Action::Forward);
        let gateway = Self {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
            hook: Arc::new(Mutex::new(hook)),
            connections: Arc::default(),
        };
        let (seen, hook, connections) = (gateway.seen.clone(), gateway.hook.clone(), gateway.connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (seen, hook) = (seen.clone(), hook.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), upstream, &seen, &hook));
            }
        });
        gateway
    }

    /// Gives the address for the setting `endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Decides what happens to requests from now on.
    pub fn on(&self, hook: impl Fn(&Request) -> Action + Send + 'static) {
        *self.hook.lock() = Box::new(hook);
    }

    /// Gives the operations since the last time.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock())
    }

    /// Tells how many connections were made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Serves one connection until its client leaves.
fn serve(stream: &TcpStream, upstream: u16, seen: &Mutex<Vec<String>>, hook: &Mutex<Hook>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        seen.lock().push(request.operation());
        let action = (hook.lock())(&request);
        let (status, headers, body) = match action {
            Action::Drop => return,
            Action::Hang => {
                std::thread::sleep(Duration::from_secs(30));
                return;
            }
            Action::Answer(status, headers, body) => (status, headers, body.into_bytes()),
            Action::Forward => {
                let (status, body) = forward(upstream, &request);
                (status, "", body)
            }
            Action::Alter(change) => {
                let (status, body) = forward(upstream, &request);
                let mut value = serde_json::from_slice(&body).unwrap();
                change(&mut value);
                (status, "", value.to_string().into_bytes())
            }
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if (&mut &*stream).write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim() {
            "" => break,
            header => headers.push(header.to_ascii_lowercase()),
        }
    }
    let length = headers.iter().find_map(|header| header.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

fn forward(upstream: u16, request: &Request) -> (u16, Vec<u8>) {
    exchange(upstream, &request.method, &request.path, &request.body)
}

/// Sends one request to the double itself.
pub fn exchange(port: u16, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}
