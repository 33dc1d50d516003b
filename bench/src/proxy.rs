//! A way to a server of this host on which every request arrives late, as over a network. What goes through arrives unchanged.
//!
//! The way may be narrow, too: then all answers share so many bytes a second.
//!
//! A request begins with the first bytes that come from a client after the server has said something: that is how HTTP/1.1 uses a connection
//! that is kept. They wait; what comes behind them does not wait again, nor does any answer, unless the way is narrow. Connections
//! know nothing else of each other, and end with this.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::linux::net::TcpStreamExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{Result, clock::Clock};

/// Of each direction of a connection.
const BUFFER_BYTES: usize = 256 << 10;

/// Runs until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What has gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// On all connections.
    pub(crate) requests: u64,
    /// From the server, with all that belongs to the protocol.
    pub(crate) bytes: u64,
}

struct Shared {
    server: SocketAddr,
    delay: Duration,
    line: Option<Line>,
    requests: AtomicU64,
    bytes: AtomicU64,
    open: Mutex<Open>,
}

/// What carries so many bytes a second.
struct Line {
    bytes_per_second: u64,
    /// When all that was sent will have gone.
    free: Mutex<f64>,
    clock: Clock,
}

impl Line {
    /// Returns when so many more bytes have gone.
    fn send(&self, bytes: usize) {
        let now = self.clock.seconds();
        let gone = {
            let mut free = self.free.lock();
            *free = free.max(now) + bytes as f64 / self.bytes_per_second as f64;
            *free
        };
        thread::sleep(Duration::from_secs_f64(gone - now));
    }
}

/// To be shut in the end, by number.
#[derive(Default)]
struct Open {
    is_ending: bool,
    next: u64,
    clients: HashMap<u64, TcpStream>,
}

impl Proxy {
    /// Listens on a port of this host that is free.
    pub(crate) fn start(server: SocketAddr, delay: Duration, bytes_per_second: Option<u64>) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (requests, bytes, open) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
        let line = bytes_per_second.map(|bytes_per_second| Line {
            bytes_per_second,
            free: Mutex::default(),
            clock: Clock::start(),
        });
        let shared = Arc::new(Shared { server, delay, line, requests, bytes, open });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Proxy { address, shared, accepting: Some(accepting) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Since the start.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic { requests: self.shared.requests.load(Relaxed), bytes: self.shared.bytes.load(Relaxed) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let clients = {
            let mut open = self.shared.open.lock();
            open.is_ending = true;
            std::mem::take(&mut open.clients)
        };
        for client in clients.into_values() {
            // It may be gone.
            let _ = client.shutdown(Shutdown::Both);
        }
        // Who waits for the next connection finds that it is the last.
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.open.lock().is_ending {
            return;
        }
        // Whoever was there before it could be accepted tries again.
        let Ok(client) = client else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || shared.serve(&client));
    }
}

impl Shared {
    /// To the end of a connection. An error on one side is an end for the other one, which hears of it so.
    fn serve(&self, client: &TcpStream) {
        let Some(number) = self.enter(client) else { return };
        if let Ok(server) = TcpStream::connect(self.server) {
            let is_answered = AtomicBool::new(true);
            thread::scope(|scope| {
                scope.spawn(|| self.carry_requests(client, &server, &is_answered));
                self.carry_answers(&server, client, &is_answered);
            });
        }
        let _ = client.shutdown(Shutdown::Both);
        self.open.lock().clients.remove(&number);
    }

    /// None at the end, and if there are no descriptors left.
    fn enter(&self, client: &TcpStream) -> Option<u64> {
        let client = client.try_clone().ok()?;
        let mut open = self.open.lock();
        if open.is_ending {
            return None;
        }
        let number = open.next;
        open.next += 1;
        open.clients.insert(number, client);
        Some(number)
    }

    fn carry_requests(&self, client: &TcpStream, server: &TcpStream, is_answered: &AtomicBool) {
        carry(client, server, |_| {
            if is_answered.swap(false, Relaxed) {
                self.requests.fetch_add(1, Relaxed);
                thread::sleep(self.delay);
            }
        });
    }

