//! A wire between an agent and its database that breaks when told to.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Where it breaks, around the next statement that begins with some words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The database does not hear of the statement.
    Before,
    /// The agent does not hear the answer.
    AfterAnswer,
}

struct Break {
    cut: Cut,
    at: &'static str,
    /// Somebody who is told, and until whose word it stands still.
    witness: Option<(std::sync::mpsc::Sender<()>, oneshot::Receiver<()>)>,
}

impl Break {
    /// Whether the database shall hear of the statement all the same.
    async fn stand_still(self) -> bool {
        let Some((stands, word)) = self.witness else { return false };
        stands.send(()).is_ok() && word.await.is_ok()
    }
}

/// A wire that stands still where it is to break, and breaks when this is dropped.
pub struct Still {
    pub stands: std::sync::mpsc::Receiver<()>,
    word: oneshot::Sender<()>,
}

impl Still {
    /// Lets the statement come to the database, though its answer will come to nobody.
    pub fn let_through(self) {
        let _ = self.word.send(());
    }
}

type Order = Arc<Mutex<Option<Break>>>;

pub struct Proxy {
    port: u16,
    order: Order,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// A wire to this port.
    pub fn start(to: u16) -> Proxy {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let listener = TcpListener::from_std(listener).expect("a socket");
        let order = Order::default();
        let orders = Arc::clone(&order);
        let task = tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                let orders = Arc::clone(&orders);
                tokio::spawn(async move {
                    if let Ok(database) = TcpStream::connect(("127.0.0.1", to)).await {
                        carry(agent, database, &orders).await;
                    }
                });
            }
        });
        Proxy { port, order, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks once, at the next such statement.
    pub fn cut(&self, cut: Cut, at: &'static str) {
        *self.order.lock().expect("no panic") = Some(Break { cut, at, witness: None });
    }

    /// The same, when what this returns is dropped.
    pub fn stop(&self, cut: Cut, at: &'static str) -> Still {
        let (tell, stands) = std::sync::mpsc::channel();
        let (word, words) = oneshot::channel();
        *self.order.lock().expect("no panic") = Some(Break { cut, at, witness: Some((tell, words)) });
        Still { stands, word }
    }
}

async fn carry(mut agent: TcpStream, mut database: TcpStream, order: &Order) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = agent.read(&mut up) => {
                let Some(bytes) = read.ok().filter(|read| *read > 0).map(|read| &up[..read]) else { return };
                // A statement follows the name of its message and its length.
                let due = |due: &mut Break| bytes.windows(due.at.len()).any(|part| part == due.at.as_bytes());
                let due = order.lock().expect("no panic").take_if(due);
                let cut = due.as_ref().map(|due| due.cut);
                if cut != Some(Cut::Before) && database.write_all(bytes).await.is_err() {
                    return;
                }
                if cut == Some(Cut::AfterAnswer) {
                    // It is done when the database has answered.
                    let _ = database.read(&mut down).await;
                }
                if let Some(due) = due {
                    let is_heard = due.stand_still().await;
                    if is_heard && cut == Some(Cut::Before) && database.write_all(bytes).await.is_ok() {
                        let _ = database.read(&mut down).await;
                    }
                    return;
                }
            }
            read = database.read(&mut down) => {
                let Some(read) = read.ok().filter(|read| *read > 0) else { return };
                if agent.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
