//! The log's knobs: levels and flags as SPDK names them, handed to whoever installed the log.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// Parts of the node whose debug messages can be turned on alone; named after the folders that log.
pub const FLAGS: &[&str] = &["app", "cluster", "device", "net", "nvmf", "reactor", "repl", "rpc", "store", "volume"];

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// What failed.
    Error,
    /// What may become a failure.
    Warning,
    /// What an operator wants to know of.
    Notice,
    /// More of it.
    Info,
    /// What a developer wants to know of.
    Debug,
}

impl Level {
    /// All, the quietest first.
    pub const ALL: [Level; 5] = [Level::Error, Level::Warning, Level::Notice, Level::Info, Level::Debug];

    /// As SPDK writes it.
    pub fn word(self) -> &'static str {
        match self {
            Level::Error => "ERROR",
            Level::Warning => "WARNING",
            Level::Notice => "NOTICE",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        }
    }
    /// As `tracing` writes it, which has no level between info and warn.
    pub fn directive(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warn",
            Level::Notice | Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// What is to be logged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Kept.
    pub level: Level,
    /// Printed; the stricter of the two counts, as there is one log.
    pub print_level: Level,
    /// Parts that log everything.
    pub flags: BTreeSet<&'static str>,
    /// Lines begin with the time.
    pub timestamps: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { level: Level::Info, print_level: Level::Info, flags: BTreeSet::new(), timestamps: true }
    }
}

impl Settings {
    /// As `tracing` directives: `info,pollux::store=debug`.
    pub fn directives(&self) -> String {
        let level = self.level.min(self.print_level);
        let flags = self.flags.iter().map(|flag| format!(",pollux::{flag}=trace"));
        std::iter::once(level.directive().to_owned()).chain(flags).collect()
    }
}

/// The settings and who is told of a change.
pub struct Logging {
    settings: RefCell<Settings>,
    apply: Box<dyn Fn(&Settings)>,
}

impl Logging {
    /// `apply` is called with every change.
    pub fn new(settings: Settings, apply: impl Fn(&Settings) + 'static) -> Logging {
        Logging { settings: RefCell::new(settings), apply: Box::new(apply) }
    }
    /// The settings.
    pub fn get(&self) -> Settings {
        self.settings.borrow().clone()
    }
    /// Changes them.
    pub fn change(&self, edit: impl FnOnce(&mut Settings)) {
        let settings = {
            let mut settings = self.settings.borrow_mut();
            edit(&mut settings);
            settings.clone()
        };
        (self.apply)(&settings);
    }
}
