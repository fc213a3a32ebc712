//! Starting and stopping a node, as a list of steps: memory, reactors, journal, recovery, doors; and back.

use super::card::{self, NetMaker};
use super::cores::{Carrier, Cores, Task};
use super::node::LocalNode;
use super::turn::{Core, Message, Parts};
use crate::base::{CoreId, VolumeId};
use crate::cluster::{Control, Declared, Journal, JournalError};
use crate::mem::{Pool, Sizing, Span};
use crate::net::{DpdkConfig, Engine, NetError, TcpConfig};
use crate::reactor::{self, Builder, ControlReceiver, ControlSender, Peer, Poll, Reactors};
use crate::repl::{Local, LocalConfig};
use crate::rpc::{Context, Logging, Server, ServerError};
use crate::store;
use crate::volume::{Front, FrontConfig};
use crate::{iscsi, nvmf};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CPU of each reactor.
    pub cpus: Vec<usize>,
    /// Whether idle reactors sleep.
    pub poll: Poll,
    /// Nanoseconds a stage of a turn may take before it is reported.
    pub stall_ns: u64,
    /// Where the journal is kept.
    pub state_dir: PathBuf,
    /// The JSON-RPC socket.
    pub rpc_socket: PathBuf,
    /// Limits of the JSON-RPC server.
    pub rpc: crate::rpc::Limits,
    /// Buffers per core.
    pub buffers: Sizing,
    /// What moves the bytes of kernel TCP.
    pub engine: Engine,
    /// Options of kernel TCP.
    pub tcp: TcpConfig,
    /// The card that the reactors poll themselves, and its addresses. Only in a build with the feature `dpdk`.
    pub dpdk: Option<DpdkConfig>,
    /// Limits of the NVMe/TCP target.
    pub nvmf: nvmf::Config,
    /// Limits of the iSCSI target.
    pub iscsi: iscsi::Config,
    /// Limits of every slice of a store.
    pub store: store::Limits,
    /// What the configuration file declares to exist.
    pub declared: Declared,
    /// Open nothing and serve nothing before `framework_start_init`.
    pub wait_for_rpc: bool,
}

impl Default for Options {
    /// One reactor on the first CPU this process may use, everything else as its own default says.
    fn default() -> Options {
        let root = rustix::process::geteuid().is_root();
        let first = core_affinity::get_core_ids().and_then(|ids| ids.first().copied()).map_or(0, |c| c.id);
        Options {
            cpus: vec![first],
            poll: Poll::Adaptive,
            stall_ns: 10_000_000,
            state_dir: PathBuf::from(if root { "/var/lib/pollux" } else { "pollux-state" }),
            rpc_socket: PathBuf::from("/var/tmp/pollux.sock"),
            rpc: crate::rpc::Limits::default(),
            buffers: Sizing::default(),
            engine: Engine::default(),
            tcp: TcpConfig::default(),
            dpdk: None,
            nvmf: nvmf::Config::default(),
            iscsi: iscsi::Config::default(),
            store: store::Limits::default(),
            declared: Declared::default(),
            wait_for_rpc: false,
        }
    }
}

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The CPUs asked for are not there.
    #[error("--cores: {0}")]
    Cpus(String),
    /// Memory for the buffers.
    #[error("{bytes} bytes of buffers: {source}")]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The card that the reactors poll.
    #[error("net.dpdk: {0}")]
    Card(String),
    /// A reactor did not start.
    #[error("{0}")]
    Reactor(String),
    /// The state directory.
    #[error("state directory: {0}")]
    Journal(#[from] JournalError),
    /// The RPC socket.
    #[error("RPC socket: {0}")]
    Server(#[from] ServerError),
    /// The control thread's runtime.
    #[error("control thread: {0}")]
    Runtime(std::io::Error),
    /// Unpredictable bytes, which CHAP challenges are made of.
    #[error("the system's random bytes: {0}")]
    Random(getrandom::Error),
    /// Reactors that did not end in time.
    #[error("reactors {0:?} did not stop")]
    Stop(Vec<CoreId>),
}

/// How long reactors may take to finish what is under way.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How often the control thread looks for stalls and troubles that reactors noted.
const WATCH_EVERY: Duration = Duration::from_secs(5);

struct Mailboxes(ControlSender<Message>);

impl Carrier for Mailboxes {
    fn send(&self, core: CoreId, task: Task) -> Result<(), Task> {
        self.0.try_send(core, Message::Task(task)).map_err(|back| match back {
            Message::Task(task) => task,
            _ => unreachable!("a task was sent"),
        })
    }
}

/// Runs a node until it is told to stop (signal or RPC). `ready` is called once the RPC socket answers.
pub fn serve(options: &Options, logging: Logging, ready: impl FnOnce()) -> Result<(), ServeError> {
    reactor::check_cpus(&options.cpus).map_err(|e| ServeError::Cpus(e.to_string()))?;
    let started = std::time::Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Runtime)?;
    // The state directory is locked before anything else is touched: a second node must not get further than this.
    let (journal, state) = Journal::open(&options.state_dir, VolumeId(1))?;
    // Held until the reactors have ended: they use its memory.
    let (_card, nets) = card::open(options)?;
    let builders = builders(options, nets)?;
    let config = reactor::Config {
        stall_ns: options.stall_ns,
        poll: options.poll,
        ..reactor::Config::new(options.cpus.clone())
    };
    let running =
        reactor::start::<Core, NetError>(&config, builders).map_err(|e| ServeError::Reactor(e.to_string()))?;
    let reactors = Rc::new(RefCell::new(running.reactors));
    let stopping = Rc::new(Notify::new());
    let cores = Cores::new(Mailboxes(running.to_cores), options.cpus.len() as u16);
    let limits = options.store.clone();
    let ours = options.dpdk.iter().flat_map(|c| &c.addresses).map(|a| a.ip).collect();
    let node = LocalNode::new(cores, reactors.clone(), options.poll, started, stopping.clone(), limits, ours);
    let context = Context::new(Control::new(node, journal, state), logging, options.declared.clone());
    let mut asked = running.from_cores;
    let served = runtime.block_on(control(options, &context, &reactors, &stopping, &mut asked, ready));
    drop(context);
    let reactors = Rc::into_inner(reactors).expect("the node was dropped with its context").into_inner();
    reactors.stop();
    reactors.join(STOP_LIMIT).map_err(ServeError::Stop)?;
    served
}

