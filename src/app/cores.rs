//! The control thread's way to the reactors: a closure sent to a core, run there between two turns, its answer awaited
//! here. Control operations only; the data path never waits for one.

use super::turn::Core;
use crate::base::{CoreId, Time};
use crate::cluster::NodeError;
use std::future::Future;
use tokio::sync::oneshot;

/// What a core is asked to run.
pub type Task = Box<dyn FnOnce(&mut Core, Time) + Send>;

/// How a task reaches its core. Implemented over the reactors' mailboxes by `serve`; `Err` gives the task back while
/// the mailbox is full.
pub trait Carrier {
    /// Hands `task` to `core`.
    fn send(&self, core: CoreId, task: Task) -> Result<(), Task>;
}

/// All cores of this node.
pub struct Cores<C: Carrier> {
    carrier: C,
    count: u16,
}

impl<C: Carrier> Cores<C> {
    /// `count` cores behind `carrier`.
    pub fn new(carrier: C, count: u16) -> Cores<C> {
        Cores { carrier, count }
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Their numbers.
    pub fn all(&self) -> impl Iterator<Item = CoreId> + use<C> {
        (0..self.count).map(CoreId)
    }

    /// Runs `work` on one core.
    pub async fn on<T, F>(&self, core: CoreId, work: F) -> Result<T, NodeError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Core, Time) -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let mut task: Task = Box::new(move |core, now| {
            // Nobody waits any more when the control thread gave up; that changes nothing here.
            let _ = answer.send(work(core, now));
        });
        while let Err(back) = self.carrier.send(core, task) {
            task = back;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        answered.await.map_err(|_| NodeError::Stopping)
    }

    /// Runs `work` on every core, in order; the answers by core.
    pub async fn each<T, F>(&self, work: F) -> Result<Vec<T>, NodeError>
    where
        T: Send + 'static,
        F: Fn(&mut Core, Time) -> T + Clone + Send + 'static,
    {
        let mut answers = Vec::with_capacity(usize::from(self.count));
        for core in self.all() {
            answers.push(self.on(core, work.clone()).await?);
        }
        Ok(answers)
    }

    /// Asks every core the same question, every millisecond, until all say yes.
    pub async fn until<F>(&self, question: F) -> Result<(), NodeError>
    where
        F: Fn(&mut Core) -> bool + Clone + Send + 'static,
    {
        for core in self.all() {
            loop {
                let ask = question.clone();
                if self.on(core, move |core, _| ask(core)).await? {
                    break;
                }
                pause().await;
            }
        }
        Ok(())
    }
}

/// Between two looks at something a reactor works on.
pub fn pause() -> impl Future<Output = ()> {
    tokio::time::sleep(std::time::Duration::from_micros(500))
}
