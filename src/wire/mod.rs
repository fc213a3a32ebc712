//! Bytes to values and back, for both sides of every protocol: NVMe base structures ([`nvme`]), NVMe over Fabrics
//! ([`fabrics`], [`discovery`]), the NVMe/TCP transport ([`nvme_tcp`]) and iSCSI ([`iscsi`]).
//!
//! Fixed structures are `repr(C)` structs of little-endian (NVMe) or big-endian (iSCSI) fields without padding, whose size and offsets are proved at
//! compile time: a view over received bytes is `T::ref_from_bytes`, an emitted structure is `as_bytes()`, and neither
//! copies nor allocates. Everything here is total: no input makes it panic, loop or allocate. Callers are the target
//! (`nvmf`, `iscsi`), the client (`initiator`) and, for queue entries, `device`.

pub mod discovery;
pub mod fabrics;
pub mod iscsi;
pub mod nvme;
pub mod nvme_tcp;
pub mod scsi;

#[cfg(test)]
pub(crate) mod mutate;

/// Asserts at compile time the size of a structure and the offset of each named field.
macro_rules! layout {
    ($t:ty, $size:expr $(, $field:ident @ $at:expr)* $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$t>() == $size);
            assert!(core::mem::align_of::<$t>() == 1);
            $(assert!(core::mem::offset_of!($t, $field) == $at);)*
        };
    };
}
pub(crate) use layout;