    fn carry_answers(&self, server: &TcpStream, client: &TcpStream, is_answered: &AtomicBool) {
        carry(server, client, |bytes| {
            // Before the client can have them: it answers with the next request.
            is_answered.store(true, Relaxed);
            self.bytes.fetch_add(bytes as u64, Relaxed);
            if let Some(line) = &self.line {
                line.send(bytes);
            }
        });
    }
}

/// Everything to the end of `from`, with `before` called for so many bytes before they go on; then the end goes on, too.
fn carry(mut from: &TcpStream, mut to: &TcpStream, before: impl Fn(usize)) {
    // Else a small piece waits for the last one to be acknowledged.
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // A server that sends small pieces as they come (s3s-fs does) has the kernel keep each back until the one before is acknowledged, and
        // this kernel would put that off for 40 ms: tcp(7). It has to be said before every read.
        let _ = from.set_quickack(true);
        let count = match from.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        before(count);
        if to.write_all(&buffer[..count]).is_err() {
            // The other side of this direction must not go on.
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, noise::Noise};

    const DELAY: Duration = Duration::from_millis(20);
    const PIECE: usize = 300_000;

    /// Answers each piece with its bytes the other way round.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                thread::spawn(move || {
                    let mut piece = vec![0; PIECE];
                    while client.read_exact(&mut piece).is_ok() {
                        piece.reverse();
                        client.write_all(&piece).unwrap();
                    }
                });
            }
        });
        address
    }

    fn ask(client: &mut TcpStream, seed: u64) -> f64 {
        let piece = Noise::new(seed).bytes(PIECE);
        let mut answer = vec![0; PIECE];
        let took = clock::seconds(|| {
            client.write_all(&piece)?;
            Ok(client.read_exact(&mut answer)?)
        });
        answer.reverse();
        assert!(answer == piece, "other bytes");
        took.unwrap()
    }

    #[test]
    fn requests_are_late_and_bytes_are_what_they_were() {
        let proxy = Proxy::start(server(), DELAY, None).unwrap();
        let connect = || TcpStream::connect(proxy.address()).unwrap();
        let mut first = connect();
        for seed in 1..4 {
            assert!(ask(&mut first, seed) >= DELAY.as_secs_f64());
        }
        assert_eq!(proxy.traffic(), Traffic { requests: 3, bytes: 3 * PIECE as u64 });
        thread::scope(|scope| {
            for seed in 4..12 {
                scope.spawn(move || assert!(ask(&mut connect(), seed) >= DELAY.as_secs_f64()));
            }
        });
        assert_eq!(proxy.traffic().requests, 11);
        assert!(ask(&mut first, 12) >= DELAY.as_secs_f64(), "it is open as long as the client wants it");
    }

    #[test]
    fn a_narrow_way_is_shared() {
        const PIECES: u64 = 4;
        let proxy = Proxy::start(server(), Duration::ZERO, Some(10 * PIECE as u64)).unwrap();
        let connect = || TcpStream::connect(proxy.address()).unwrap();
        let took = clock::seconds(|| {
            thread::scope(|scope| {
                (0..PIECES).for_each(|seed| drop(scope.spawn(move || ask(&mut connect(), seed))))
            });
            Ok(())
        });
        let took = took.unwrap();
        assert!(took >= PIECES as f64 / 10.0, "{took}");
    }

    #[test]
    fn connections_end_with_it() {
        let proxy = Proxy::start(server(), Duration::ZERO, None).unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        ask(&mut client, 1);
        let address = proxy.address();
        drop(proxy);
        assert!(!matches!(client.read(&mut [0]), Ok(1..)));
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn the_end_of_a_server_is_told() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let proxy = Proxy::start(nobody, Duration::ZERO, None).unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        assert!(!matches!(client.read(&mut [0]), Ok(1..)));
    }
}
