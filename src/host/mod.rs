//! Facts of the machine, read from the kernel's files, and the few changes to it that an operator asks for: giving a PCI
//! function to VFIO and back. `cli` calls it (`pollux device`, `pollux doctor`), never a reactor.
//!
//! Every fact is read under a [`Root`], which is `/` or a tree that a test made; every change goes through a [`Kernel`],
//! so that a test can answer as the kernel would. What can not be read counts as unknown, and what is unknown is never
//! taken for safe.

pub mod bind;
mod disk;
pub mod facts;
#[cfg(test)]
pub(crate) mod fake;
mod group;
mod kernel;
mod net;
mod obstacle;
mod pci;
mod record;
mod root;
#[cfg(test)]
mod tests;

pub use disk::{Disk, disks};
pub use group::{Iommu, group_members, iommu, remaps_interrupts};
pub use kernel::{Kernel, Live};
pub use net::{Interface, interfaces};
pub use obstacle::{Obstacle, obstacles};
pub use pci::{Address, AddressError, Function, Kind, functions};
pub use record::Record;
pub use root::Root;
