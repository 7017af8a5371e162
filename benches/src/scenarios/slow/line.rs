//! A slow line: what comes in at a loopback port goes out at another one, later.
//!
//! Each direction is one queue that all connections share, as on a wire: a piece begins when the one before has ended, takes its
//! length over the bandwidth, and arrives half a round trip later. Delay does not hold up what comes behind, so a client that has
//! several requests in flight fills the line and one that waits for each answer does not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::env::{Clock as _, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Error;

/// Bytes that are handed on at a time: half a millisecond of a gigabit.
const PIECE: usize = 64 << 10;
/// Pieces of one connection that may be on their way, 16 MiB: more than the line holds at any moment.
const IN_FLIGHT: usize = 256;

/// A line to one server.
#[derive(Debug)]
pub(super) struct Line {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

/// One direction.
#[derive(Debug)]
struct Wire {
    clock: SystemClock,
    /// When the last piece has left, by the clock's monotonic time.
    free: Mutex<Duration>,
    bytes_per_second: f64,
    delay: Duration,
}

impl Line {
    /// To `server` on this machine, with `bytes_per_second` in each direction and `round_trip`.
    pub(super) async fn to(server: u16, bytes_per_second: f64, round_trip: Duration) -> Result<Self, Error> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let wire = || {
            let (clock, free) = (SystemClock::default(), Mutex::new(Duration::ZERO));
            Arc::new(Wire { clock, free, bytes_per_second, delay: round_trip / 2 })
        };
        let (there, back) = (wire(), wire());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            // A connection that breaks is the client's to notice; the line goes on.
            while let Ok((client, _)) = listener.accept().await {
                let (there, back) = (Arc::clone(&there), Arc::clone(&back));
                connections.spawn(connect(client, server, there, back));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { port, task })
    }

    /// Where clients connect.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(client: TcpStream, server: u16, there: Arc<Wire>, back: Arc<Wire>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(carry(from_client, to_server, there), carry(from_server, to_client, back));
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, wire: Arc<Wire>) {
    let (sender, mut receiver) = mpsc::channel::<(Duration, Vec<u8>)>(IN_FLIGHT);
    let take = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            let (gone, arrives) = wire.send(len);
            let Some(piece) = buffer.get(..len) else { break };
            if sender.send((arrives, piece.to_vec())).await.is_err() {
                break;
            }
            // The next piece is taken when the wire can take it, or it would be a buffer without an end.
            wire.until(gone).await;
        }
        drop(sender);
    };
    let give = async {
        while let Some((arrives, piece)) = receiver.recv().await {
            wire.until(arrives).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
        // The other side is told that there is no more; it may have gone.
        let _ = to.shutdown().await;
    };
    tokio::join!(take, give);
}

impl Wire {
    /// Puts `len` bytes on the wire: when they have left, and when they arrive.
    fn send(&self, len: usize) -> (Duration, Duration) {
        let now = self.clock.monotonic();
        // Nobody panics while holding it.
        let mut free = self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *free = (*free).max(now) + Duration::from_secs_f64(len as f64 / self.bytes_per_second);
        (*free, *free + self.delay)
    }

    async fn until(&self, moment: Duration) {
        let now = self.clock.monotonic();
        // Timers count in milliseconds; waiting for less would make the line slower than it is.
        if moment > now + Duration::from_millis(1) {
            self.clock.sleep(moment - now).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with as many as it is told to send.
    async fn echo(answer: usize) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut question = [0; 1];
                    while client.read_exact(&mut question).await.is_ok() {
                        client.write_all(&vec![7; answer]).await.unwrap();
                    }
                });
            }
        });
        port
    }

    async fn ask(port: u16, answer: usize) {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(&[1]).await.unwrap();
        let mut all = vec![0; answer];
        client.read_exact(&mut all).await.unwrap();
        assert!(all.iter().all(|byte| *byte == 7));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_takes_a_round_trip_and_connections_share_the_line() {
        const ANSWER: usize = 1 << 20;
        let line = Line::to(echo(ANSWER).await, 20e6, Duration::from_millis(40)).await.unwrap();
        let clock = SystemClock::default();
        let begun = clock.monotonic();
        ask(line.port(), ANSWER).await;
        // 40 ms and 52 ms of transfer.
        let one = clock.monotonic() - begun;
        assert!(one >= Duration::from_millis(90), "{one:?}");
        let begun = clock.monotonic();
        tokio::join!(ask(line.port(), ANSWER), ask(line.port(), ANSWER), ask(line.port(), ANSWER));
        let three = clock.monotonic() - begun;
        assert!(three >= Duration::from_millis(40 + 3 * 50), "{three:?}");
    }
}
