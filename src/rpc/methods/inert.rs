//! Methods of SPDK that tune what does not exist here. Configurations saved by SPDK call them; refusing one would make
//! its client give up loading. They take any parameters, answer `true` and change nothing.

use super::{DONE, Nothing};
use crate::cluster::Node;
use crate::rpc::context::Context;
use crate::rpc::error::Dialect;
use crate::rpc::params::{Field, Members, Params, Problem};
use crate::rpc::table::{Answer, Method, When};
use serde_json::json;
use std::rc::Rc;

/// Whatever was given.
pub struct Anything;

impl Params for Anything {
    const FIELDS: &'static [Field] = &[];
    fn take(members: &mut Members) -> Result<Anything, Problem> {
        members.0.clear();
        Ok(Anything)
    }
}

const NAMES: &[&str] = &[
    "accel_set_options",
    "bdev_iscsi_set_options",
    "bdev_nvme_set_hotplug",
    "bdev_nvme_set_options",
    "bdev_raid_set_options",
    "bdev_set_options",
    "framework_set_scheduler",
    "fsdev_set_opts",
    "iobuf_set_options",
    "keyring_linux_set_options",
    "nvmf_set_config",
    "nvmf_set_crdt",
    "nvmf_set_max_subsystems",
    "sock_impl_set_options",
    "sock_set_default_impl",
    "vmd_enable",
];

/// The methods of this file.
pub fn methods<N: Node + 'static>() -> Vec<Method<N>> {
    let doc = "Accepted for SPDK's clients; takes any parameters and changes nothing.";
    let ignored = NAMES.iter().map(|name| Method::new(name, doc, When::Always, Dialect::Nvmf, true, ignore));
    let getters = [
        Method::core("framework_get_scheduler", "Every reactor stays on its CPU.", get_scheduler),
        Method::core("framework_get_governor", "CPU frequencies are left to the kernel.", get_governor),
    ];
    ignored.chain(getters).collect()
}

async fn ignore<N: Node>(_: Rc<Context<N>>, _: Anything) -> Answer {
    Ok(DONE)
}

async fn get_scheduler<N: Node>(context: Rc<Context<N>>, _: Nothing) -> Answer {
    let reactors = context.control.node().reactors().await;
    let first = reactors.first().map(|r| r.cpu);
    Ok(json!({
        "scheduler_name": "static", "scheduler_period": 0, "isolated_core_mask": "0", "scheduling_core": first,
    }))
}

async fn get_governor<N: Node>(_: Rc<Context<N>>, _: Nothing) -> Answer {
    Ok(json!({}))
}
