//! `openraft`: tasks of an asynchronous runtime, here of one thread. Requests of peers are calls.

use crate::{COMMAND_BYTES, Cluster};
use openraft::error::{InstallSnapshotError, RPCError, RaftError};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage, RaftStateMachine, Snapshot};
use openraft::{
    BasicNode, Config, Entry, EntryPayload, LogId, OptionalSend, Raft, RaftLogReader, RaftNetwork,
    RaftNetworkFactory, RaftSnapshotBuilder, SnapshotMeta, StorageError, StoredMembership, Vote,
};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Cursor;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::runtime::Runtime;

openraft::declare_raft_types!(
    pub Types:
        D = Vec<u8>,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        Entry = Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

type Failure = StorageError<u64>;
type Nodes = Arc<OnceLock<Vec<Raft<Types>>>>;

pub fn cluster(_batch: usize) -> Box<dyn Cluster> {
    Box::new(Members::start())
}

struct Members {
    runtime: Runtime,
    nodes: Nodes,
    delivered: Vec<Arc<AtomicUsize>>,
}

impl Members {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let config = Config {
            // Long, so that timers play no part in what is measured.
            heartbeat_interval: 10_000,
            election_timeout_min: 60_000,
            election_timeout_max: 120_000,
            max_payload_entries: 2_000,
            snapshot_policy: openraft::SnapshotPolicy::Never,
            ..Default::default()
        };
        let config = Arc::new(config.validate().expect("a configuration"));
        let nodes = Nodes::default();
        let delivered: Vec<_> = (0..3).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        runtime.block_on(async {
            let mut made = Vec::new();
            for (id, delivered) in (0..).zip(&delivered) {
                let network = Network(Arc::clone(&nodes));
                let machine = Machine { delivered: Arc::clone(delivered), ..Machine::default() };
                let node = Raft::new(id, Arc::clone(&config), network, Log::default(), machine).await;
                made.push(node.expect("a node"));
            }
            assert!(nodes.set(made).is_ok());
            let nodes = nodes.get().expect("they are made");
            let members: BTreeMap<u64, BasicNode> = (0..3).map(|id| (id, BasicNode::default())).collect();
            nodes[0].initialize(members).await.expect("a cluster");
            nodes[0].wait(None).current_leader(0, "the first one leads").await.expect("it does");
        });
        Members { runtime, nodes, delivered }
    }
}

impl Cluster for Members {
    fn round(&mut self, batch: usize) {
        let node = &self.nodes.get().expect("they are made")[0];
        self.runtime.block_on(async {
            let mut answers = Vec::with_capacity(batch);
            for _ in 0..batch {
                answers.push(node.client_write_ff(vec![7; COMMAND_BYTES]).await.expect("it takes it"));
            }
            for answer in answers {
                answer.await.expect("an answer").expect("it is committed");
            }
        });
    }

    fn settle(&mut self, commands: usize) {
        self.runtime.block_on(async {
            // The others hear with the next message how far the log is committed.
            while self.delivered.iter().any(|delivered| delivered.load(Ordering::Relaxed) < commands) {
                let node = &self.nodes.get().expect("they are made")[0];
                node.trigger().heartbeat().await.expect("it runs");
                tokio::task::yield_now().await;
            }
        });
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            for node in self.nodes.get().expect("they are made") {
                node.shutdown().await.expect("it ends");
            }
        });
    }
}

/// Calls the others.
struct Network(Nodes);

struct Peer {
    nodes: Nodes,
    target: usize,
}

impl Peer {
    fn node(&self) -> &Raft<Types> {
        &self.nodes.get().expect("nobody speaks before all are made")[self.target]
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        Peer { nodes: Arc::clone(&self.0), target: target as usize }
    }
}

type Rpc<E> = RPCError<u64, BasicNode, RaftError<u64, E>>;

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        Ok(self.node().append_entries(request).await.expect("it runs"))
    }

    async fn install_snapshot(
        &mut self,
        _request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Rpc<InstallSnapshotError>> {
        unreachable!("nobody makes snapshots here")
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        Ok(self.node().vote(request).await.expect("it runs"))
    }
}

/// The log, shared with those who read it for the peers. Its first entry has the index 0.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    entries: Vec<Entry<Types>>,
    vote: Option<Vote<u64>>,
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Types>>, Failure> {
        let entries = &self.0.lock().expect("nobody panics").entries;
        let begin = match range.start_bound() {
            Bound::Included(begin) => *begin as usize,
            Bound::Excluded(before) => *before as usize + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => *last as usize + 1,
            Bound::Excluded(end) => *end as usize,
            Bound::Unbounded => entries.len(),
        };
        let end = end.min(entries.len());
        Ok(entries[begin.min(end)..end].to_vec())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Failure> {
        let last_log_id = self.0.lock().expect("nobody panics").entries.last().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: None, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failure> {
        self.0.lock().expect("nobody panics").vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failure> {
        Ok(self.0.lock().expect("nobody panics").vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.lock().expect("nobody panics").entries.extend(entries);
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Result<(), Failure> {
        self.0.lock().expect("nobody panics").entries.truncate(from.index as usize);
        Ok(())
    }

    async fn purge(&mut self, _upto: LogId<u64>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Counts commands.
#[derive(Clone, Default)]
struct Machine {
    delivered: Arc<AtomicUsize>,
    applied: Option<LogId<u64>>,
    members: StoredMembership<u64, BasicNode>,
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), Failure> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, Failure>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(_) => {
                    self.delivered.fetch_add(1, Ordering::Relaxed);
                }
                EntryPayload::Membership(members) => {
                    self.members = StoredMembership::new(Some(entry.log_id), members);
                }
            }
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failure> {
        unreachable!("nobody makes snapshots here")
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta<u64, BasicNode>,
        _snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failure> {
        unreachable!("nobody makes snapshots here")
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failure> {
        Ok(None)
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failure> {
        unreachable!("nobody makes snapshots here")
    }
}