/// The control thread's work: recovery, then the doors until somebody says stop, then everything closed in order.
async fn control(
    options: &Options,
    context: &Rc<Context<LocalNode<Mailboxes>>>,
    reactors: &Rc<RefCell<Reactors>>,
    stopping: &Rc<Notify>,
    asked: &mut ControlReceiver<Message>,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let server = Server::bind(&options.rpc_socket, options.rpc)?;
    if !options.wait_for_rpc {
        context.start().await;
    }
    ready();
    let watch = async {
        let mut known = Vec::new();
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            reactors.borrow_mut().stalls().for_each(drop);
            let troubles = context.control.node().troubles().await;
            for (what, n) in &troubles {
                let before = known.iter().find(|(w, _)| w == what).map_or(0, |(_, n)| *n);
                if *n != before {
                    tracing::warn!("{what}: {} more, {n} since start", n - before);
                }
            }
            known = troubles;
        }
    };
    let stop = stop_signal(stopping.clone());
    tokio::select! {
        () = server.run(context.clone(), stop) => {}
        () = watch => {}
        () = answer(&context.control, asked) => {}
    }
    context.control.node().close_all().await;
    Ok(())
}

/// Carries out what cores ask of the control plane, in the order it was asked.
async fn answer(control: &Control<LocalNode<Mailboxes>>, asked: &mut ControlReceiver<Message>) {
    loop {
        let (from, message) = match asked.recv().await {
            Ok(received) => received,
            Err(e) => {
                // Without this eye nothing that hosts reserve could be decided any more; look now and then instead.
                tracing::error!("messages of the reactors cannot be awaited: {e}");
                tokio::time::sleep(WATCH_EVERY).await;
                continue;
            }
        };
        match (from, message) {
            (Peer::Core(core), Message::Reserve(order)) => {
                let result = control.reserve(order.volume, &order.who, &order.op).await;
                control.node().reserved(core, order, result).await;
            }
            _ => unreachable!("cores ask for reservations only"),
        }
    }
}

/// Done when the process is asked to end, by signal or by RPC.
async fn stop_signal(asked: Rc<Notify>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::warn!("signals cannot be watched; only RPC can stop this node");
        return asked.notified().await;
    };
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM: stopping"),
        _ = int.recv() => tracing::info!("SIGINT: stopping"),
        () = asked.notified() => tracing::info!("asked by RPC: stopping"),
    }
}

/// Every core's memory is mapped here, so that each device can be told of all of it; the rest of a core is made on its
/// own thread.
fn builders(options: &Options, nets: Vec<NetMaker>) -> Result<Vec<Builder<Core, NetError>>, ServeError> {
    let mut pools = Vec::new();
    let mut spans = Vec::new();
    for (index, cpu) in options.cpus.iter().enumerate() {
        let bytes = options.buffers.bytes_per_core();
        let memory = |source| ServeError::Memory { bytes, source };
        let (pool, span) = options.buffers.provide(CoreId(index as u16), *cpu).map_err(memory)?;
        spans.push(span);
        pools.push(pool);
    }
    let spans: Arc<[Span]> = spans.into();
    let cores = options.cpus.len() as u16;
    let builder = |(pool, net): (Pool, NetMaker)| -> Result<Builder<Core, NetError>, ServeError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(ServeError::Random)?;
        let (spans, options) = (spans.clone(), options.clone());
        Ok(Box::new(move |id| {
            let local = Local::new(LocalConfig::default());
            let parts = Parts {
                pool,
                spans,
                net: net()?,
                nvmf: nvmf::Target::new(id, cores, &options.nvmf),
                iscsi: iscsi::Target::new(id, cores, &options.iscsi, seed),
                front: Front::new(id, cores, FrontConfig::default(), local),
            };
            Ok(Core::new(id, parts))
        }))
    };
    pools.into_iter().zip(nets).map(builder).collect()
}
