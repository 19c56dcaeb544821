//! TCP echo, and the least HTTP server: a task for each connection.
use crate::elapsed_ns;
use crate::measure::{report, Arguments};
use std::io::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const MESSAGE_BYTES: usize = 64;

async fn answer(mut stream: TcpStream) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let got = stream.read(&mut buffer).await?;
        if got == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..got]).await?;
    }
}

async fn serve_echo(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(answer(stream));
    }
}

async fn listen(arguments: &Arguments) -> TcpListener {
    TcpListener::bind(("127.0.0.1", arguments.number("--port", 0) as u16)).await.unwrap()
}

/// The clients come back, for the next rounds.
async fn rounds(clients: Vec<TcpStream>, each: usize) -> Vec<TcpStream> {
    let mut running = Vec::new();
    for mut client in clients {
        running.push(tokio::spawn(async move {
            let mut message = [0; MESSAGE_BYTES];
            for _ in 0..each {
                client.write_all(&message).await.unwrap();
                client.read_exact(&mut message).await.unwrap();
            }
            client
        }));
    }
    let mut ended = Vec::new();
    for one in running {
        ended.push(one.await.unwrap());
    }
    ended
}

pub async fn echo(arguments: Arguments) {
    let connections = arguments.number("--connections", 1);
    let each = arguments.number("--count", 100000) / connections;
    let listener = listen(&arguments).await;
    let address = listener.local_addr().unwrap();
    if arguments.has("--serve") {
        serve_echo(listener).await;
        return;
    }
    tokio::spawn(serve_echo(listener));
    let mut clients = Vec::new();
    for _ in 0..connections {
        let client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        clients.push(client);
    }
    let clients = rounds(clients, each / 10 + 1).await;
    let ns = elapsed_ns(async { drop(rounds(clients, each).await) }).await;
    report("round_trip", ns / (each * connections) as f64, "ns");
}

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
const BATCH: usize = 16;

/// Counts ends of requests; `matched` remembers one that was cut by the end of a read.
fn count_requests(bytes: &[u8], matched: &mut usize) -> usize {
    const END: &[u8] = b"\r\n\r\n";
    let mut requests = 0;
    for byte in bytes {
        if *byte == END[*matched] {
            *matched += 1;
            if *matched == END.len() {
                requests += 1;
                *matched = 0;
            }
        } else {
            *matched = (*byte == b'\r') as usize;
        }
    }
    requests
}

async fn serve_http(mut stream: TcpStream, replies: &[u8]) -> Result<()> {
    let mut buffer = [0; 4096];
    let mut matched = 0;
    loop {
        let got = stream.read(&mut buffer).await?;
        if got == 0 {
            return Ok(());
        }
        let mut owed = count_requests(&buffer[..got], &mut matched);
        while owed > 0 {
            let batch = owed.min(BATCH);
            stream.write_all(&replies[..batch * REPLY.len()]).await?;
            owed -= batch;
        }
    }
}

pub async fn http(arguments: Arguments) {
    let replies: &'static [u8] = REPLY.repeat(BATCH).leak();
    let listener = listen(&arguments).await;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(serve_http(stream, replies));
    }
}
