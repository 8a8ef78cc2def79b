//! Servers in ClickHouse's place that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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
pub async fn failing_server(
    failures: usize,
    answer: &'static str,
) -> (String, Arc<std::sync::Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(std::sync::Mutex::new(Vec::new()));
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
