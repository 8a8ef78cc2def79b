//! Receivers of webhooks: real HTTP servers in the test, that answer as they are told and keep what they were sent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::wait_for;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Wallet and number of the entry.
    pub fn wallet_and_seq(&self) -> (String, u64) {
        let alert = self.json();
        (alert["wallet_id"].as_str().unwrap().to_owned(), alert["seq"].as_u64().unwrap())
    }
}

/// What a receiver answers.
#[derive(Clone)]
pub enum Reply {
    Status(u16),
    /// With a header.
    With(u16, &'static str, String),
    /// After a while.
    Slow(Duration),
    /// The status, and then a body without an end.
    Endless(u16),
}

type Behaviour = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// Serves until the test ends.
pub struct Receiver {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<usize>>,
    /// Bytes of endless bodies that were taken.
    endless_bytes: Arc<Mutex<usize>>,
}

impl Receiver {
    /// On a free port; `behave` is given the request and how many came before it.
    pub fn start(behave: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Receiver {
        Receiver::at(TcpListener::bind("127.0.0.1:0").unwrap(), behave)
    }

    /// On a port that was bound before.
    pub fn at(
        listener: TcpListener,
        behave: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        let port = listener.local_addr().unwrap().port();
        let (requests, connections) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<Mutex<usize>>::default());
        let endless_bytes = Arc::<Mutex<usize>>::default();
        let behave: Arc<Behaviour> = Arc::new(behave);
        let (kept, counted, endless) =
            (Arc::clone(&requests), Arc::clone(&connections), Arc::clone(&endless_bytes));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                *counted.lock().unwrap() += 1;
                let (kept, behave, endless) = (Arc::clone(&kept), Arc::clone(&behave), Arc::clone(&endless));
                std::thread::spawn(move || serve(&stream.unwrap(), &kept, &*behave, &endless));
            }
        });
        Receiver { port, requests, connections, endless_bytes }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    pub fn endless_bytes(&self) -> usize {
        *self.endless_bytes.lock().unwrap()
    }

    /// Waits for so many requests.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) -> Vec<Request> {
        wait_for(&format!("{count} requests"), Duration::from_secs(40), || {
            let requests = self.requests();
            (requests.len() >= count).then_some(requests)
        })
    }
}

/// One connection, as long as requests come.
fn serve(stream: &TcpStream, kept: &Mutex<Vec<Request>>, behave: &Behaviour, endless: &Mutex<usize>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let before = {
            let mut kept = kept.lock().unwrap();
            kept.push(request.clone());
            kept.len() - 1
        };
        let reply = behave(&request, before);
        if let Reply::Slow(pause) = &reply {
            std::thread::sleep(*pause);
        }
        let mut writer = stream;
        let done = match reply {
            Reply::Status(status) => write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: 4\r\n\r\nbody"),
            Reply::With(status, name, value) => {
                write!(writer, "HTTP/1.1 {status} X\r\n{name}: {value}\r\ncontent-length: 0\r\n\r\n")
            }
            Reply::Slow(_) => write!(writer, "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n"),
            Reply::Endless(status) => {
                write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: 1073741824\r\n\r\n").unwrap();
                let block = [b'x'; 65_536];
                while let Ok(count) = writer.write(&block) {
                    *endless.lock().unwrap() += count;
                }
                return;
            }
        };
        if done.is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.strip_prefix("POST ")?.split(' ').next()?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Request { at: Instant::now(), path, headers, body: String::from_utf8(body).unwrap() })
}
