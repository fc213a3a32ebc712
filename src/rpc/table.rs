//! The table of methods: the single source of their names, states, parameters, documentation and code.

use super::context::{Caller, Context};
use super::error::{Dialect, RpcError};
use super::json::Json;
use super::methods;
use super::params::{Field, Params};
use crate::cluster::Node;
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// What a method comes back with.
pub type Answer = Result<Value, RpcError>;
type Pending = Pin<Box<dyn Future<Output = Answer>>>;
type Run<N> = Box<dyn Fn(Rc<Context<N>>, Caller, Option<Json>) -> Pending>;

/// When a method may be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Only before `framework_start_init`.
    Startup,
    /// Only after it.
    Runtime,
    /// At any time.
    Always,
}

/// A method.
pub struct Method<N> {
    /// Its name.
    pub name: &'static str,
    /// When it may be called.
    pub when: When,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// Its parameters.
    pub fields: &'static [Field],
    run: Run<N>,
}

impl<N: Node + 'static> Method<N> {
    /// A method of the bdev and lvol family.
    pub fn bdev<P: Params, F: Future<Output = Answer> + 'static>(
        name: &'static str,
        doc: &'static str,
        run: impl Fn(Rc<Context<N>>, P) -> F + 'static,
    ) -> Method<N> {
        Method::new(name, doc, When::Runtime, Dialect::Bdev, false, run)
    }

    /// A method of the nvmf family.
    pub fn nvmf<P: Params, F: Future<Output = Answer> + 'static>(
        name: &'static str,
        doc: &'static str,
        run: impl Fn(Rc<Context<N>>, P) -> F + 'static,
    ) -> Method<N> {
        Method::new(name, doc, When::Runtime, Dialect::Nvmf, false, run)
    }

    /// Any other method that works only at runtime.
    pub fn core<P: Params, F: Future<Output = Answer> + 'static>(
        name: &'static str,
        doc: &'static str,
        run: impl Fn(Rc<Context<N>>, P) -> F + 'static,
    ) -> Method<N> {
        Method::new(name, doc, When::Runtime, Dialect::Nvmf, false, run)
    }

    /// A method in full.
    pub fn new<P: Params, F: Future<Output = Answer> + 'static>(
        name: &'static str,
        doc: &'static str,
        when: When,
        dialect: Dialect,
        relaxed: bool,
        run: impl Fn(Rc<Context<N>>, P) -> F + 'static,
    ) -> Method<N> {
        Method::full(name, doc, when, dialect, relaxed, move |context, _, params| run(context, params))
    }

    /// A method that only works at runtime and whose answer depends on who calls.
    pub fn for_caller<P: Params, F: Future<Output = Answer> + 'static>(
        name: &'static str,
        doc: &'static str,
        run: impl Fn(Rc<Context<N>>, Caller, P) -> F + 'static,
    ) -> Method<N> {
        Method::full(name, doc, When::Runtime, Dialect::Nvmf, false, run)
    }

    fn full<P: Params, F: Future<Output = Answer> + 'static>(
        name: &'static str,
        doc: &'static str,
        when: When,
        dialect: Dialect,
        relaxed: bool,
        run: impl Fn(Rc<Context<N>>, Caller, P) -> F + 'static,
    ) -> Method<N> {
        let run: Run<N> = Box::new(move |context, caller, params| match P::decode(params, relaxed) {
            Ok(params) => Box::pin(run(context, caller, params)),
            Err(problem) => {
                let error = RpcError::undecodable(dialect, &problem);
                Box::pin(std::future::ready(Err(error)))
            }
        });
        Method { name, when, doc, fields: P::FIELDS, run }
    }

    /// The same method, callable at other times.
    #[must_use]
    pub fn when(self, when: When) -> Method<N> {
        Method { when, ..self }
    }

    /// True when it may be called now.
    pub fn allowed(&self, runtime: bool) -> bool {
        match self.when {
            When::Always => true,
            When::Runtime => runtime,
            When::Startup => !runtime,
        }
    }

    /// Calls it.
    pub fn call(&self, context: Rc<Context<N>>, caller: Caller, params: Option<Json>) -> Pending {
        (self.run)(context, caller, params)
    }
}

/// Methods by name.
pub struct Table<N>(BTreeMap<&'static str, Method<N>>);

impl<N: Node + 'static> Table<N> {
    /// Every method of the node.
    pub fn new() -> Table<N> {
        let all = [
            methods::framework::methods(),
            methods::config::methods(),
            methods::stats::methods(),
            methods::log::methods(),
            methods::notify::methods(),
            methods::bdev::methods(),
            methods::create::methods(),
            methods::nvme::methods(),
            methods::lvol::methods(),
            methods::nvmf::methods(),
            methods::hosts::methods(),
            methods::iscsi::methods(),
            methods::iscsi_groups::methods(),
            methods::iscsi_options::methods(),
            methods::iscsi_stats::methods(),
            methods::inert::methods(),
            methods::own::methods(),
        ];
        let mut table = BTreeMap::new();
        for method in all.into_iter().flatten() {
            let name = method.name;
            assert!(table.insert(name, method).is_none(), "method {name} is there twice");
        }
        Table(table)
    }

    /// The method of that name.
    pub fn get(&self, name: &str) -> Option<&Method<N>> {
        self.0.get(name)
    }

    /// All methods, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Method<N>> {
        self.0.values()
    }
}

impl<N: Node + 'static> Default for Table<N> {
    fn default() -> Self {
        Table::new()
    }
}
