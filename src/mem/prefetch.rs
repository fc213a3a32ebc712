//! A hint to the CPU that memory will be used soon. Called by media of memory for work that is known to be coming.

use std::ptr::NonNull;

/// Bytes per cache line.
const LINE: usize = 64;

/// Asks for `LINES` cache lines from `at` on. Has no effect but on time, whatever the address.
#[inline]
pub fn prefetch<const LINES: usize>(at: NonNull<u8>) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..LINES {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults and changes no state of the program, so any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.as_ptr().wrapping_add(line * LINE).cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, LINE);
}
