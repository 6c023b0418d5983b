//! A service of the tests' own: it answers as they tell it, and counts what it is asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// One request.
pub struct Request {
    /// `POST / HTTP/1.1`.
    pub line: String,
    /// The headers by name in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    /// The operation of AWS KMS, or the path.
    pub fn operation(&self) -> String {
        match self.headers.get("x-amz-target") {
            Some(target) => target.rsplit('.').next().unwrap().to_owned(),
            None => self.line.split(' ').nth(1).unwrap().to_owned(),
        }
    }

    /// Reads the body.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A good answer of AWS KMS.
    pub fn json(body: &serde_json::Value) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    /// An error in the form of AWS KMS (AWS JSON 1.1 protocol).
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self { status, ..Self::json(&serde_json::json!({ "__type": code, "message": message })) }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Option<Answer> + Send + Sync;

/// The service, which lives as long as the process.
pub struct Service {
    pub port: u16,
    counts: Arc<Mutex<BTreeMap<String, usize>>>,
    connections: Arc<AtomicUsize>,
}

impl Service {
    /// Starts it; a handler that answers `None` breaks the connection.
    pub fn start(handler: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(handler))
    }

    /// Starts it with TLS.
    pub fn start_tls(
        config: ServerConfig,
        handler: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(Arc::new(config)), Arc::new(handler))
    }

    /// Starts one that gives everything to the service on another port, and counts.
    pub fn in_front_of(port: u16) -> Self {
        Self::start(move |request| Some(forward(port, request)))
    }

    fn listen(tls: Option<Arc<ServerConfig>>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service =
            Self { port: listener.local_addr().unwrap().port(), counts: Arc::default(), connections: Arc::default() };
        let (counts, connections) = (service.counts.clone(), service.connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::Relaxed);
                let (tls, handler, counts) = (tls.clone(), handler.clone(), counts.clone());
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &*handler, &counts);
                    }
                    None => serve(stream, &*handler, &counts),
                });
            }
        });
        service
    }

    /// Takes the counts since the last time.
    pub fn take_counts(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut *self.counts.lock()).into_iter().collect()
    }

    /// Tells how many connections were made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Serves one connection until the client ends it.
fn serve(stream: impl Read + Write, handler: &Handler, counts: &Mutex<BTreeMap<String, usize>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        *counts.lock().entry(request.operation()).or_default() += 1;
        let Some(answer) = handler(&request) else { return };
        let mut head = format!("HTTP/1.1 {} -\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let bytes = [head.as_bytes(), b"\r\n", &answer.body].concat();
        if stream.get_mut().write_all(&bytes).is_err() || stream.get_mut().flush().is_err() {
            return;
        }
    }
}

/// Reads one message of HTTP with a content length: a request, or an answer.
fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok().filter(|read| *read > 0)?;
        match header.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |len| len.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some(Request { line: line.trim_end().to_owned(), headers, body })
}

/// Asks the service on another port.
fn forward(port: u16, request: &Request) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut text = format!("{}\r\n", request.line);
    for (name, value) in request.headers.iter().filter(|(name, _)| *name != "connection") {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(&[text.as_bytes(), b"connection: close\r\n\r\n", &request.body].concat()).unwrap();
    let answer = read(&mut BufReader::new(stream)).unwrap();
    let status = answer.line.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = answer.headers.get("x-amzn-errortype").cloned();
    Answer { status, headers: kind.map(|kind| ("x-amzn-errortype", kind)).into_iter().collect(), body: answer.body }
}
