//! Servers in ClickHouse's place that misbehave.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy before ClickHouse that can be shut: then it cuts what is open and refuses what comes.
pub struct Gate {
    pub url: String,
    pub is_open: Arc<AtomicBool>,
    pub task: tokio::task::JoinHandle<()>,
}

impl Gate {
    pub async fn before(url: &str) -> Gate {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let is_open = Arc::new(AtomicBool::new(true));
        let open = Arc::clone(&is_open);
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let (target, open) = (target.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let shut = async {
                        while open.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = shut => {}
                    }
                });
            }
        });
        Gate { url, is_open, task }
    }
}

/// A server that takes whatever comes, and answers the first requests with an error of ClickHouse's.
pub async fn failing_server(failures: usize, answer: &'static str) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, count) = (Arc::clone(&requests), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // A chunked body ends with a chunk of no bytes.
            while !request.ends_with(b"\r\n0\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            seen.lock().unwrap().push(request);
            let answer = match count.fetch_add(1, Ordering::SeqCst) < failures {
                true => format!(
                    "HTTP/1.1 500 X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                ),
                false => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, requests)
}

/// What a [`FaultyFront`] does with inserts. Everything else passes.
#[derive(Clone, Copy)]
pub enum Fault {
    /// They pass too.
    None,
    /// They are not passed on; this is the answer.
    Answer(&'static str),
    /// They are passed on and done, but the answer stays out.
    Silence,
    /// Nothing but the question for the version is asked, and the answer is `24.2.3`.
    OldVersion,
}

/// A proxy before ClickHouse that has a fault for inserts, and notes what else is asked.
pub struct FaultyFront {
    pub url: String,
    fault: watch::Sender<Fault>,
    questions: Questions,
}

type Questions = Arc<Mutex<Vec<String>>>;

impl FaultyFront {
    pub async fn before(url: &str, fault: Fault) -> FaultyFront {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (fault, now) = watch::channel(fault);
        let questions = Questions::default();
        let noted = Arc::clone(&questions);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (target, fault, noted) = (target.clone(), *now.borrow(), Arc::clone(&noted));
                // A client that goes away is no failure of the test.
                tokio::spawn(async move { serve(client, &target, fault, &noted).await });
            }
        });
        FaultyFront { url, fault, questions }
    }

    /// Requests other than inserts that have this in them, as they came.
    pub fn questions_with(&self, text: &str) -> Vec<String> {
        self.questions.lock().unwrap().iter().filter(|question| question.contains(text)).cloned().collect()
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

/// Serves one request; the connection ends with it, so that the next one meets the fault of its own time.
async fn serve(
    mut client: TcpStream,
    target: &str,
    fault: Fault,
    questions: &Questions,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line_end = request.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let is_insert = request[..line_end].windows(7).any(|seven| seven == b"INSERT+");
    if let (true, Fault::Answer(text)) = (is_insert, fault) {
        while !request.ends_with(b"\r\n0\r\n\r\n") && client.read_buf(&mut request).await? > 0 {}
        let length = text.len();
        let answer = format!("HTTP/1.1 500 X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}");
        return client.write_all(answer.as_bytes()).await;
    }
    if !is_insert {
        read_body(&mut client, &mut request).await?;
        questions.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
    }
    if matches!(fault, Fault::OldVersion) {
        let asked = b"version()";
        let place = request.windows(asked.len()).position(|nine| nine == asked);
        let place = place.expect("another question came");
        request[place..place + asked.len()].copy_from_slice(b"'24.2.3' ");
    }
    request.splice(line_end..line_end, *b"connection: close\r\n");
    let mut server = TcpStream::connect(target).await?;
    server.write_all(&request).await?;
    if is_insert && matches!(fault, Fault::Silence) {
        let (mut from, mut to) = (client, server);
        let (mut read, _open) = from.split();
        let (mut answer, mut write) = to.split();
        let mut swallowed = Vec::new();
        let (sent, _) =
            tokio::join!(tokio::io::copy(&mut read, &mut write), answer.read_to_end(&mut swallowed));
        sent?;
        return Ok(());
    }
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Reads on until all of a body is there whose length its headers say.
async fn read_body(client: &mut TcpStream, request: &mut Vec<u8>) -> std::io::Result<()> {
    let head_end = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&request[..head_end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    while request.len() < head_end + length && client.read_buf(request).await? > 0 {}
    Ok(())
}
