//! The configuration file of `pollux serve`: TOML, every key optional, every key checked. `config/reference.toml` shows
//! all of them with their defaults. Command-line flags win over the file.

mod declare;
mod dpdk;
mod iscsi;
mod read;
mod tune;

pub use read::ConfigError;

use crate::app::Options;
use crate::rpc::Level;
use read::{Section, Source};
use std::path::Path;

/// What a file says.
#[derive(Debug)]
pub struct Loaded {
    /// How the node is started.
    pub options: Options,
    /// How much is logged, when the file says.
    pub log: Option<Level>,
}

/// Reads and checks the file, on top of the defaults.
pub fn load(file: &Path) -> Result<Loaded, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    parse(file, &text).map_err(|e| e.to_string())
}

/// Checks `text`, which `file` holds.
pub fn parse(file: &Path, text: &str) -> Result<Loaded, ConfigError> {
    let source = Source::new(file, text);
    let table = source.parse()?;
    let whole = Section::whole(&source, &table);
    let mut loaded = Loaded { options: Options::default(), log: None };
    tune::node(whole.section("node")?, &mut loaded)?;
    tune::rpc(whole.section("rpc")?, &mut loaded.options)?;
    tune::memory(whole.section("memory")?, &mut loaded.options)?;
    tune::tcp(whole.section("tcp")?, &mut loaded.options)?;
    loaded.options.dpdk = dpdk::net(whole.section("net")?)?;
    tune::nvmf(whole.section("nvmf")?, &mut loaded.options.nvmf)?;
    tune::store(whole.section("store")?, &mut loaded.options.store)?;
    loaded.options.declared = declare::declared(&whole)?;
    let iscsi = whole.section("iscsi")?;
    tune::iscsi(&iscsi, &mut loaded.options.iscsi)?;
    loaded.options.declared.iscsi = iscsi::declared(&iscsi)?;
    iscsi.finish()?;
    whole.finish()?;
    Ok(loaded)
}

#[cfg(test)]
mod tests;
